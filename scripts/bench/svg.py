"""Bars and lines as SVG, by hand: on a white card, so that they can be read on any background."""

import html
import math

WIDTH = 760
FONT = "font-family=\"-apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif\""
INK, FAINT, GRID, CARD = "#1f2430", "#5b6475", "#e3e7ee", "#ffffff"
OURS, OURS_SERIAL, PEER = "#1f77b4", "#8fbfe0", "#b8bfcb"
LINES = ["#1f77b4", "#d1495b", "#5b8c5a", "#8d6cab"]


def _text(x, y, text, size=13, anchor="start", colour=INK, weight="normal"):
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" fill="{colour}" '
        f'font-weight="{weight}">{html.escape(text)}</text>'
    )


def _card(height, title, subtitle, parts):
    head = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        f"role=\"img\" aria-label=\"{html.escape(title, quote=True)}\" {FONT}>",
        f'<rect x="0.5" y="0.5" width="{WIDTH - 1}" height="{height - 1}" rx="8" fill="{CARD}" stroke="{GRID}"/>',
        _text(24, 34, title, 17, weight="600"),
        _text(24, 54, subtitle, 12.5, colour=FAINT),
    ]
    return "\n".join([*head, *parts, "</svg>", ""])


def ticks(most, count=5):
    """Round numbers from 0 to at least `most`."""
    if most <= 0:
        return [0, 1]
    rough = most / count
    power = 10 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough)
    return [step * number for number in range(math.ceil(most / step - 1e-9) + 1)]


def number(value):
    """Three figures, and no more zeros than it takes."""
    if value == 0:
        return "0"
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.{max(0, 2 - math.floor(math.log10(value)))}f}"


def tick_text(value):
    return f"{value:,.6f}".rstrip("0").rstrip(".")


def bars(title, subtitle, groups, unit):
    """`groups`: (heading or "", [(label, value, low, high, colour)])."""
    left, right, row, top = 190, 90, 28, 78
    most = max(high for _, entries in groups for _, _, _, high, _ in entries)
    scale = ticks(most)
    width = WIDTH - left - right
    height_of_rows = sum(len(entries) * row + (26 if heading else 6) for heading, entries in groups)
    bottom = top + height_of_rows + 4
    parts = []
    for tick in scale:
        x = left + width * tick / scale[-1]
        parts.append(f'<line x1="{x:.1f}" y1="{top - 6}" x2="{x:.1f}" y2="{bottom}" stroke="{GRID}"/>')
        parts.append(_text(x, bottom + 18, tick_text(tick), 12, "middle", FAINT))
    parts.append(_text(left + width / 2, bottom + 38, unit, 12.5, "middle", FAINT))
    y = top
    for heading, entries in groups:
        if heading:
            parts.append(_text(24, y + 15, heading, 13, weight="600"))
        y += 26 if heading else 6
        for label, value, low, high, colour in entries:
            length = width * value / scale[-1]
            middle = y + row / 2 - 2
            parts.append(_text(left - 10, middle + 4.5, label, 13, "end"))
            parts.append(
                f'<rect x="{left}" y="{y + 2}" width="{max(length, 1):.1f}" height="{row - 8}" rx="2" fill="{colour}"/>'
            )
            first, last = (left + width * end / scale[-1] for end in (low, high))
            parts.append(
                f'<line x1="{first:.1f}" y1="{middle:.1f}" x2="{last:.1f}" y2="{middle:.1f}" stroke="{INK}" '
                'stroke-width="1.5"/>'
            )
            parts.append(_text(max(left + length, last) + 8, middle + 4.5, number(value), 13, weight="600"))
            y += row
    return _card(bottom + 54, title, subtitle, parts)


def lines(title, subtitle, series, x_unit, y_unit, is_logarithmic=False, with_points=False):
    """`series`: (name, [(x, y)]), drawn in order. The logarithmic kind has powers of ten on both axes."""
    left, right, top, tall = 76, 28, 108, 290
    width = WIDTH - left - right
    xs = [x for _, points in series for x, _ in points]
    ys = [y for _, points in series for _, y in points]
    place_x, x_ticks = _axis(xs, is_logarithmic)
    place_y, y_ticks = _axis(ys, is_logarithmic)
    at_x = lambda value: left + width * place_x(value)
    at_y = lambda value: top + tall * (1 - place_y(value))
    parts = []
    for tick in x_ticks:
        x = at_x(tick)
        parts.append(f'<line x1="{x:.1f}" y1="{top}" x2="{x:.1f}" y2="{top + tall}" stroke="{GRID}"/>')
        parts.append(_text(x, top + tall + 19, tick_text(tick), 12, "middle", FAINT))
    for tick in y_ticks:
        y = at_y(tick)
        parts.append(f'<line x1="{left}" y1="{y:.1f}" x2="{left + width}" y2="{y:.1f}" stroke="{GRID}"/>')
        parts.append(_text(left - 8, y + 4, tick_text(tick), 12, "end", FAINT))
    parts.append(_text(left + width / 2, top + tall + 41, x_unit, 12.5, "middle", FAINT))
    parts.append(_text(24, top - 14, y_unit, 12.5, colour=FAINT))
    # The keys stand in one line, to the right of the unit.
    x = WIDTH - right - sum(34 + 7.2 * len(name) for name, _ in series)
    for (name, points), colour in zip(series, LINES):
        path = " ".join(f"{at_x(px):.1f},{at_y(py):.1f}" for px, py in points)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2.2" stroke-linejoin="round"/>')
        if with_points:
            for px, py in points:
                parts.append(f'<circle cx="{at_x(px):.1f}" cy="{at_y(py):.1f}" r="4" fill="{colour}"/>')
                # Not over the edge of the card.
                shift, anchor = (10, "start") if at_x(px) < left + width * 0.8 else (-10, "end")
                parts.append(_text(at_x(px) + shift, at_y(py) - 8, number(py), 12.5, anchor, weight="600"))
        parts.append(f'<line x1="{x:.1f}" y1="{top - 18}" x2="{x + 18:.1f}" y2="{top - 18}" stroke="{colour}" stroke-width="3"/>')
        parts.append(_text(x + 24, top - 14, name, 12.5))
        x += 34 + 7.2 * len(name)
    return _card(top + tall + 58, title, subtitle, parts)


def _axis(values, is_logarithmic):
    """How far along the axis a value lies, from 0 to 1, and the ticks."""
    if is_logarithmic:
        first, last = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
        last = max(last, first + 1)
        return lambda value: (math.log10(value) - first) / (last - first), [10.0**power for power in range(first, last + 1)]
    scale = ticks(max(values), 6)
    return lambda value: value / scale[-1], scale

"""Bars and lines as SVG, by hand: on a white card, so that they can be read on any background."""

import html
import math

WIDTH = 760
FONT = "font-family=\"-apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif\""
INK, FAINT, GRID, CARD = "#1f2430", "#5b6475", "#e3e7ee", "#ffffff"
OURS, OURS_SERIAL, PEER = "#1f77b4", "#8fbfe0", "#b8bfcb"
BARS_TOP, BAR_ROW = 78, 28
LINES_TOP, LINES_BOTTOM = 108, 398
LINES = ["#1f77b4", "#d1495b", "#5b8c5a", "#8d6cab"]


def _text(x, y, text, size=13, anchor="start", colour=INK, weight="normal"):
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" fill="{colour}" '
        f'font-weight="{weight}">{html.escape(text)}</text>'
    )


def _line(x1, y1, x2, y2, colour, width=1):
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}" stroke-width="{width}"/>'


def _card(height, title, subtitle, parts):
    head = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        f'role="img" aria-label="{html.escape(title, quote=True)}" {FONT}>',
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
    if value >= 100 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.{max(0, 2 - math.floor(math.log10(value)))}f}"


def tick_text(value):
    return f"{value:,.6f}".rstrip("0").rstrip(".")


def bars(title, subtitle, groups, unit):
    """`groups`: (heading, [(label, value, low, high, colour)])."""
    most = max(high for _, entries in groups for _, _, _, high, _ in entries)
    scale = Scale(206, WIDTH - 90, ticks(most))
    rows, y = [], BARS_TOP
    for heading, entries in groups:
        rows.append(_text(24, y + 15, heading, 13, weight="600"))
        y += 26
        for entry in entries:
            rows += _bar(scale, y, *entry)
            y += BAR_ROW
    bottom = y + 4
    grid = []
    for tick in scale.ticks:
        grid.append(_line(scale.at(tick), BARS_TOP - 6, scale.at(tick), bottom, GRID))
        grid.append(_text(scale.at(tick), bottom + 18, tick_text(tick), 12, "middle", FAINT))
    grid.append(_text(scale.at(scale.ticks[-1] / 2), bottom + 38, unit, 12.5, "middle", FAINT))
    return _card(bottom + 54, title, subtitle, grid + rows)


def _bar(scale, y, label, value, low, high, colour):
    left, right, middle = scale.at(0), scale.at(value), y + BAR_ROW / 2 - 2
    return [
        _text(left - 10, middle + 4.5, label, 13, "end"),
        f'<rect x="{left}" y="{y + 2}" width="{max(right - left, 1):.1f}" height="{BAR_ROW - 8}" rx="2" '
        f'fill="{colour}"/>',
        _line(scale.at(low), middle, scale.at(high), middle, INK, 1.5),
        _text(max(right, scale.at(high)) + 8, middle + 4.5, number(value), 13, weight="600"),
    ]


def lines(title, subtitle, series, units, is_logarithmic=False, with_points=False):
    """`series`: (name, [(x, y)]); `units` of both axes. The logarithmic kind has powers of ten on both."""
    make = LogarithmicScale.around if is_logarithmic else Scale.from_zero
    x = make(76, WIDTH - 28, [x for _, points in series for x, _ in points])
    y = make(LINES_BOTTOM, LINES_TOP, [y for _, points in series for _, y in points])
    parts = _frame(x, y, *units)
    for (_, points), colour in zip(series, LINES, strict=False):
        path = " ".join(f"{x.at(px):.1f},{y.at(py):.1f}" for px, py in points)
        parts.append(
            f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2.2" stroke-linejoin="round"/>'
        )
        for px, py in points if with_points else ():
            parts.append(f'<circle cx="{x.at(px):.1f}" cy="{y.at(py):.1f}" r="4" fill="{colour}"/>')
            # Neither over the edge of the card nor over a line that rises.
            anchor = "start" if x.at(px) < x.first + 20 else "end"
            parts.append(_text(x.at(px), y.at(py) - 12, number(py), 12.5, anchor, weight="600"))
    return _card(LINES_BOTTOM + 58, title, subtitle, parts + _key(x.last, [name for name, _ in series]))


def _frame(x, y, x_unit, y_unit):
    parts = []
    for tick in x.ticks:
        parts.append(_line(x.at(tick), LINES_TOP, x.at(tick), LINES_BOTTOM, GRID))
        parts.append(_text(x.at(tick), LINES_BOTTOM + 19, tick_text(tick), 12, "middle", FAINT))
    for tick in y.ticks:
        parts.append(_line(x.first, y.at(tick), x.last, y.at(tick), GRID))
        parts.append(_text(x.first - 8, y.at(tick) + 4, tick_text(tick), 12, "end", FAINT))
    parts.append(_text((x.first + x.last) / 2, LINES_BOTTOM + 41, x_unit, 12.5, "middle", FAINT))
    parts.append(_text(24, LINES_TOP - 14, y_unit, 12.5, colour=FAINT))
    return parts


def _key(right, names):
    """In one line, from the right; letters are about 7.2 wide."""
    parts = []
    x = right - sum(44 + 7.2 * len(name) for name in names)
    for name, colour in zip(names, LINES, strict=False):
        parts.append(_line(x, LINES_TOP - 18, x + 18, LINES_TOP - 18, colour, 3))
        parts.append(_text(x + 24, LINES_TOP - 14, name, 12.5))
        x += 44 + 7.2 * len(name)
    return parts


class Scale:
    """Where a value lies between two ends of the picture."""

    def __init__(self, first, last, chosen):
        self.first, self.last, self.ticks = first, last, chosen

    @classmethod
    def from_zero(cls, first, last, values):
        return cls(first, last, ticks(max(values), 6))

    def at(self, value):
        return self.first + (self.last - self.first) * value / self.ticks[-1]


class LogarithmicScale(Scale):
    """From one power of ten to another."""

    @classmethod
    def around(cls, first, last, values):
        low = math.floor(math.log10(min(values)))
        high = max(math.ceil(math.log10(max(values))), low + 1)
        return cls(first, last, [10.0**power for power in range(low, high + 1)])

    def at(self, value):
        low, high = math.log10(self.ticks[0]), math.log10(self.ticks[-1])
        return self.first + (self.last - self.first) * (math.log10(value) - low) / (high - low)

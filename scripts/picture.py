#!/usr/bin/env python3
"""Makes docs/status.svg: runs the demo in a terminal (tmux), looks at the screen in the middle of the upload and at its
end, and draws what is there, colours and all. Needs tmux and what scripts/demo.sh needs.

    scripts/picture.py [FILE.svg]
"""

import html
import os
import re
import shlex
import subprocess
import sys
import time

COLUMNS, ROWS = 112, 60
ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
TMUX = ["tmux", "-L", f"mydumper2s3-picture-{os.getpid()}", "-f", "/dev/null"]
TIME_LIMIT = 15 * 60

# When the screen is worth a picture: the live line, with some files behind it.
RUNNING = re.compile(r"dump running .* (\d+) uploaded")
UPLOADED_AT_LEAST = 20
FIRST_LINE, LAST_LINE = "side by side", "exit status of mydumper:"

CELL, LINE, MARGIN, FONT_SIZE = 7.8, 18, 16, 13
BACKGROUND, FOREGROUND, FAINT = "#10141c", "#d7dce5", "#8a93a5"
PALETTE = ["#3b4252", "#e06c75", "#98c379", "#e5c07b", "#61afef", "#c678dd", "#56b6c2", "#d7dce5"]


def main():
    target = sys.argv[1] if len(sys.argv) > 1 else os.path.join(ROOT, "docs", "status.svg")
    running, ended = run_demo()
    with open(target, "w", encoding="utf-8") as file:
        file.write(draw([("while mydumper dumps", cut(running, None)), ("at the end", cut(ended, "the dump has ended"))]))
    print(target)


def run_demo():
    """The screen in the middle of the upload, and at its end."""
    command = f"{shlex.quote(ROOT)}/scripts/demo.sh; echo demo ended with status $?; sleep 600"
    tmux("new-session", "-d", "-x", str(COLUMNS), "-y", str(ROWS), "-s", "demo", command)
    try:
        running, end = None, time.monotonic() + TIME_LIMIT
        while time.monotonic() < end:
            screen = tmux("capture-pane", "-p", "-e", "-t", "demo")
            plain = without_colours(screen)
            found = RUNNING.search(plain)
            if running is None and found and int(found[1]) >= UPLOADED_AT_LEAST:
                running = screen
            if "demo ended with status" in plain:
                if running is None or "demo ended with status 0" not in plain:
                    sys.exit(f"the demo failed, or was too fast to be seen:\n{plain}")
                return running, screen
            time.sleep(0.2)
        sys.exit("the demo did not end in time")
    finally:
        # Ended as a person would do it, so that it stops what it started.
        for arguments in (["send-keys", "-t", "demo", "C-c"], ["kill-server"]):
            subprocess.run([*TMUX, *arguments], check=False, capture_output=True)
            time.sleep(1)


def tmux(*arguments):
    return subprocess.run([*TMUX, *arguments], check=True, capture_output=True, text=True, cwd=ROOT).stdout


def without_colours(text):
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def cut(screen, first):
    """The lines of the upload; at the end only those from `first` on."""
    lines, codes = [], ""
    for line in screen.rstrip("\n").split("\n"):
        # A colour goes on until another code comes, over the end of the line as well.
        lines.append(codes + line)
        codes = "".join(re.findall(r"\x1b\[[0-9;]*m", lines[-1]))
    plain = [without_colours(line) for line in lines]
    begin = next(at for at, line in enumerate(plain) if FIRST_LINE in line) + 1
    if first:
        begin = next(at for at, line in enumerate(plain) if first in line)
    end = next((at for at, line in enumerate(plain) if line.startswith(LAST_LINE)), len(lines) - 1)
    lines = lines[begin : end + 1]
    while lines and not without_colours(lines[-1]).strip():
        lines.pop()
    return lines


def draw(screens):
    height = sum(len(lines) + 2 for _, lines in screens) * LINE + MARGIN
    width = COLUMNS * CELL + 2 * MARGIN
    svg = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:g}" height="{height:g}" '
        f'viewBox="0 0 {width:g} {height:g}" font-family="ui-monospace, SFMono-Regular, Menlo, Consolas, '
        f'\'DejaVu Sans Mono\', monospace" font-size="{FONT_SIZE}" xml:space="preserve">',
        f'<rect width="100%" height="100%" rx="8" fill="{BACKGROUND}"/>',
    ]
    y = LINE
    for title, lines in screens:
        y += LINE / 2
        svg.append(f'<text x="{MARGIN}" y="{y:g}" fill="{FAINT}" font-style="italic">{title}</text>')
        for line in lines:
            y += LINE
            svg.extend(draw_line(line, y))
        y += LINE * 1.5
    svg.append("</svg>\n")
    return "\n".join(svg)


def draw_line(line, y):
    """A text element for each run of one colour, each at its own column: so no font can move what comes behind it."""
    column, style = 0, (None, False, False)
    for piece in re.split(r"(\x1b\[[0-9;]*m)", line):
        if piece.startswith("\x1b["):
            style = restyle(style, piece[2:-1])
            continue
        for match in re.finditer(r"\S+(?: \S+)*", piece):
            text = match[0]
            colour, bold, dim = style
            fill = FAINT if dim and colour is None else FOREGROUND if colour is None else colour
            weight = ' font-weight="bold"' if bold else ""
            x = MARGIN + (column + match.start()) * CELL
            length = f' textLength="{len(text) * CELL:g}" lengthAdjust="spacingAndGlyphs"'
            yield f'<text x="{x:g}" y="{y:g}" fill="{fill}"{weight}{length}>{html.escape(text)}</text>'
        column += len(piece)


def restyle(style, codes):
    colour, bold, dim = style
    numbers = [int(code or 0) for code in codes.split(";")]
    while numbers:
        number = numbers.pop(0)
        if number == 0:
            colour, bold, dim = None, False, False
        elif number == 1:
            bold = True
        elif number == 2:
            dim = True
        elif number == 22:
            bold = dim = False
        elif 30 <= number <= 37 or 90 <= number <= 97:
            colour = PALETTE[number % 10]
        elif number == 39:
            colour = None
        elif number == 38 and numbers[:1] == [5]:
            colour = PALETTE[numbers[1] % 8]
            numbers = numbers[2:]
    return colour, bold, dim


if __name__ == "__main__":
    main()

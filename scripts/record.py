#!/usr/bin/env python3
"""Records docs/demo.svg: what a terminal really showed while an app was pushed, as a picture that moves.

Needs a platform that is up, with a stack and a login, and `platform` on the PATH: run it after `make demo`.
It makes the app `hello-world` and destroys it at the end. Waits are cut short; nothing else is changed.
"""

import fcntl
import os
import pty
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import termios
import time
from html import escape
from itertools import groupby
from pathlib import Path

APP = "hello-world"
ROWS, COLUMNS = 26, 100
KEY, THINK, LONGEST_WAIT, LAST_LOOK = 0.04, 0.5, 0.7, 6.0  # seconds
CELL_WIDTH, CELL_HEIGHT, MARGIN, BAR = 7.8, 18, 16, 30  # units of the picture
COLORS = {31: "red", 32: "green", 33: "yellow", 34: "blue", 35: "pink", 36: "cyan", 90: "grey"}

ROOT = Path(__file__).resolve().parent.parent


class Screen:
    """Cells of (character, class, moment) in lines without end, as far as these programs need a terminal."""

    def __init__(self):
        self.lines, self.column, self.style, self.now = [[]], 0, "", 1.0
        self.typed = {}  # (line, column) of a command: (from, to)

    def write(self, text):
        for part in re.findall(r"\x1b\[[0-9;?]*[A-Za-z]|[^\x1b]", text):
            if part == "\r":
                self.column = 0
            elif part == "\n":
                self.lines.append([])
                self.column = 0
            elif part.endswith("K") and len(part) > 1:
                del self.lines[-1][self.column :]
            elif part.endswith("m") and len(part) > 1:
                self.color([int(code or 0) for code in part[2:-1].split(";")])
            elif len(part) == 1:
                self.put(part)

    def color(self, codes):
        if codes[:2] == [38, 5]:
            codes = [30 + codes[2] if codes[2] < 8 else 90]
        for code in codes:
            self.style = "bold" if code == 1 else COLORS.get(code, "" if code in (0, 22, 39) else self.style)

    def put(self, character):
        if self.column == COLUMNS:
            self.lines.append([])
            self.column = 0
        line = self.lines[-1]
        line.extend([(" ", "", self.now)] * (self.column - len(line)))
        line[self.column : self.column + 1] = [(character, self.style, self.now)]
        self.column += 1

    def type(self, command):
        self.style = "green"
        self.write("$ ")
        self.style = "bold"
        self.now += THINK
        end = self.now + KEY * len(command)
        self.typed[len(self.lines) - 1, 2] = (self.now, end)
        self.write(command)
        self.style, self.now = "", end + THINK / 2
        self.write("\r\n")


def run(screen, command, folder):
    """Runs a command on a terminal of its own and lets the screen see what it shows, when it shows it."""
    screen.type(command)
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    child = subprocess.Popen(["bash", "-c", command], cwd=folder, stdin=slave, stdout=slave, stderr=slave)
    os.close(slave)
    last = time.monotonic()
    while True:
        try:
            output = os.read(master, 65536)
        except OSError:  # a terminal without programs
            break
        screen.now += min(time.monotonic() - last, LONGEST_WAIT)
        last = time.monotonic()
        screen.write(output.decode(errors="replace"))
    os.close(master)
    if child.wait() != 0:
        sys.exit(f"`{command}` failed:\n" + "\n".join("".join(cell[0] for cell in line) for line in screen.lines))


def session(folder):
    shutil.copytree(ROOT / "samples/node", folder, dirs_exist_ok=True)
    for args in ("init -q -b main", "config user.name demo", "config user.email demo@localhost", "add -A", "commit -qm first"):
        subprocess.run(["git", *args.split()], cwd=folder, check=True)
    screen = Screen()
    run(screen, f"platform create {APP}", folder)
    url = subprocess.run(["platform", "open", "-a", APP], stdout=subprocess.PIPE, text=True, check=True).stdout.strip()
    run(screen, "git push platform main", folder)
    run(screen, f"curl {url}", folder)
    run(screen, "sed -i 's/Hello from/Hello again from/' server.js && git commit -qam 'Greet again'", folder)
    run(screen, "git push platform main", folder)
    run(screen, f"curl {url}", folder)
    run(screen, "platform rollback", folder)
    run(screen, f"curl {url}", folder)
    return screen


def picture(screen):
    total = screen.now + LAST_LOOK
    percent = lambda moment: f"{100 * moment / total:.2f}%"
    styles, texts = [], []
    moments = {}

    def appears(moment):
        return moments.setdefault(percent(moment), f"t{len(moments)}")

    for row, line in enumerate(screen.lines):
        column = 0
        for (style, moment), cells in groupby(line, key=lambda cell: cell[1:]):
            text = "".join(cell[0] for cell in cells)
            if text.strip():
                if (row, column) in screen.typed:
                    begin, end = screen.typed[row, column]
                    name = f"k{row}"
                    styles.append(
                        f"@keyframes {name}{{0%,{percent(begin)}{{clip-path:inset(0 100% 0 0);"
                        f"animation-timing-function:steps({len(text)})}}{percent(end)}{{clip-path:inset(0)}}}}"
                        f".{name}{{animation:{name} {total:.1f}s infinite}}"
                    )
                else:
                    name = appears(moment)
                shown = text.rstrip()
                x, y = MARGIN + column * CELL_WIDTH, (row + 1) * CELL_HEIGHT - 5
                texts.append(
                    f'<text class="{style} {name}" x="{x:.1f}" y="{y}" textLength="{len(shown) * CELL_WIDTH:.1f}">'
                    f"{escape(shown, quote=False)}</text>"
                )
            column += len(text)
    for at, name in moments.items():
        styles.append(f"@keyframes {name}{{0%{{opacity:0}}{at}{{opacity:1}}}}.{name}{{animation:{name} {total:.1f}s step-end infinite}}")

    scrolls, bottom = ["0%{transform:none}"], 0
    for row, line in enumerate(screen.lines):
        if line and row >= ROWS:
            bottom = (row + 1 - ROWS) * CELL_HEIGHT
            scrolls.append(f"{percent(min(cell[2] for cell in line))}{{transform:translateY(-{bottom}px)}}")
    styles.append(f"@keyframes scroll{{{''.join(scrolls)}}}.scroll{{transform:translateY(-{bottom}px);animation:scroll {total:.1f}s step-end infinite}}")

    width, height = 2 * MARGIN + COLUMNS * CELL_WIDTH, BAR + ROWS * CELL_HEIGHT + MARGIN
    newline = "\n"
    return f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height}" width="{width:.0f}" role="img" aria-label="git push platform main on a terminal">
<!-- Made by scripts/record.py from a real session. -->
<style>
text{{font:13px ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace;fill:#d7d5e5;white-space:pre}}
.bold{{fill:#fff;font-weight:600}}.red{{fill:#ff7b8a}}.green{{fill:#7ddc9a}}.yellow{{fill:#f0cf7a}}.blue{{fill:#86a9ff}}.pink{{fill:#e59cf0}}.cyan{{fill:#79d4e6}}.grey{{fill:#8f8ba8}}
{newline.join(styles)}
@media(prefers-reduced-motion:reduce){{*{{animation:none!important}}}}
</style>
<rect x=".5" y=".5" width="{width - 1:.0f}" height="{height - 1}" rx="9" fill="#1d1b26" stroke="#4b4860"/>
<g fill="#4b4860"><circle cx="20" cy="16" r="5"/><circle cx="38" cy="16" r="5"/><circle cx="56" cy="16" r="5"/></g>
<svg y="{BAR}" width="{width:.0f}" height="{ROWS * CELL_HEIGHT + 5}"><g class="scroll">
{newline.join(texts)}
</g></svg>
</svg>
"""


def main():
    folder = tempfile.mkdtemp(prefix="record-")
    try:
        screen = session(folder)
    finally:
        shutil.rmtree(folder)
        subprocess.run(["platform", "destroy", "-a", APP, "--confirm", APP], check=False)
    target = ROOT / "docs/demo.svg"
    target.write_text(picture(screen))
    print(f"{target}: {screen.now:.0f} s, {target.stat().st_size // 1024} KiB")


main()

"""Take the README's picture: `python docs/make_picture.py`. Needs tmux and Chromium.

Plays the demo in a terminal of its own and takes the screen when enough has happened to look at.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path

from playwright.sync_api import sync_playwright
from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

PICTURE = Path(__file__).with_name("demo.png")
COLUMNS, LINES = 100, 30
SESSION = "cartwake-picture"
# The picture is taken once this stands on the screen: Tuesday's texts are out, the night's are held.
MOMENT = "Tue 12:"
PATIENCE_S = 90


def tmux(*words: str) -> str:
    """Run tmux and return what it prints."""
    return subprocess.run(["tmux", *words], check=True, capture_output=True, text=True).stdout  # noqa: S603, S607


def screen_of_the_demo() -> str:
    """The demo's screen at the moment, with its colours as ANSI codes."""
    command = f"{sys.executable} -m cartwake demo --once"
    tmux("new-session", "-d", "-s", SESSION, "-x", str(COLUMNS), "-y", str(LINES), command)
    try:
        for _ in range(PATIENCE_S * 4):
            screen = tmux("capture-pane", "-p", "-e", "-t", SESSION)
            if MOMENT in Text.from_ansi(screen).plain:
                return screen
            time.sleep(0.25)
    finally:
        tmux("send-keys", "-t", SESSION, "C-c")
        time.sleep(5)
    raise SystemExit("the demo did not come to the moment of the picture")


def draw(screen: str) -> None:
    """Draw a screen as a window, and photograph it in a browser."""
    console = Console(record=True, width=COLUMNS, file=sys.stderr, force_terminal=True)
    console.print(Text.from_ansi(screen), end="")
    svg = console.export_svg(title="make demo", theme=MONOKAI)
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 1240, "height": 800})
        page.set_content(f"<body style='margin:0;width:1100px;background:transparent'>{svg}</body>")
        page.locator("svg").screenshot(path=str(PICTURE), omit_background=True)
        browser.close()


if __name__ == "__main__":
    draw(screen_of_the_demo())

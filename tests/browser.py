"""Pages opened in a headless Chromium: what they measure there, and their pictures.

A page lies in a frame of the width that is asked for, since a window is never narrower than 500 pixels. The script that
measures is the outer document's: the page under test allows none.
"""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
DARK = "--blink-settings=preferredColorScheme=0"
MEASURE = Path(__file__).with_name("browser_measure.js")


def program() -> str | None:
    """Return the browser, None where there is none."""
    names = ("chromium", "chromium-browser", "google-chrome")
    return next((path for name in names if (path := shutil.which(name))), None)


def _run(folder: Path, page: str, width: int, height: int, *options: str) -> str:
    frame = (
        f'<iframe id="page" style="border:0" width="{width}" height="{height}" srcdoc="{html.escape(page)}"></iframe>'
    )
    script = f"<script>{MEASURE.read_text(encoding='utf-8')}</script>"
    outer = folder / "outer.html"
    outer.write_text(f'<!doctype html><meta charset="utf-8"><body style="margin:0">{frame}{script}', encoding="utf-8")
    command = [program() or "chromium", *FLAGS, f"--user-data-dir={folder / 'profile'}", *options, outer.as_uri()]
    run = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=120, check=True)
    return run.stdout


def measured(folder: Path, page: str, width: int, dark: bool = False) -> dict[str, Any]:
    """Return what browser_measure.js finds in a page.

    Args:
        folder: for its files.
        page: HTML.
        width: of the window that the page believes to have.
        dark: whether its reader prefers dark colours.
    """
    dom = _run(folder, page, width, 900, f"--window-size={max(width, 500)},900", *([DARK] * dark), "--dump-dom")
    found = re.search(r'<pre id="found">(.*?)</pre>', dom, re.DOTALL)
    assert found, dom[-2000:]
    return json.loads(html.unescape(found[1]))


def picture(folder: Path, page: str, width: int, height: int, file: Path, dark: bool = False) -> None:
    """Write a page's picture."""
    size = f"--window-size={max(width, 500)},{height}"
    _run(folder, page, width, height, size, *([DARK] * dark), f"--screenshot={file}")

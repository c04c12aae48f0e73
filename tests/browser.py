"""Chromium without a window: a page is opened from disk, a script asks it, the answer comes back as JSON."""

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
OPTIONS = ("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--virtual-time-budget=2000")
LIGHT, DARK = "--blink-settings=preferredColorScheme=1", "--blink-settings=preferredColorScheme=0"


def find_browser() -> str:
    """Fails, never skips: make test installs one where it may."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    return found or pytest.fail("no Chromium on this machine: install one (make browser, as root), then test again")


def ask(page: Path, script: str, width: int = 1280, scheme: str = LIGHT) -> Any:
    """What a script's expression gives, run after the page's own."""
    asked = page.with_name(f".{page.name}.asked.html")
    answer = f"JSON.stringify((() => {{ {script} }})())"
    found = '<pre id="answer"></pre><script>document.getElementById("answer").textContent = '
    asked.write_text(page.read_text("utf-8").replace("</body>", f"{found}{answer}</script></body>"), "utf-8")
    command = [find_browser(), *OPTIONS, scheme, f"--window-size={width},900", "--dump-dom", asked.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    asked.unlink()
    dumped = re.search(r'<pre id="answer">(.+?)</pre>', done.stdout, re.DOTALL)
    assert dumped, f"the page gave no answer: {done.stderr[-2000:]}"
    return json.loads(html.unescape(dumped[1]))

"""Chromium without a window: a page is opened from disk, a script asks it, the answer comes back as JSON."""

import html
import json
import re
import subprocess
from pathlib import Path
from typing import Any

from tests.support.system_parts import BROWSER, find_chromium, require

OPTIONS = ("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--virtual-time-budget=2000")
LIGHT, DARK = "--blink-settings=preferredColorScheme=1", "--blink-settings=preferredColorScheme=0"


def ask(page: Path, script: str, width: int = 1280, scheme: str = LIGHT) -> Any:
    """What a script's expression gives, run after the page's own."""
    require(BROWSER)
    asked = page.with_name(f".{page.name}.asked.html")
    answer = f"JSON.stringify((() => {{ {script} }})())"
    found = '<pre id="answer"></pre><script>document.getElementById("answer").textContent = '
    asked.write_text(page.read_text("utf-8").replace("</body>", f"{found}{answer}</script></body>"), "utf-8")
    command = [find_chromium(), *OPTIONS, scheme, f"--window-size={width},900", "--dump-dom", asked.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    asked.unlink()
    dumped = re.search(r'<pre id="answer">(.+?)</pre>', done.stdout, re.DOTALL)
    assert dumped, f"the page gave no answer: {done.stderr[-2000:]}"
    return json.loads(html.unescape(dumped[1]))

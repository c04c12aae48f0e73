"""Write the table of tests/reliability into docs/reliability.md: `python -m tools.fill_reliability` in the checkout."""

import re
from pathlib import Path

from tests.reliability.counts import table

PAGE = Path(__file__).parents[1] / "docs/reliability.md"
TABLE = re.compile(r"\| kind \|.*\n(?:\|.*\n)+")

if __name__ == "__main__":
    PAGE.write_text(TABLE.sub(lambda _: f"{table()}\n", PAGE.read_text("utf-8")), "utf-8")

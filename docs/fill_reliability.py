"""Write the counts of tests/reliability into reliability.md anew. From the checkout."""

import re
import sys
from pathlib import Path

PAGE = Path(__file__).with_name("reliability.md")
TESTS = Path(__file__).parents[1] / "tests"
TABLE = re.compile(r"\| kind \|.*\n(?:\|.*\n)+")

if __name__ == "__main__":
    sys.path[:0] = [str(TESTS), str(TESTS / "reliability")]
    from counts import table

    PAGE.write_text(TABLE.sub(lambda _: f"{table()}\n", PAGE.read_text("utf-8")), "utf-8")

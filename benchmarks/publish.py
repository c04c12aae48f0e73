"""Show a run in the documentation: `make bench-docs`, after `make bench`.

The run's JSON becomes docs/benchmarks.json, its picture docs/images/benchmark.svg, and every table that stands in a
page between `<!-- benchmark NAME -->` and `<!-- end -->` is written anew.
"""

import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.machine import in_one_line
from benchmarks.plot import DRAWN, draw
from benchmarks.table import from_json, markdown

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "docs/benchmarks.json"
PICTURE = ROOT / "docs/images/benchmark.svg"
PAGES = [ROOT / "docs/performance.md", ROOT / "docs/training.md", ROOT / "README.md"]
TABLE = re.compile(r"<!-- benchmark (\w+) -->\n.*?<!-- end -->", re.DOTALL)


def publish(file: Path) -> None:
    """Take a run's file into the documentation; benchmarks that are not in it stay as they are."""
    measured = json.loads(file.read_text("utf-8"))
    results = json.loads(RESULTS.read_text("utf-8")) | measured
    RESULTS.write_text(json.dumps(results, indent=1) + "\n", "utf-8")
    if DRAWN & set(measured):
        draw(results, PICTURE)
    for page in PAGES:
        page.write_text(filled(page.read_text("utf-8"), results), "utf-8")


def filled(page: str, results: Mapping[str, Any]) -> str:
    """The page with the run's tables."""

    def fill(found: re.Match[str]) -> str:
        name = found[1]
        return f"<!-- benchmark {name} -->\n{shown(results[name])}<!-- end -->" if name in results else found[0]

    return TABLE.sub(fill, page)


def shown(record: Mapping[str, Any]) -> str:
    """A record as the pages show it: the table, and what it was measured on."""
    scale = "" if record["scale"] == "full" else f", {record['scale']} sizes"
    return f"{markdown(from_json(record['rows']))}\n\n*{in_one_line(record['machine'])}{scale}*\n"


if __name__ == "__main__":
    publish(Path(sys.argv[1] if len(sys.argv) > 1 else "build/bench/full/benchmarks.json"))

"""Run the benchmarks: `make bench`, or `python -m benchmarks [--quick] [NAME ...]`.

Every benchmark prints its table as it ends and goes into the JSON file at once, so that a run that is broken off keeps
what it has; a later run of some of them replaces those alone. Each keeps the header of its own run.
"""

import json
from argparse import ArgumentParser
from collections.abc import Callable
from pathlib import Path
from time import monotonic
from typing import NamedTuple

from benchmarks import (
    cohort,
    early_exit,
    hybrid_loss,
    members,
    napari_window,
    nested,
    parts,
    restoring,
    savings,
    training,
    upsampling,
    windows,
)
from benchmarks.machine import in_one_line, machine
from benchmarks.measure import FAILURES, reason
from benchmarks.plot import draw
from benchmarks.table import Row, markdown, to_json

RESULTS, PICTURE = "benchmarks.json", "benchmark.svg"


class Benchmark(NamedTuple):
    """One table: `rows` measures it at a scale, "full", "quick" (all of them in minutes) or "toy" (for tests)."""

    title: str
    rows: Callable[[str], list[Row]]


BENCHMARKS: dict[str, Benchmark] = {
    "unet3plus": Benchmark("UNet 3+ against the paper's form, and the price of both in U-Nets", upsampling.rows),
    "parts": Benchmark("Where the time of UNet 3+ goes", parts.rows),
    "savings": Benchmark("What each saving of UNet 3+ is worth by itself", savings.rows),
    "members": Benchmark("The family and MONAI's networks at equal widths, times in U-Nets", members.rows),
    "nested": Benchmark("UNet++ against BasicUNetPlusPlus", nested.rows),
    "windows": Benchmark("Sliding windows, times and memory against MONAI's", windows.rows),
    "restoring": Benchmark("Labels back on the source grid: the memory of a whole run", restoring.rows),
    "cohort": Benchmark("A cohort, start to end, against MONAI's bundle run", cohort.rows),
    "training": Benchmark("Training, samples a second against a plain MONAI recipe", training.rows),
    "napari": Benchmark("The widget in a napari window: opening, answering, cancelling", napari_window.rows),
    "early_exit": Benchmark("The early exit of a guided network against its full run", early_exit.rows),
    "hybrid_loss": Benchmark("The hybrid loss against Dice and cross entropy", hybrid_loss.rows),
}


def main() -> None:
    parser = ArgumentParser(prog="make bench", description="Measure costs as ratios against peers.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"benchmarks to run (all): {', '.join(BENCHMARKS)}")
    parser.add_argument("--quick", action="store_true", help="smaller networks and fewer rounds: under 5 minutes")
    parser.add_argument("-o", "--output", type=Path, help="folder of the results (build/bench/full, build/bench/quick)")
    arguments = parser.parse_args()
    unknown = sorted(set(arguments.names) - set(BENCHMARKS))
    if unknown:
        parser.error(f"unknown: {', '.join(unknown)}; there are {', '.join(BENCHMARKS)}")
    scale = "quick" if arguments.quick else "full"
    folder = arguments.output or Path("build/bench", scale)
    folder.mkdir(parents=True, exist_ok=True)
    print(in_one_line(machine()))
    for name in arguments.names or BENCHMARKS:
        run(name, scale, folder / RESULTS)
    draw(json.loads((folder / RESULTS).read_text("utf-8")), folder / PICTURE)
    print(f"\nwritten to {folder}: {', '.join(sorted(file.name for file in folder.iterdir()))}")


def run(name: str, scale: str, file: Path) -> None:
    """Run one benchmark, print its table and put it into the file."""
    benchmark = BENCHMARKS[name]
    print(f"\n== {benchmark.title} ({name}, {scale}) ==", flush=True)
    start = monotonic()
    try:
        rows = benchmark.rows(scale)
    except FAILURES as error:  # of what every row needs
        rows = [{"failed": reason(error)}]
    minutes = round((monotonic() - start) / 60, 1)
    print(f"{markdown(rows)}\n{minutes} minutes", flush=True)
    header = {"title": benchmark.title, "scale": scale, "machine": machine(), "minutes": minutes}
    record = {**header, "rows": to_json(rows)}
    before = json.loads(file.read_text("utf-8")) if file.exists() else {}
    file.write_text(json.dumps(before | {name: record}, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()

"""What `make bench-gpu` does: the tests marked gpu, then every table; each row goes into the JSON file at once.

At full size, what was measured goes into docs/performance.md at the end.
"""

import json
import os
import signal
import subprocess
import sys
from argparse import ArgumentParser
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from time import monotonic
from typing import NamedTuple

from benchmarks.gpu import networks, prediction, processes, training
from benchmarks.gpu.device import gpu_machine, problem
from benchmarks.gpu.networks import Part
from benchmarks.machine import in_one_line
from benchmarks.measure import FAILURES, reason
from benchmarks.table import Row, markdown, to_json

ROOT = Path(__file__).parents[2]
RESULTS = "gpu.json"
TEST_MINUTES = 10.0  # after which they hang


class Benchmark(NamedTuple):
    """One table: `parts` has its parts at a scale ("full", "quick", or "toy" for tests), for a device."""

    title: str
    parts: Callable[[str, str], Iterator[Part]]


BENCHMARKS: dict[str, Benchmark] = {  # in the order of a run
    "gpu_networks": Benchmark("The family, evaluation, coarse-grid form on and off", networks.parts),
    "gpu_training": Benchmark("Training, float32 and mixed precision", training.parts),
    "gpu_processes": Benchmark("Training in two processes, a device each (NCCL)", processes.parts),
    "gpu_prediction": Benchmark("Predict with phantom_ct, scores summed on GPU and CPU", prediction.parts),
}


def main() -> int:
    """Run it; the exit status is 0, 1 where a test or a row failed or there is no device, and 2 for wrong usage."""
    parser = ArgumentParser(prog="make bench-gpu", description="Test and measure on a CUDA device.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"tables to measure (all): {', '.join(BENCHMARKS)}")
    parser.add_argument("--quick", action="store_true", help="smaller inputs and fewer rounds: a trial")
    parser.add_argument("-o", "--output", type=Path, help="directory of the results (build/bench/gpu)")
    arguments = parser.parse_args()
    if unknown := sorted(set(arguments.names) - set(BENCHMARKS)):
        parser.error(f"unknown: {', '.join(unknown)}; there are {', '.join(BENCHMARKS)}")
    # torch.cuda.is_available() then asks NVML and does not initialise CUDA, so that processes may still be forked.
    os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"
    if missing := problem():
        print(f"make bench-gpu: {missing}", file=sys.stderr)
        return 1
    scale = "quick" if arguments.quick else "full"
    folder = arguments.output or Path("build/bench/gpu", *(["quick"] if arguments.quick else []))
    folder.mkdir(parents=True, exist_ok=True)
    print(in_one_line(gpu_machine()), flush=True)
    passed = tests_pass()
    names = arguments.names or list(BENCHMARKS)
    whole = [run(name, scale, "cuda", folder / RESULTS) for name in names]
    print(f"\nwritten to {folder / RESULTS}; most memory of the device: {most_memory(folder / RESULTS, names):,} MiB")
    if scale == "full":
        show(folder / RESULTS)
    return 0 if passed and all(whole) else 1


def tests_pass() -> bool:
    """Run the files that have tests marked gpu, and these alone."""
    sources = sorted((ROOT / "tests").glob("test_*.py"))
    files = [str(file) for file in sources if "pytest.mark.gpu" in file.read_text("utf-8")]
    print("\n== Tests marked gpu ==", flush=True)
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", *files]
    with subprocess.Popen(command, cwd=ROOT, start_new_session=True) as tests:
        try:
            return tests.wait(60 * TEST_MINUTES) == 0
        except subprocess.TimeoutExpired:
            os.killpg(tests.pid, signal.SIGKILL)  # its loaders and NCCL processes, too: they hold the device
            print(f"the tests did not end in {TEST_MINUTES:g} minutes and were stopped")
            return False


def run(name: str, scale: str, device: str, file: Path) -> bool:
    """Run one benchmark, write its rows as they come, print the table, and tell whether every row has its figures."""
    benchmark, start = BENCHMARKS[name], monotonic()
    print(f"\n== {benchmark.title} ({name}, {scale}) ==", flush=True)
    rows: list[Row] = []
    try:
        for part in benchmark.parts(scale, device):
            for row in part():
                rows.append(row)
                write(file, name, _record(benchmark, scale, rows, start))
    except FAILURES as error:  # of what every row needs
        rows.append({"failed": reason(error)})
    record = _record(benchmark, scale, rows, start)
    write(file, name, record)
    print(f"{markdown(rows)}\n{record['minutes']} minutes", flush=True)
    return not any("failed" in row for row in rows)


def _record(benchmark: Benchmark, scale: str, rows: list[Row], start: float) -> dict[str, object]:
    minutes = round((monotonic() - start) / 60, 1)
    header = {"title": benchmark.title, "scale": scale, "machine": gpu_machine(), "minutes": minutes}
    return {**header, "rows": to_json(rows)}


def write(file: Path, name: str, record: Mapping[str, object]) -> None:
    """Put a record into the file; the others stay."""
    before = json.loads(file.read_text("utf-8")) if file.exists() else {}
    whole = file.with_suffix(".part")
    whole.write_text(json.dumps(before | {name: record}, indent=1) + "\n", "utf-8")
    whole.replace(file)


def most_memory(file: Path, names: Sequence[str]) -> int:
    """The highest peak of the device in these tables, in MiB."""
    records = json.loads(file.read_text("utf-8"))
    rows = [row for name in names for row in records[name]["rows"]]
    return max((row.get(title) or 0 for row in rows for title in ("peak MiB", "device MiB")), default=0)


def show(file: Path) -> None:
    """Write the tables into the documentation."""
    from benchmarks.publish import publish  # matplotlib, which nothing before needs

    publish(file)
    print("docs/performance.md has the tables")

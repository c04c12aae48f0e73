"""Run the whole suite three times at once, each time in another random order, so that each run is under load.

    python .ci/test_random.py [PYTEST_ARGUMENT ...]

Each run writes its output to build/random/SEED.log; the exit status is 1 if one of them failed.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

SEEDS = (1, 2, 3)
ROOT = Path(__file__).parents[1]
LOGS = ROOT / "build/random"
KEEP_SEEDS = "--randomly-dont-reset-seed"  # pytest-randomly shuffles only; tests seed themselves


def start(seed: int, basetemp: str) -> "subprocess.Popen[bytes]":
    """Start the suite with two workers, in the order of a seed."""
    command = [sys.executable, "-m", "pytest", "-n", "2", "-p", "randomly", f"--randomly-seed={seed}", KEEP_SEEDS]
    with (LOGS / f"{seed}.log").open("w") as log:
        return subprocess.Popen(
            [*command, f"--basetemp={basetemp}", "-p", "no:cacheprovider", *sys.argv[1:]],
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            cwd=ROOT,
            stdout=log,
            stderr=subprocess.STDOUT,
        )


def main() -> int:
    """Run them, print the last line of each, and return the exit status."""
    LOGS.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        runs = {seed: start(seed, f"{folder}/{seed}") for seed in SEEDS}
        failed = {seed: run.wait() for seed, run in runs.items()}
    for seed in SEEDS:
        lines = (LOGS / f"{seed}.log").read_text().splitlines() or ["no output"]
        print(f"seed {seed}: {lines[-1]}")
    return int(any(failed.values()))


if __name__ == "__main__":
    sys.exit(main())

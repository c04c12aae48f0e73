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
LOGS = Path("build/random")
ORDER_ALONE = "--randomly-dont-reset-seed"  # tests seed their own random numbers


def start(seed: int, basetemp: str) -> "subprocess.Popen[bytes]":
    """Start the suite with two workers, in the order of a seed."""
    command = [sys.executable, "-m", "pytest", "-n", "2", "-p", "randomly", f"--randomly-seed={seed}", ORDER_ALONE]
    with (LOGS / f"{seed}.log").open("w") as log:
        return subprocess.Popen(
            [*command, f"--basetemp={basetemp}", "-p", "no:cacheprovider", *sys.argv[1:]],
            env=os.environ | {"OMP_NUM_THREADS": "1"},
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
        print(f"seed {seed}: {(LOGS / f'{seed}.log').read_text().splitlines()[-1]}")
    return int(any(failed.values()))


if __name__ == "__main__":
    sys.exit(main())

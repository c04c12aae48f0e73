"""The fast tests with the lowest versions that pyproject.toml allows, and with the newest that the package index has.

    python .ci/test_versions.py [lowest] [newest]

Each lives in an environment of its own in the checkout, `.venv-lowest` and `.venv-newest`, which is brought up to date
when it is there. The lowest versions are those that pyproject.toml asks for, of the package and of its extra `test`;
what these ask for themselves is the newest that fits. Exit status: 0 if all tests pass in each.
"""

import os
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).parents[1]
NEWEST = ("--upgrade", "--upgrade-strategy=eager")
FAST = ("-m", "not slow and not exhaustive", "-n", "2", "-q", "-p", "no:cacheprovider")


def requirements() -> list[str]:
    """What the package and its tests ask for, as pyproject.toml writes it; our own name stands for its extras."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extras = project["optional-dependencies"]
    found, todo = list[str](), [*project["dependencies"], *extras["test"]]
    for requirement in todo:
        name, _, rest = requirement.partition("[")
        if name == project["name"]:
            todo += [item for extra in rest.rstrip("]").split(",") for item in extras[extra]]
        else:
            found.append(requirement)
    return found


def split(requirement: str) -> tuple[str, str]:
    """Name and lowest version of `name>=version,...`."""
    name, sign, rest = requirement.partition(">=")
    if not sign:
        raise ValueError(f"{requirement}: pyproject.toml gives no lowest version; write {name}>=VERSION")
    return name, rest.partition(",")[0]


def pins(which: str) -> list[str]:
    """What pip is told: the floors exactly, or to take the newest of everything."""
    if which == "newest":
        return list(NEWEST)
    return ["==".join(split(requirement)) for requirement in requirements()]


def interpreter(which: str) -> Path:
    """The interpreter of an environment, which is made where it is not there."""
    folder = ROOT / f".venv-{which}"
    if not (folder / "bin/pip").is_file():
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
    return folder / "bin/python"


def install(python: Path, *arguments: str) -> None:
    """Install what pip's arguments ask for; constraints.txt is not used."""
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *arguments], check=True)


VERSIONS = "import sys\nfrom importlib.metadata import version\nfor name in sys.argv[1:]: print(version(name))"


def versions(python: Path, names: Iterable[str]) -> list[str]:
    """What is installed of each package."""
    return subprocess.check_output([python, "-c", VERSIONS, *names], text=True).split()


def tested(python: Path) -> str:
    """The last line that pytest prints, which begins with the failures if there are any."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [python, "-m", "pytest", *FAST]
    done = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, check=False)
    print(done.stdout, flush=True)
    last = done.stdout.strip().splitlines()[-1].strip("= ")
    return last if done.returncode == 0 else f"FAILED: {last}"


def main(asked: list[str]) -> int:
    """Test each, then print what was tested and how it ended, side by side."""
    names, columns = [split(requirement)[0] for requirement in requirements()], {}
    for which in asked or ["lowest", "newest"]:
        print(f"== The {which} versions, in .venv-{which} (about 6 GB where torch brings CUDA) ==", flush=True)
        python = interpreter(which)
        install(python, *pins(which), "-e", f"{ROOT}[test]")
        columns[which] = [*versions(python, names), tested(python)]
    for name, *row in zip(
        ["package", *names, "fast tests"], *([which, *column] for which, column in columns.items()), strict=True
    ):
        print(f"{name:28}", *(f"{cell:16}" for cell in row))
    return int(any(results[-1].startswith("FAILED") for results in columns.values()))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

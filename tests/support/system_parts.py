"""System packages that the tests need, and their installation.

`python tests/support/system_parts.py [--required] [PART ...]` installs what is missing, where root runs it on a system
with apt-get. Elsewhere it names the packages; that is an error with `--required` and where the environment has CI=true.
"""

import argparse
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from shutil import which
from typing import NamedTuple

CHROMIUM = (
    "chromium-headless-shell",
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
    "chrome",
)
QT_DISPLAY = (
    *("xvfb", "xauth", "libgl1-mesa-dri", "libegl1", "libxcb-cursor0", "libxkbcommon-x11-0", "libxcb-icccm4"),
    *("libxcb-keysyms1", "libxcb-shape0", "libxcb-image0", "libxcb-render-util0", "libxcb-xinerama0"),
    *("libdbus-1-3", "libfontconfig1", "libglib2.0-0"),
)


class Part(NamedTuple):
    """A part of the system.

    Attributes:
        name: as messages name it.
        tests: which tests need it.
        is_there: whether this machine has it.
        packages: lists of Debian packages, each of which brings it; the first that can be installed is taken.
        megabytes: that an installation takes, about.
    """

    name: str
    tests: str
    is_there: Callable[[], bool]
    packages: Sequence[Sequence[str]]
    megabytes: int

    @property
    def advice(self) -> str:
        """One sentence: what is missing, and what to install."""
        ways = " or ".join(" ".join(names) for names in self.packages)
        return f"{self.name} is missing; {self.tests} need it: install the system packages {ways}"


def find_chromium() -> str | None:
    """The first Chromium on the PATH."""
    return next(filter(None, map(which, CHROMIUM)), None)


def can_open_windows() -> bool:
    """Whether Qt finds a display, or Xvfb to make one, and the libraries that its window plugin links to."""
    if sys.platform != "linux":
        return True
    has_display = bool(os.environ.get("DISPLAY") or which("Xvfb"))
    return has_display and can_import_qt() and not _missing_libraries("Qt6/plugins/platforms/libqxcb.so")


@cache
def can_import_qt() -> bool:
    """Whether the libraries are there that Qt's Python modules link to."""
    return sys.platform != "linux" or not _missing_libraries("QtWidgets.abi3.so")


def _missing_libraries(file: str) -> list[str]:
    """What the linker does not find for a file of PyQt6."""
    qt = find_spec("PyQt6")
    if qt is None or not qt.submodule_search_locations or not which("ldd"):
        return []
    command = ["ldd", Path(qt.submodule_search_locations[0]) / file]
    linked = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    return [line.split()[0] for line in linked.splitlines() if line.endswith("not found")]


BROWSER = Part(
    "Chromium",
    "tests of the report pages",
    lambda: find_chromium() is not None,
    (("chromium-headless-shell",), ("chromium",)),
    100,
)
DISPLAY = Part(
    "a display (Xvfb, or a library that Qt's windows need)",
    "tests of the napari plugin",
    can_open_windows,
    (QT_DISPLAY,),
    150,
)
PARTS = {"browser": BROWSER, "display": DISPLAY}


def require(part: Part) -> None:
    """Skip the test where the part is missing; fail it with CI=true."""
    import pytest

    if not part.is_there():
        (pytest.fail if must_be_there() else pytest.skip)(part.advice)


def must_be_there() -> bool:
    """Whether a missing part is an error: in continuous integration, where CI=true."""
    return os.environ.get("CI", "").lower() == "true"


def install(part: Part) -> bool:
    """Install a part with apt-get, and return whether it is there then."""
    print(f"== Installing {part.name} (about {part.megabytes} MB, once) ==", flush=True)
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    subprocess.run(["apt-get", "update", "-qq"], env=environment, check=False)
    for names in part.packages:
        command = ["apt-get", "install", "-qq", "-y", "--no-install-recommends", *names]
        if not subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, check=False).returncode:
            break
    can_import_qt.cache_clear()
    return part.is_there()


def main() -> int:
    """Bring what is missing, or say what it would take; return the exit status."""
    parser = argparse.ArgumentParser(description="Install what tests need of the system, or name the packages.")
    parser.add_argument("parts", nargs="*", default=list(PARTS), metavar="PART", help="browser or display")
    parser.add_argument("--required", action="store_true", help="a missing part is an error, as with CI=true")
    options = parser.parse_args()
    may_install = hasattr(os, "geteuid") and os.geteuid() == 0 and which("apt-get")
    missing = [part for part in map(PARTS.__getitem__, options.parts) if not part.is_there()]
    missing = [part for part in missing if not (may_install and install(part))]
    is_error = options.required or must_be_there()
    for part in missing:
        print(part.advice + ("" if is_error else "; until then these tests are skipped"), file=sys.stderr, flush=True)
    return int(bool(missing) and is_error)


if __name__ == "__main__":
    sys.exit(main())

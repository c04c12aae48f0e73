"""The tests of bundles, command line and napari windows on the wheels that `pip install '.[napari]'` brings a user.

    python .ci/test_default_torch.py

constraints.txt is not used. On Linux with x86-64, the package index's torch is built for CUDA and brings triton. Its
LLVM and the LLVM of Mesa's software OpenGL cannot be loaded together: importing triton in napari's process ends it with
a segmentation fault. The CPU build of torch that the other environments may have does not show this. Exit status: 0 if
all tests pass; 1 if one fails; 2 if there is no triton although there should be, so that the tests would show nothing.
"""

import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from test_versions import NEWEST, ROOT, install, interpreter, requirements, split, versions

NAME = "default-torch"
# In separate processes: torch's exporters and optimizers import triton, which ends a process that draws windows.
WITHOUT_WINDOWS = ("bundles/test_*.py", "cli/test_cli.py", "napari_plugin/test_command.py", "test_import_cost.py")
WITH_WINDOWS = ("napari_plugin/test_*_panel.py", "napari_plugin/test_widget.py", "napari_plugin/test_process.py")
RUNNERS = ("pytest", "pytest-xdist", "pytest-qt", "pytest-xvfb", "jsonschema")
SHOWN = ("torch", "monai", "numpy", "napari", "PyQt6")


def has_triton(python: Path) -> bool:
    """Whether that interpreter would find triton; it is not imported."""
    code = "import importlib.util, sys; sys.exit(importlib.util.find_spec('triton') is None)"
    return subprocess.run([python, "-c", code], check=False).returncode == 0


def test(python: Path, patterns: Sequence[str]) -> int:
    """Run the test files that match the patterns, and return pytest's exit status.

    Raises:
        FileNotFoundError: a pattern matches no file.
    """
    found = {pattern: sorted((ROOT / "tests").glob(pattern)) for pattern in patterns}
    if absent := [pattern for pattern, files in found.items() if not files]:
        raise FileNotFoundError(f"tests/ has no {', '.join(absent)}; correct the patterns in {Path(__file__).name}")
    files = [file for matching in found.values() for file in matching]
    command = [python, "-m", "pytest", "-n", "2", "-m", "not exhaustive", "-p", "no:cacheprovider", *files]
    return subprocess.run(command, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, check=False).returncode


def main() -> int:
    """Install as a user does, then what the tests need, and test."""
    print(f"== What pip install '.[napari]' brings, in .venv-{NAME} (about 7 GB with CUDA) ==", flush=True)
    python = interpreter(NAME)
    install(python, *NEWEST, "-e", f"{ROOT}[napari]")
    expected = sys.platform == "linux" and platform.machine() == "x86_64"
    if expected and not has_triton(python):
        print(
            "torch was installed without triton, so these tests would not show what its default wheel does: pip found "
            "another build of torch first; remove the option or file of pip's configuration that names it",
            file=sys.stderr,
        )
        return 2
    runners = [requirement for requirement in requirements() if split(requirement)[0] in RUNNERS]
    install(python, "-e", f"{ROOT}[napari,export]", *runners)
    names = [*SHOWN, *["triton"] * expected]
    print(*(f"{name} {version}" for name, version in zip(names, versions(python, names), strict=True)), sep=", ")
    return max(test(python, patterns) for patterns in (WITHOUT_WINDOWS, WITH_WINDOWS))


if __name__ == "__main__":
    sys.exit(main())

"""What the suite counts, a small file system, and the digests by which it is seen that nothing was lost."""

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cohorts import Survived


@pytest.fixture
def survived(record_property: Callable[[str, object], None]) -> Survived:
    """Told at the end of a test how many cases of a kind came through it."""
    return lambda kind, cases: record_property("survived", (kind, cases))


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 16 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", folder], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"no small file system: mounting one takes root and CAP_SYS_ADMIN ({mounted.stderr.strip()})")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)

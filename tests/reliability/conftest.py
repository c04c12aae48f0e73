"""What the suite counts, a small file system, and the digests by which it is seen that nothing was lost."""

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cohorts import Survived


@pytest.fixture(scope="session")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four cases of one window each, in place of the larger ones: it is not the labels that are looked at here."""
    from monai_unetfamily.volumes.phantom import write_phantoms

    folder = tmp_path_factory.mktemp("data") / "phantoms"
    write_phantoms(folder, 4, shape=(22, 18, 16), spacing=(13.0, 13.0, 12.0))
    return folder


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

"""What more than one test file needs."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The shared test data; never copied into the repository."""
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("UNETFAMILY_DATA", default))
    if not folder.is_dir():
        pytest.skip(f"test data absent: looked for {folder}; set UNETFAMILY_DATA to its folder")
    return folder

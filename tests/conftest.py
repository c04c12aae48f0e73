"""Where the shared test data lies."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of shared test data; tests that need it are skipped where it is absent."""
    folder = Path(os.environ.get("UNETFAMILY_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"test data absent: looked for {folder}; UNETFAMILY_DATA names another folder")
    return folder

"""What the suite counts, and small phantoms."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.reliability.cohorts import Survived


@pytest.fixture(scope="session")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four cases of one window each, in place of the larger ones: it is not the labels that are looked at here."""
    from monai_unetfamily.data.phantom import write_phantoms

    folder = tmp_path_factory.mktemp("data") / "phantoms"
    write_phantoms(folder, 4, shape=(22, 18, 16), spacing=(13.0, 13.0, 12.0))
    return folder


@pytest.fixture
def survived(record_property: Callable[[str, object], None]) -> Survived:
    """Told at the end of a test how many cases of a kind came through it."""
    return lambda kind, cases: record_property("survived", (kind, cases))

"""docs/reliability.md quotes the suite's own counts (`tools/fill_reliability.py`)."""

from pathlib import Path

import pytest

from tests.reliability.counts import table

pytestmark = pytest.mark.slow

PAGE = Path(__file__).parents[2] / "docs" / "reliability.md"


def test_the_pages_counts_are_the_tables() -> None:
    assert table() in PAGE.read_text("utf-8")

"""Which cases of a table `make test` runs; `make test-all` runs the whole table."""

from collections.abc import Iterable
from typing import Any

import pytest

Parameters = list[Any]  # of pytest.param, whose type pytest does not publish


def sampled(values: Iterable[Any], *kept: Any) -> Parameters:
    """Return the values as parameters of a test, all but `kept` marked exhaustive.

    A tuple is one set of several parameters, as for `pytest.mark.parametrize`. Every kept value has to be in the
    table, so that renaming a case cannot leave `make test` without one.
    """
    values = list(values)
    missing = [value for value in kept if value not in values]
    if not kept:
        raise ValueError("no value is kept: name at least one of the table, which make test then runs")
    if missing:
        raise ValueError(f"kept values {missing} are not in the table {values}: name values of the table")
    return [
        pytest.param(
            *(value if isinstance(value, tuple) else (value,)),
            marks=() if value in kept else pytest.mark.exhaustive,
        )
        for value in values
    ]

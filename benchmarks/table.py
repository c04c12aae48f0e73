"""Rows of a benchmark as a table for people and as JSON for programs."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from benchmarks.measure import Spread

Cell = str | int | float | Spread | None
Row = Mapping[str, Cell]  # column title -> cell; a row that lacks a column leaves it empty


def markdown(rows: Sequence[Row]) -> str:
    """A pipe table, text to the left and figures to the right.

    >>> print(markdown([{"network": "a", "time": Spread(2.0, 1.9, 2.25)}, {"network": "b", "time": None}]))
    | network | time             |
    |---------|-----------------:|
    | a       | 2.00 (1.90-2.25) |
    | b       |                - |
    """
    titles = list(dict.fromkeys(title for row in rows for title in row))
    cells = [titles, *([text(row[title]) if title in row else "" for title in titles] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    right = [any(not isinstance(row.get(title, ""), str) for row in rows) for title in titles]
    rule = ["-" * (w + 1) + (":" if r else "-") for w, r in zip(widths, right, strict=True)]
    aligned = [
        [c.rjust(w) if r and i else c.ljust(w) for c, w, r in zip(line, widths, right, strict=True)]
        for i, line in enumerate(cells)
    ]
    lines = [f"| {' | '.join(line)} |" for line in aligned]
    return "\n".join([lines[0], f"|{'|'.join(rule)}|", *lines[1:]])


def text(cell: Cell) -> str:
    if cell is None:
        return "-"
    if isinstance(cell, Spread):
        return f"{cell.median:.2f} ({cell.low:.2f}-{cell.high:.2f})"
    if isinstance(cell, float):
        return f"{cell:.2f}"
    return f"{cell:,}" if isinstance(cell, int) else cell


def to_json(rows: Sequence[Row]) -> list[dict[str, Any]]:
    return [{title: asdict(c) if isinstance(c, Spread) else c for title, c in row.items()} for row in rows]


def from_json(rows: Sequence[Mapping[str, Any]]) -> list[Row]:
    return [{title: Spread(**c) if isinstance(c, dict) else c for title, c in row.items()} for row in rows]

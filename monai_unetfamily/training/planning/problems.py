"""Findings of a data set's check, and the one table that shows them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple


class Problem(NamedTuple):
    """One finding: an error is in the way of training, a warning is worth knowing."""

    severity: Literal["error", "warning"]
    case: str  # "" of the whole set
    file: Path
    what: str


def format_problems(problems: Sequence[Problem]) -> str:
    """All findings as one table in plain text that is Markdown too, errors first.

    >>> print(format_problems([Problem("warning", "b", Path("labelsTr/b.nii.gz"), "is empty"),
    ...     Problem("error", "a", Path("imagesTr/a.nii.gz"), "3 of 60 voxels are NaN or infinite")]))
    | severity | case | file              | finding                            |
    |----------|------|-------------------|------------------------------------|
    | error    | a    | imagesTr/a.nii.gz | 3 of 60 voxels are NaN or infinite |
    | warning  | b    | labelsTr/b.nii.gz | is empty                           |
    1 error, 1 warning
    """
    ordered = sorted(problems, key=lambda problem: problem.severity)
    rows = [("severity", "case", "file", "finding"), *map(_cells, ordered)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [f"| {' | '.join(map(str.ljust, row, widths))} |" for row in rows]
    rule = f"|{'|'.join('-' * (width + 2) for width in widths)}|"
    counts = (_counted(problems, severity) for severity in ("error", "warning"))
    return "\n".join([lines[0], rule, *lines[1:], ", ".join(counts)])


def _cells(problem: Problem) -> tuple[str, str, str, str]:
    return problem.severity, problem.case, "/".join(problem.file.parts[-2:]), problem.what


def _counted(problems: Sequence[Problem], severity: str) -> str:
    number = sum(problem.severity == severity for problem in problems)
    return f"{number} {severity}{'s' * (number != 1)}"

"""What a reader of a cohort should look at first: organs that are cut, missing or of an unlikely size."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import log
from pathlib import Path
from statistics import median, quantiles
from typing import Literal, NamedTuple

from monai_unetfamily.inference.measures import Measure

_UNLIKELY = 3.5  # robust z, as Iglewicz and Hoaglin, How to Detect and Handle Outliers (1993), advise
_ENOUGH = 8  # cases, before a size is called unlikely
_MOST = 0.5  # of the cases have a class: then one without it is worth a look
_NORMAL = 0.6745  # the median absolute deviation of a normal distribution, in standard deviations

Kind = Literal["cut", "absent", "outlier"]


@dataclass(frozen=True)
class CaseSummary:
    """What is known of one case when its cohort is reported."""

    name: str
    measures: Sequence[Measure] = ()  # one a class, the same classes in every case that is done
    preview: Path | None = None  # its PNG
    notes: tuple[str, ...] = ()
    error: str = ""  # why it failed; empty where it did not
    seconds: float | None = None  # of work
    boxed: bool = False  # whether only a box of it was segmented


class Finding(NamedTuple):
    """Something to look at in one case."""

    case: str
    label: int
    kind: Kind
    text: str


class Spread(NamedTuple):
    """The sizes of one class over all cases that are done; ml, or pixels in pictures."""

    label: int
    name: str
    unit: str
    cases: int
    whole: dict[str, float]  # case -> size, where the class lies wholly in the field of view
    cut: dict[str, float]  # case -> size of what is in view
    absent: tuple[str, ...]  # cases without it; cases of which only a box was segmented are left out
    quartiles: tuple[float, float, float] | None  # of the whole ones; None below two
    scores: dict[str, float]  # case -> robust z of the whole ones; none below eight cases
    boxed: frozenset[str] = frozenset()  # cases of which only a box was segmented


def spreads(cases: Sequence[CaseSummary]) -> list[Spread]:
    """The sizes of each class, in the order of the classes.

    An organ that the field of view cuts has no size to compare: it counts neither for quartiles nor for scores.
    """
    rows: dict[int, dict[str, Measure]] = {}
    for case in cases:
        for row in case.measures:
            rows.setdefault(row.label, {})[case.name] = row
    boxed = frozenset(case.name for case in cases if case.boxed)
    return [_spread(label, found, boxed) for label, found in rows.items()]


def find(spread: Spread) -> list[Finding]:
    """What stands out in one class: cut by the field of view, absent where most cases have it, an unlikely size.

    >>> sizes = {f"case {number}": 100.0 + number for number in range(9)} | {"case 9": 10.0}
    >>> [finding] = find(Spread(1, "liver", "ml", 10, sizes, {}, (), None, robust_scores(sizes)))
    >>> finding.case, finding.kind, finding.text
    ('case 9', 'outlier', 'liver: 10.0 ml, robust z -65.2')
    """
    texts: list[tuple[str, Kind, str]] = [
        (case, "cut", f"cut by the {'box' if case in spread.boxed else 'field of view'}") for case in spread.cut
    ]
    for case, score in spread.scores.items():
        if abs(score) > _UNLIKELY:
            texts.append((case, "outlier", f"{format_size(spread.whole[case])} {spread.unit}, robust z {score:+.1f}"))
    present = spread.cases - len(spread.absent)
    if present > _MOST * spread.cases:
        texts += [(case, "absent", f"absent, {present} of {spread.cases} cases have it") for case in spread.absent]
    return [Finding(case, spread.label, kind, f"{spread.name}: {text}") for case, kind, text in texts]


def robust_scores(sizes: dict[str, float]) -> dict[str, float]:
    """The robust z of each size's logarithm: 0.6745 (x - median) / median absolute deviation.

    None below eight sizes, and none where more than half are equal, so that nothing can be called unlikely.

    >>> robust_scores({str(number): 10.0**number for number in range(9)})["8"]
    1.349
    """
    logs = {case: log(size) for case, size in sizes.items()}
    if len(logs) < _ENOUGH:
        return {}
    middle = median(logs.values())
    spread = median(abs(value - middle) for value in logs.values())
    return {case: _NORMAL * (value - middle) / spread for case, value in logs.items()} if spread else {}


def format_size(size: float) -> str:
    """Three digits, and no more than two after the point.

    >>> [format_size(size) for size in (0.123, 1.5, 33.333, 1500.4)]
    ['0.12', '1.50', '33.3', '1500']
    """
    return f"{size:.{2 if size < 10 else 1 if size < 100 else 0}f}"


def size_of(row: Measure) -> float:
    """Return ml, or pixels in a picture."""
    return float(row.voxels) if row.volume_ml is None else row.volume_ml


def _spread(label: int, rows: dict[str, Measure], boxed: frozenset[str]) -> Spread:
    present = {case: row for case, row in rows.items() if row.voxels}
    cut = {case: size_of(row) for case, row in present.items() if row.touches_border}
    whole = {case: size_of(row) for case, row in present.items() if not row.touches_border}
    known = {case: row for case, row in rows.items() if row.voxels or case not in boxed}
    absent = tuple(case for case in known if case not in present)
    first = next(iter(rows.values()))
    unit = "px" if first.volume_ml is None else "ml"
    low, middle, high = quantiles(whole.values(), n=4, method="inclusive") if len(whole) > 1 else (0.0,) * 3
    quartiles = (low, middle, high) if len(whole) > 1 else None
    return Spread(label, first.name, unit, len(known), whole, cut, absent, quartiles, robust_scores(whole), boxed)

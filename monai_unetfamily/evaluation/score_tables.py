"""Scores summed up, printed and written."""

import csv
from collections.abc import Sequence
from io import StringIO
from math import inf, isnan, nan
from pathlib import Path
from statistics import fmean, stdev
from typing import NamedTuple

from monai_unetfamily.evaluation.metrics import Score
from monai_unetfamily.io import atomic_file


class Summary(NamedTuple):
    """One class over all cases, or the mean over classes."""

    label: str
    cases: int  # with the class in the prediction, the reference or both
    one_sided: int  # missed or invented: the class is in only one of the two
    dice: float
    dice_sd: float  # sample standard deviation over cases; nan for one case
    hd95: float  # over finite values: read it beside `one_sided`
    surface_dice: float
    absolute_volume_error_ml: float
    unit: str = "mm"  # of hd95


def summarize(scores: Sequence[Score]) -> list[Summary]:
    """Mean over cases for each class, in order of appearance, then one row "mean" over the classes.

    Cases that have the class on neither side do not count. In the row "mean" each measure is the mean over
    classes of the class's own (nan left out), and the two counts are sums.

    Raises:
        ValueError: there is no score.

    >>> hit = Score("a", "liver", 0.9, 2.0, 0.8, 1500.0, 1490.0, 10.0)
    >>> missed = Score("b", "liver", 0.0, inf, 0.0, 0.0, 8.0, -8.0)
    >>> print(format_table(summarize([hit, missed])[:1]))
    | class | cases | one-sided |          Dice | HD95 mm | surface Dice | volume error ml |
    |-------|------:|----------:|--------------:|--------:|-------------:|----------------:|
    | liver |     2 |         1 | 0.450 ± 0.636 |    2.00 |        0.400 |            9.00 |
    """
    if not scores:
        raise ValueError("got no scores; at least one is needed: evaluate a case first")
    names = dict.fromkeys(score.label for score in scores)
    rows = [_summarize_class(name, [score for score in scores if score.label == name]) for name in names]
    return [*rows, _summarize_classes(rows)]


def format_table(summaries: Sequence[Summary]) -> str:
    """Summaries as aligned plain text that is a Markdown table too; "-" is a measure that no case has.

    `one-sided` counts the missed and the invented; `HD95` is the mean without them; `volume error ml` is the mean of
    absolute errors, which pictures do not have. `summarize` shows an example.
    """
    header = ["class", "cases", "one-sided", "Dice", f"HD95 {summaries[0].unit}", "surface Dice", "volume error ml"]
    table = [header, *(_cells(summary) for summary in summaries)]
    return align(table)


def align(table: Sequence[Sequence[str]]) -> str:
    """Rows of cells, the header first, as aligned plain text that is a Markdown table too: numbers to the right.

    >>> print(align([["network", "GMAC", "norm"], ["unet", "12.07", "batch"]]))
    | network |  GMAC | norm  |
    |---------|------:|-------|
    | unet    | 12.07 | batch |
    """
    columns = list(zip(*table, strict=True))
    widths = [max(map(len, column)) for column in columns]
    moves = [str.ljust if number == 0 or _is_text(column) else str.rjust for number, column in enumerate(columns)]
    lines = [f"| {' | '.join(m(c, w) for m, c, w in zip(moves, row, widths, strict=True))} |" for row in table]
    rule = ["-" * (width + 1) + ("-" if move is str.ljust else ":") for move, width in zip(moves, widths, strict=True)]
    return "\n".join([lines[0], f"|{'|'.join(rule)}|", *lines[1:]])


def _is_text(column: Sequence[str]) -> bool:
    """Whether a cell under the header begins with anything but a number.

    >>> _is_text(["HD95", "inf [2.10, inf]", "-0.5", "-", "< 0.1"]), _is_text(["reason", "/data: no such folder"])
    (False, True)
    """
    return any(cell[:1] not in "0123456789+-.<" and cell[:3] not in ("nan", "inf") for cell in column[1:])


def write_csv(scores: Sequence[Score], path: Path) -> None:
    """Write one row per case and class under a header of `Score`'s fields; the file appears whole or not.

    Undefined scores are the literal `nan`, unbounded distances the literal `inf`: pandas and R read both.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "scores.csv"
    ...     write_csv([Score("a", "spleen", 0.0, inf, 0.0, 0.0, 120.5, -120.5)], path)
    ...     path.read_text().splitlines()[1]
    'a,spleen,0.0,inf,0.0,0.0,120.5,-120.5,mm'
    """
    text = StringIO()
    csv.writer(text, lineterminator="\n").writerows([Score._fields, *scores])
    with atomic_file(path) as stream:
        stream.write(text.getvalue().encode())


def read_csv(path: Path) -> list[Score]:
    """What `write_csv` wrote.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "scores.csv"
    ...     write_csv([Score("a", "spleen", 0.0, inf, 0.0, 0.0, 120.5, -120.5)], path)
    ...     read_csv(path)[0].hd95
    inf

    Raises:
        FileNotFoundError: no such file.
        ValueError: another table.
    """
    with path.open(encoding="utf-8", newline="") as lines:
        header, *rows = [*csv.reader(lines)] or [[]]
    if header != list(Score._fields):
        raise ValueError(f"{path}: has columns {header}; {list(Score._fields)} are needed: give a table of scores.")
    return [Score._make([case, label, *map(float, numbers), unit]) for case, label, *numbers, unit in rows]


def _summarize_class(name: str, scores: Sequence[Score]) -> Summary:
    counted = [score for score in scores if not isnan(score.dice)]
    dice = [score.dice for score in counted]
    return Summary(
        label=name,
        cases=len(counted),
        one_sided=sum(score.hd95 == inf for score in counted),
        dice=_mean(dice),
        dice_sd=stdev(dice) if len(dice) > 1 else nan,
        hd95=_mean([score.hd95 for score in counted if score.hd95 < inf]),
        surface_dice=_mean([score.surface_dice for score in counted]),
        absolute_volume_error_ml=_mean([abs(score.volume_error_ml) for score in counted]),
        unit=scores[0].unit,
    )


def _summarize_classes(rows: Sequence[Summary]) -> Summary:
    return Summary(
        label="mean",
        cases=sum(row.cases for row in rows),
        one_sided=sum(row.one_sided for row in rows),
        dice=_mean([row.dice for row in rows]),
        dice_sd=_mean([row.dice_sd for row in rows]),
        hd95=_mean([row.hd95 for row in rows]),
        surface_dice=_mean([row.surface_dice for row in rows]),
        absolute_volume_error_ml=_mean([row.absolute_volume_error_ml for row in rows]),
        unit=rows[0].unit,
    )


def _mean(values: Sequence[float]) -> float:
    """The mean of what is not nan; nan when nothing is left."""
    defined = [value for value in values if not isnan(value)]
    return fmean(defined) if defined else nan


def _cells(summary: Summary) -> list[str]:
    dice = f"{summary.dice:.3f}" + ("" if isnan(summary.dice_sd) else f" ± {summary.dice_sd:.3f}")
    cells = [
        summary.label,
        str(summary.cases),
        str(summary.one_sided),
        dice,
        f"{summary.hd95:.2f}",
        f"{summary.surface_dice:.3f}",
        f"{summary.absolute_volume_error_ml:.2f}",
    ]
    return [cells[0], *("-" if cell == "nan" else cell for cell in cells[1:])]

"""What a comparison leaves to read: tables as CSV, JSON and Markdown, pictures, and one page with all of it."""

import csv
from collections.abc import Iterator, Sequence
from io import StringIO
from pathlib import Path
from typing import Any

from monai_unetfamily.evaluation import Score
from monai_unetfamily.evaluation.tables import align
from monai_unetfamily.training.comparing.advice import advise
from monai_unetfamily.training.comparing.analysis import Analysis, Measures, analyse
from monai_unetfamily.training.comparing.page import compose
from monai_unetfamily.training.comparing.plots import WIDE, plots
from monai_unetfamily.training.comparing.results import Comparison, write_json
from monai_unetfamily.training.comparing.rows import (
    DEFINITIONS,
    class_rows,
    cost_rows,
    difference_rows,
    failure_rows,
    score_rows,
)
from monai_unetfamily.volumes.files import atomic_file, make_folder


def write_report(comparison: Comparison, folder: Path) -> str:
    """Write `results.csv`, `.json`, `.md`, `scores.csv`, `compare.html` and `plots/*.svg`, and return the advice.

    Args:
        comparison: what was trained and scored.
        folder: for all of them, each of which appears whole or not at all.

    Raises:
        ValueError: nothing was scored.
        OSError: the folder cannot be written.
    """
    analysis = analyse(comparison)
    advice, pictures = advise(analysis), list(plots(analysis))
    make_folder(folder / "plots")
    _write(_csv(_results(analysis)), folder / "results.csv")
    _write(_csv(_scores(comparison)), folder / "scores.csv")
    _write(format_report(analysis, [f"plots/{plot.name}.svg" for plot in pictures]), folder / "results.md")
    write_json(_content(analysis, advice), folder / "results.json")
    for plot in pictures:
        _write(plot.svg(WIDE), folder / "plots" / f"{plot.name}.svg")
    _write(compose(analysis, advice, pictures), folder / "compare.html")
    return advice


def format_report(analysis: Analysis, pictures: Sequence[str] = ()) -> str:
    """A comparison as Markdown, with links to pictures."""
    found = analysis.comparison
    facts = [["what was equal", "value"], *([name, words] for name, words in found.facts.items())]
    sections = [f"# Comparison on {found.dataset}", advise(analysis), align(facts), align(score_rows(analysis))]
    sections += ["## Cost", align(cost_rows(analysis))]
    sections += [f"![{Path(file).stem.replace('_', ' ')}]({file})" for file in pictures]
    if len(found.classes) > 1:
        sections += [part for label in found.classes for part in (f"## {label}", align(class_rows(analysis, label)))]
    if found.differences:
        sections += ["## Where networks differ from the common recipe", align(difference_rows(found))]
    if found.failures:
        sections += ["## Failed", align(failure_rows(found))]
    return "\n\n".join([*sections, "## How to read it", "\n".join(f"- {text}" for text in DEFINITIONS)]) + "\n"


def _results(analysis: Analysis) -> Iterator[Sequence[Any]]:
    """Long form: a row an entrant and class, "mean" for all of them."""
    ends = ("", "_low", "_high")
    measures = [f"{measure}{end}" for measure in Measures._fields for end in ends]
    tested = ["against", *(f"difference{end}" for end in ends), "p", "p_holm"]
    costs = ["parameters", "macs", "seconds", "peak_bytes", "trainings", "samples_per_second"]
    yield ["network", "kind", "label", *measures, *tested, *(f"false_ml{end}" for end in ends), *costs]
    for row in analysis.rows:
        entrant = row.entrant
        test = analysis.against_baseline.get(row.name) or analysis.against_own.get(row.name)
        difference = [test.other, *test.difference, test.p, test.corrected] if test else [""] * 6
        cost = [*entrant.cost, len(entrant.repeats), entrant.samples_per_second]
        for label, found in {"mean": row.overall, **row.by_class}.items():
            numbers = [number for interval in found for number in interval]
            rest = [*difference, *row.false.volume_ml, *cost] if label == "mean" else [""] * (9 + len(cost))
            yield [row.name, entrant.kind, label, *numbers, *rest]


def _scores(comparison: Comparison) -> Iterator[Sequence[Any]]:
    """Every score of every entrant; those of several trainings follow each other in the order of `repeats`."""
    yield ["network", *Score._fields]
    for entrant in comparison.entrants:
        yield from ([entrant.name, *score] for score in entrant.scores)


def _content(analysis: Analysis, advice: str) -> dict[str, Any]:
    found = analysis.comparison
    return {
        "advice": advice,
        "best": analysis.best,
        "baseline": found.baseline,
        "facts": found.facts,
        "differences": found.differences,
        "failures": found.failures,
        "entrants": [
            {
                "name": row.name,
                "kind": row.entrant.kind,
                "repeats": row.entrant.repeats,
                "minutes": row.entrant.minutes,
                "epochs": row.entrant.epochs,
                "samples_per_second": row.entrant.samples_per_second,
                "cost": row.entrant.cost._asdict(),
                "mean": _named(row.overall),
                "classes": {label: _named(measures) for label, measures in row.by_class.items()},
                "one_sided": row.one_sided,
                "false_positives": row.false._asdict() | {"volume_ml": row.false.volume_ml._asdict()},
                "on_front": row.on_front,
                "curves": row.entrant.curves,
            }
            for row in analysis.rows
        ],
        "tests": {
            name: {other: test._asdict() | {"difference": test.difference._asdict()} for other, test in tests.items()}
            for name, tests in (
                ("against_baseline", analysis.against_baseline),
                ("against_best", analysis.against_best),
                ("against_own", analysis.against_own),
            )
        },
    }


def _named(measures: Measures) -> dict[str, dict[str, float]]:
    return {name: interval._asdict() for name, interval in measures._asdict().items()}


def _csv(rows: Iterator[Sequence[Any]]) -> str:
    text = StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def _write(text: str, file: Path) -> None:
    with atomic_file(file) as stream:
        stream.write(text.encode())

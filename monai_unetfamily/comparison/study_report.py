"""Write the report of a comparison: advice, tables, one HTML page."""

import csv
import re
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from importlib.resources import files
from io import StringIO
from math import isnan
from pathlib import Path
from typing import Any

from monai_unetfamily.comparison.statistics import LEVEL, MARGIN, Analysis, Interval, Measures, Row, analyse, least_p
from monai_unetfamily.comparison.study_plots import NARROW, VARIABLES, WIDE, Plot, plots
from monai_unetfamily.comparison.study_results import Comparison, Point, write_json
from monai_unetfamily.evaluation import Score, align
from monai_unetfamily.io import atomic_file, make_directory

# One plain paragraph of advice that follows from a comparison's numbers, with its uncertainty.


_STILL_RISES = 0.01  # of validation Dice, in the last quarter of a training
_UNEVEN = 0.2  # of the budget: a larger difference is reported
_NAMED = 5  # entrants that a sentence names; the table has all


def advise(analysis: Analysis) -> str:
    """The paragraph: how far the comparison goes, who leads and whether that can be told, what is cheaper.

    There is a winner only where every other network can be told apart from it: by Wilcoxon's test after Holm's
    correction, and by an interval of the paired difference that leaves out 0. (Each network's own interval holds how
    much cases differ, which is the same for all; so two own intervals may overlap although one network is better in
    nearly every case.) "Not worse" means that the interval of the difference lies above a loss of 0.01 Dice.
    """
    return " ".join(_sentences(analysis))


def _sentences(analysis: Analysis) -> Iterator[str]:
    yield _extent(analysis)
    yield from _leader(analysis)
    yield from _against_baseline(analysis)
    yield from _cheaper(analysis)
    yield from _levels(analysis)
    yield from _guide(analysis)
    yield from _limits(analysis)


def _extent(analysis: Analysis) -> str:
    found, trained = analysis.comparison, analysis.comparison.trained
    repeats = max(len(network_result.repeats) for network_result in trained)
    each = "one training each" if repeats == 1 else f"up to {repeats} trainings each, of different {found.repeats}"
    classes = f"{len(found.classes)} class{'es' * (len(found.classes) > 1)}"
    return (
        f"{_count(len(trained), 'network')} had {found.minutes:g} minutes of training ({each}) and "
        f"{_count(analysis.cases, 'validation case')} of {found.dataset}, with {classes}."
    )


def _leader(analysis: Analysis) -> Iterator[str]:
    tests = analysis.against_best
    if not tests:
        return
    level = [name for name, test in tests.items() if not test.tells]
    leads = f"{analysis.best} has the highest mean Dice, {shown(_row(analysis, analysis.best).overall.dice)}"
    if not level:
        apart = f"{leads}, and every other network can be told apart from it"
        uneven = "but no network wins, as their times were not equal"
        yield f"{apart}, {uneven}." if _uneven(analysis) else f"{apart}: it is the winner under this budget."
        return
    yield (
        f"{leads}, but no network wins: {_listed(level)} cannot be told apart from it (Holm-corrected p of {LEVEL:g} or"
        " more, or an interval of the difference that holds 0)."
    )
    if least_p(analysis.cases) * len(tests) >= LEVEL:
        yield f"With {_count(analysis.cases, 'case')} no test can tell so many networks apart, whatever they score."


def _against_baseline(analysis: Analysis) -> Iterator[str]:
    base = analysis.comparison.baseline
    told = {name: test.difference for name, test in analysis.against_baseline.items() if test.tells}
    better = {name: difference for name, difference in told.items() if difference.value > 0}
    worse = {name: difference for name, difference in told.items() if difference.value < 0}
    words = {"better": better, "worse": worse}
    parts = [f"{_listed(_with(found))} {_are(found)} {word}" for word, found in words.items() if found]
    if parts:
        yield f"Against {base}, {' and '.join(parts)}."
    elif analysis.against_baseline:
        yield f"Against {base}, no network can be called better or worse."


def _cheaper(analysis: Analysis) -> Iterator[str]:
    """What is faster than the best and not worse."""
    best, margin = _row(analysis, analysis.best), f"{MARGIN:g} Dice"
    seconds = {row.name: row.network_result.cost.seconds for row in analysis.trained}
    if isnan(seconds[analysis.best]) or len(seconds) < 2:
        return
    faster = sorted((name for name in seconds if seconds[name] < seconds[analysis.best]), key=lambda n: seconds[n])
    good = [name for name in faster if analysis.against_best[name].not_worse]
    if good:
        first, *others = good
        listed = _listed([f"{first} ({_cost(_row(analysis, first))})", *others])
        choice = f"take {first} where time counts" if others else "take it where time counts"
        yield f"Faster than {analysis.best} ({_cost(best)}) and not worse by more than {margin}: {listed}; {choice}."
    elif faster:
        unsure = [name for name in faster if not analysis.against_best[name].tells]
        doubt = f"; of {_listed(unsure)} these cases cannot tell" if unsure else ""
        yield f"No faster network is known to be within {margin} of {analysis.best} ({_cost(best)}){doubt}."
    else:
        yield f"None is faster than {analysis.best} ({_cost(best)})."


def _levels(analysis: Analysis) -> Iterator[str]:
    """At which level UNet++ may be cut."""
    cuts = {name: test for name, test in analysis.against_own.items() if name.startswith("unetplusplus L")}
    good = [name for name, test in cuts.items() if test.not_worse]
    if good:
        whole, cut = _row(analysis, "unetplusplus"), _row(analysis, good[0])
        yield (
            f"One training of UNet++ holds smaller networks: {cut.name} ({_cost(cut)}) is not worse by more"
            f" than {MARGIN:g} Dice than the whole ({_cost(whole)}), {signed(cuts[good[0]].difference)}."
        )
    elif cuts:
        yield f"No cut of UNet++ is known to be within {MARGIN:g} Dice of the whole."


def _guide(analysis: Analysis) -> Iterator[str]:
    """What the guide does to volumes found where there is nothing."""
    gated, ungated = analysis.named("unet3plus_cgm"), analysis.named("unet3plus_cgm ungated")
    if gated is None or ungated is None or not gated.false.absent:
        return
    after, before = gated.false.volume_ml, ungated.false.volume_ml
    overlap = before.low <= after.high and after.low <= before.high
    yield (
        f"Where a class is absent UNet 3+ finds {shown(after, 'ml')} of it with its guide and {shown(before, 'ml')}"
        f" without, of the same weights{'; the intervals overlap' if overlap else ''}."
    )


def _limits(analysis: Analysis) -> Iterator[str]:
    found = analysis.comparison
    rising = [row.name for row in analysis.trained if any(map(_still_rises, row.network_result.curves))]
    epochs = [count for network_result in found.trained for count in network_result.epochs]
    if uneven := _uneven(analysis):
        yield f"Trainings took {uneven} minutes, as each ends with a whole epoch: more minutes are fairer."
    if rising:
        yield (
            f"When time was up {_listed(rising)} still gained, and epochs were {min(epochs)} to {max(epochs)}: more"
            " minutes may change the order."
        )
    if all(len(network_result.repeats) < 2 for network_result in found.trained):
        yield "The intervals hold the choice of cases, not the luck of a training: several seeds or folds would."
    if found.failures:
        yield f"Trainings of {_listed(list(dict.fromkeys(name for name, *_ in found.failures)))} failed."


def _uneven(analysis: Analysis) -> str:
    """From how many minutes to how many the trainings took, where that matters; else nothing."""
    spent = [minutes for network_result in analysis.comparison.trained for minutes in network_result.minutes]
    if max(spent) - min(spent) <= _UNEVEN * analysis.comparison.minutes:
        return ""
    return f"{min(spent):.1f} to {max(spent):.1f}"


def _still_rises(curve: Sequence[Point]) -> bool:
    """Whether the last quarter of a training's time brought more than a hundredth of Dice."""
    known = [point for point in curve if not isnan(point.dice)]
    before = [point.dice for point in known if point.minutes <= 0.75 * known[-1].minutes]
    return bool(before) and known[-1].dice - max(before) > _STILL_RISES


def shown(interval: Interval, unit: str = "") -> str:
    """A value with its interval.

    >>> shown(Interval(0.9, 0.89, 0.912)), shown(Interval(12.0, 0.0, 31.25), "ml"), shown(Interval(0.9))
    ('0.900 [0.890, 0.912]', '12.0 [0.0, 31.2] ml', '0.900')
    """
    digits = 1 if unit else 3
    ends = "" if isnan(interval.low) else f" [{interval.low:.{digits}f}, {interval.high:.{digits}f}]"
    return f"{interval.value:.{digits}f}{ends}{unit and ' '}{unit}"


def signed(difference: Interval) -> str:
    """A difference with its interval and signs.

    >>> signed(Interval(0.01, -0.002, 0.022))
    '+0.010 [-0.002, +0.022]'
    """
    ends = "" if isnan(difference.low) else f" [{difference.low:+.3f}, {difference.high:+.3f}]"
    return f"{difference.value:+.3f}{ends}"


def _row(analysis: Analysis, name: str) -> Row:
    return next(row for row in analysis.rows if row.name == name)


def _with(differences: Mapping[str, Interval]) -> list[str]:
    return [f"{name} ({signed(difference)})" for name, difference in differences.items()]


def _cost(row: Row) -> str:
    cost = row.network_result.cost
    return f"{cost.seconds:.3g} s a volume, {cost.parameters / 1e6:.3g} M parameters"


def _are(names: Mapping[str, object]) -> str:
    return "is" if len(names) == 1 else "are"


def _listed(names: Sequence[str]) -> str:
    """Names with commas and a last "and"; of many the first, and the number of the others.

    >>> _listed(["unet", "unet_e"]), _listed(list("abcdefgh"))
    ('unet and unet_e', 'a, b, c, d, e and 3 others')
    """
    others = len(names) - _NAMED
    parts = [*names[:_NAMED], f"{others} others"] if others > 1 else list(names)
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"


# The tables of a comparison as rows of words, the header first: the same in Markdown and on the page.

Rows = list[list[str]]
DEFINITIONS = (
    "The case is the unit: its scores of several trainings are averaged first.",
    "In brackets are 95 % intervals by bootstrap over the cases, from six cases on: of means, bias-corrected and"
    " accelerated (Dice, surface Dice, volumes), or of medians, percentile (HD95). They hold the choice of cases, not"
    " the luck of a training.",
    "The mean of classes is the mean of each class's own. A class found where there is none, or missed where there is"
    " one, counts as Dice 0 and HD95 infinite; a class absent from both counts nowhere.",
    "Differences are paired, of each case's mean over its classes. p is of Wilcoxon's signed-rank test, two-sided,"
    " corrected after Holm for the number of networks tested.",
    "Variants share the weights of the network they name, are compared with it, and are not tested: UNet++ cut at a"
    " level (L1, L2, ...), a guided network without its gate (ungated).",
    "A guide's thresholds are set on the cases watched while training, which are among those scored.",
    "Time is of windows, blending and the way back to the volume's own grid: the median of the volumes timed, each by"
    " all networks in turn. Reading and writing cost the same for all and are left out.",
    "Memory is the most that the prediction of one volume adds to a process. GMAC: billions of multiply-accumulate"
    " operations of one window.",
)


def score_rows(analysis: Analysis) -> Rows:
    """One row an entrant: scores, and the difference to the baseline."""
    unit = next((score.unit for row in analysis.rows for score in row.network_result.scores), "mm")
    header = ["network", "Dice", f"HD95 {unit}", "surface Dice", f"Dice less {analysis.comparison.baseline}'s"]
    header += ["p (Holm)", "missed, invented", "false ml where absent"]
    return [header, *(_score_cells(row, analysis) for row in analysis.rows)]


def cost_rows(analysis: Analysis) -> Rows:
    """One row an entrant: what it costs, and how its training went."""
    header = ["network", "parameters", "GMAC", "peak MiB", "s a volume", "trainings", "minutes", "epochs", "samples/s"]
    return [header, *map(_costs, analysis.rows)]


def class_rows(analysis: Analysis, label: str) -> Rows:
    """One row an entrant: the scores of one class."""
    header = ["network", "Dice", "HD95", "surface Dice"]
    return [header, *([row.name, *_measures(row.by_class[label])] for row in analysis.rows)]


def difference_rows(comparison: Comparison) -> Rows:
    """One row a network that departs from the common recipe."""
    return [["network", "how it differs"], *([name, words] for name, words in comparison.differences.items())]


def failure_rows(comparison: Comparison) -> Rows:
    """One row a training that failed."""
    return [["network", "training", "reason"], *map(list, comparison.failures)]


def _score_cells(row: Row, analysis: Analysis) -> list[str]:
    tests = {**analysis.against_baseline, **analysis.against_own}
    test = tests.get(row.name)
    p = "-" if test is None else _number(test.corrected, ".2g")
    difference = "-" if test is None else signed(test.difference)
    false = shown(row.false.volume_ml, "ml").removesuffix(" ml") if row.false.absent else "-"
    return [row.name, *_measures(row.overall), difference, p, str(row.one_sided), false]


def _costs(row: Row) -> list[str]:
    cost, network_result = row.network_result.cost, row.network_result
    return [
        row.name,
        f"{cost.parameters:,}",
        f"{cost.macs / 1e9:.3g}",
        _number(cost.peak_bytes / 2**20, ".0f"),
        _number(cost.seconds, ".3g"),
        str(len(network_result.repeats)),
        _range(*(f"{minutes:.1f}" for minutes in network_result.minutes)),
        _range(*map(str, network_result.epochs)),
        _number(network_result.samples_per_second, ".3g"),
    ]


def _measures(measures: Measures) -> list[str]:
    return [shown(measures.dice), _distance(measures.hd95), shown(measures.surface_dice)]


def _distance(interval: Interval) -> str:
    """A distance with its interval, which may be infinite.

    >>> _distance(Interval(1.234, 1.0, float("inf"))), _distance(Interval(float("nan")))
    ('1.23 [1.00, inf]', '-')
    """
    ends = "" if isnan(interval.low) else f" [{interval.low:.2f}, {interval.high:.2f}]"
    return "-" if isnan(interval.value) else f"{interval.value:.2f}{ends}"


def _range(least: str, most: str) -> str:
    return least if least == most else f"{least} to {most}"


def _number(value: float, form: str) -> str:
    return "-" if isnan(value) else format(value, form)


# One page for a comparison, `compare.html`: the advice, pictures, tables. It loads nothing and needs no server.
#
# It looks like the page of a cohort, whose style it shares, in light and dark and on narrow screens. Pictures are drawn
# twice, wide and narrow, and take the page's colours. Every name is escaped.

_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
_STYLES = ("monai_unetfamily.reporting", "cohort_report.css"), (__package__, "study_report.css")
_COLOR = re.compile("|".join(VARIABLES))
_NUMBERED = re.compile(r' id="[\w.]+_\d+"')  # nothing refers to them, and every picture has the same


def compose(analysis: Analysis, advice: str, pictures: Sequence[Plot]) -> str:
    """The page as text.

    Args:
        analysis: of the comparison.
        advice: the paragraph.
        pictures: in the order of the page.
    """
    title = f"Comparison on {analysis.comparison.dataset}"
    style = "".join((files(package) / "templates" / name).read_text("utf-8") for package, name in _STYLES)
    return "\n".join(
        [
            '<!doctype html><html lang="en"><head><meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escape(title)}</title><style>{style}</style></head><body><main>",
            *_header(analysis, title, advice),
            *_sections(analysis, pictures),
            "</main></body></html>\n",
        ]
    )


def _header(analysis: Analysis, title: str, advice: str) -> Iterator[str]:
    found = analysis.comparison
    tiles = [
        ("networks", len(found.trained), ""),
        ("cases", analysis.cases, ""),
        ("failed", len(found.failures), "bad"),
    ]
    shown = "".join(f'<li class="{kind if count else ""}"><b>{count}</b> {name}</li>' for name, count, kind in tiles)
    facts = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(words)}</dd></div>" for name, words in found.facts.items()
    )
    yield f'<header><h1>{escape(title)}</h1><p id="advice">{escape(advice)}</p>'
    yield f'<ul class="tiles">{shown}</ul><dl>{facts}</dl></header>'


def _sections(analysis: Analysis, pictures: Sequence[Plot]) -> Iterator[str]:
    found = analysis.comparison
    if found.failures:
        yield _section("failures", "Failed", _table(failure_rows(found)))
    yield _section("scores", "Scores", _table(score_rows(analysis)))
    yield _section("cost", "Cost", _table(cost_rows(analysis)))
    for plot in pictures:
        yield _section(plot.name, plot.title, _picture(plot))
    if len(found.classes) > 1:
        tables = (f"<h3>{escape(label)}</h3>{_table(class_rows(analysis, label))}" for label in found.classes)
        yield _section("classes", "Each class", "".join(tables))
    if found.differences:
        yield _section("differences", "Where networks differ from the common recipe", _table(difference_rows(found)))
    listed = "".join(f"<li>{escape(text)}</li>" for text in DEFINITIONS)
    yield _section("definitions", "How to read it", f"<ul>{listed}</ul>")


def _section(name: str, title: str, content: str) -> str:
    return f'<section id="{name}"><h2>{escape(title)}</h2>{content}</section>'


def _picture(plot: Plot) -> str:
    drawn = "".join(
        f'<div class="{name}" role="img" aria-label="{escape(plot.about)}">{_in_page_colors(plot.svg(width))}</div>'
        for name, width in (("wide", WIDE), ("narrow", NARROW))
    )
    return f'<p class="muted">{escape(plot.about)}</p><div class="plot">{drawn}</div>'


def _in_page_colors(svg: str) -> str:
    inner = _NUMBERED.sub("", svg[svg.index("<svg") :])
    return _COLOR.sub(lambda match: f"var(--{VARIABLES[match[0]]})", inner)


def _table(rows: Rows) -> str:
    head = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in rows[0])
    body = "".join(
        f'<tr><th scope="row">{escape(name)}</th>{"".join(map(_cell, cells))}</tr>' for name, *cells in rows[1:]
    )
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    return f'<div class="scroll" tabindex="0" role="region" aria-label="Table">{table}</div>'


def _cell(text: str) -> str:
    value, bracket, ends = escape(text).partition(" [")  # an interval goes below its value
    return f"<td>{value}{bracket and f' <small>[{ends}</small>'}</td>"


# What a comparison leaves to read: tables as CSV, JSON and Markdown, pictures, and one page with all of it.


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
    make_directory(folder / "plots")
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
        network_result = row.network_result
        test = analysis.against_baseline.get(row.name) or analysis.against_own.get(row.name)
        difference = [test.other, *test.difference, test.p, test.corrected] if test else [""] * 6
        cost = [*network_result.cost, len(network_result.repeats), network_result.samples_per_second]
        for label, found in {"mean": row.overall, **row.by_class}.items():
            numbers = [number for interval in found for number in interval]
            rest = [*difference, *row.false.volume_ml, *cost] if label == "mean" else [""] * (9 + len(cost))
            yield [row.name, network_result.kind, label, *numbers, *rest]


def _scores(comparison: Comparison) -> Iterator[Sequence[Any]]:
    """Every score of every entrant; those of several trainings follow each other in the order of `repeats`."""
    yield ["network", *Score._fields]
    for network_result in comparison.network_results:
        yield from ([network_result.name, *score] for score in network_result.scores)


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
                "kind": row.network_result.kind,
                "repeats": row.network_result.repeats,
                "minutes": row.network_result.minutes,
                "epochs": row.network_result.epochs,
                "samples_per_second": row.network_result.samples_per_second,
                "cost": row.network_result.cost._asdict(),
                "mean": _named(row.overall),
                "classes": {label: _named(measures) for label, measures in row.by_class.items()},
                "one_sided": row.one_sided,
                "false_positives": row.false._asdict() | {"volume_ml": row.false.volume_ml._asdict()},
                "on_front": row.on_front,
                "curves": row.network_result.curves,
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

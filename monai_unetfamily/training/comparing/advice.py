"""One plain paragraph of advice that follows from a comparison's numbers, with its uncertainty."""

from collections.abc import Iterator, Mapping, Sequence
from math import isnan

from monai_unetfamily.training.comparing.analysis import LEVEL, MARGIN, Analysis, Row
from monai_unetfamily.training.comparing.results import Point
from monai_unetfamily.training.comparing.statistics import Interval, least_p

_STILL_RISES = 0.01  # of validation Dice, in the last quarter of a training
_UNEVEN = 0.2  # of the budget: a difference that is told
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
    repeats = max(len(entrant.repeats) for entrant in trained)
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
    seconds = {row.name: row.entrant.cost.seconds for row in analysis.trained}
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
    rising = [row.name for row in analysis.trained if any(map(_still_rises, row.entrant.curves))]
    epochs = [count for entrant in found.trained for count in entrant.epochs]
    if uneven := _uneven(analysis):
        yield f"Trainings took {uneven} minutes, as each ends with a whole epoch: more minutes are fairer."
    if rising:
        yield (
            f"When time was up {_listed(rising)} still gained, and epochs were {min(epochs)} to {max(epochs)}: more"
            " minutes may change the order."
        )
    if all(len(entrant.repeats) < 2 for entrant in found.trained):
        yield "The intervals hold the choice of cases, not the luck of a training: several seeds or folds would."
    if found.failures:
        yield f"Trainings of {_listed(list(dict.fromkeys(name for name, *_ in found.failures)))} failed."


def _uneven(analysis: Analysis) -> str:
    """From how many minutes to how many the trainings took, where that matters; else nothing."""
    spent = [minutes for entrant in analysis.comparison.trained for minutes in entrant.minutes]
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
    cost = row.entrant.cost
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

"""Several bundles, or the folds of one, as an ensemble: the mean of their networks' probabilities."""

from collections.abc import Callable, Sequence
from typing import Any

from monai_unetfamily.bundles import Bundle, resolved_part
from monai_unetfamily.inferers import WindowInferer

_FROM_THE_FIRST = ("inferer", "postprocessing")


def check_ensemble(bundles: Sequence[Bundle], log: Callable[[str], None]) -> None:
    """Refuse bundles whose probabilities cannot be averaged; they may differ in networks and weights.

    All see the same preprocessed image, so their preprocessing must be the same, once references are replaced, and so
    must their classes. Windows, their blending, mirroring and the postprocessing are the first bundle's for all; where
    another's differ, `log` says so. Every network runs on every window (a guided one still exits early by itself).

    Raises:
        ValueError: says which bundles differ, and in what.

    >>> check_ensemble([], log=print)
    Traceback (most recent call last):
    ValueError: got no bundle; give one, or several for an ensemble.
    """
    if not bundles:
        raise ValueError("got no bundle; give one, or several for an ensemble.")
    first, *others = bundles
    if others and not isinstance(first.inferer, WindowInferer):
        raise ValueError(
            f"{first.root}: its inferer is {type(first.inferer).__name__}; an ensemble needs WindowInferer, which "
            "averages probabilities: name it in the bundle's config."
        )
    for other in others:
        _require_same(first, other)
        different = [p for p in _FROM_THE_FIRST if _differing(first, other, p) is not None]
        if different:
            log(f"{other.root}: has another {' and '.join(different)} than {first.root}, whose own holds for all.")


def _require_same(first: Bundle, other: Bundle) -> None:
    if first.names != other.names:
        got = f"{list(other.names.values())}, {first.root} {list(first.names.values())}"
        raise ValueError(f"{other.root}: names classes {got}; an ensemble needs the same, in the same order.")
    if first.device != other.device:
        raise ValueError(
            f"{other.root}: is on {other.device}, {first.root} on {first.device}; open both on one device."
        )
    if (steps := _differing(first, other, "preprocessing")) is not None:
        theirs, ours = steps
        raise ValueError(
            f"{other.root}: its preprocessing has {theirs} where {first.root} has {ours}; an ensemble needs the same: "
            "run the bundles one by one."
        )


def _differing(first: Bundle, other: Bundle, part: str) -> tuple[Any, Any] | None:
    """The first step, or whole part, in which the other's config and the first's differ: theirs, ours."""
    ours, theirs = (_steps(resolved_part(bundle.root, part)) for bundle in (first, other))
    for mine, its in zip(ours, theirs, strict=False):
        if mine != its:
            return its, mine
    if len(ours) != len(theirs):
        return f"{len(theirs)} transforms", f"{len(ours)}"
    return None


def _steps(part: Any) -> list[Any]:
    return part["transforms"] if isinstance(part, dict) and "transforms" in part else [part]

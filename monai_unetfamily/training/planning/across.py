"""Findings that only all cases together show."""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from monai_unetfamily.training.planning.facts import CaseFacts
from monai_unetfamily.training.planning.measuring import Measured
from monai_unetfamily.training.planning.problems import Problem
from monai_unetfamily.volumes.cases import image_files

_FAR = 3  # times the median, or a third of it: spacings and sizes beyond are told
_APART = 100  # times: brightest voxels that no common scale has
_FEWEST = 10  # cases with a class, for its median and spread to mean something
_DEVIATIONS = 5  # robust standard deviations of the logarithm: volumes beyond are warned of
_LEAST_DEVIATION = 0.2  # of the logarithm: a volume within a factor of e of the median is never warned of

Cases = Mapping[str, Mapping[str, Any]]


def files_shared(cases: Cases) -> Iterator[Problem]:
    """One file listed for two cases."""
    users: dict[Path, str] = {}
    for name, case in cases.items():
        for file in (*image_files(case), Path(case["label"])):
            other = users.setdefault(file.resolve(), name)
            if other != name:
                what = f"is listed for {other!r} too; each case needs its own files, correct the list"
                yield Problem("error", name, file, what)


def copies(cases: Cases, measured: Mapping[str, Measured]) -> Iterator[Problem]:
    """The same voxels under two names, which may be in both sections; images of one value apart."""
    first: dict[bytes, str] = {}
    for name, each in measured.items():
        if each.digest and (other := first.setdefault(each.digest, name)) != name:
            what = f"holds the voxels of {other!r}; one may be trained on and the other held out, take one out"
            yield Problem("error", name, image_files(cases[name])[0], what)


def mixtures(facts: Sequence[CaseFacts], cases: Cases) -> Iterator[Problem]:
    """Images of other axes or channels than most."""
    usual = {_kind(case) for case in alike(facts)}
    for case in facts:
        if _kind(case) not in usual:
            axes, channels = next(iter(usual))
            got = f"got {len(case.size)} axes and {len(case.ranges)} channels"
            what = f"{got}; most images have {axes} and {channels}, take it out or export it as they are"
            yield Problem("error", case.name, image_files(cases[case.name])[0], what)


def alike(facts: Sequence[CaseFacts]) -> list[CaseFacts]:
    """Those of the axes and channels that most have."""
    usual = [kind for kind, _ in Counter(map(_kind, facts)).most_common(1)]
    return [case for case in facts if _kind(case) in usual]


def outliers(facts: Sequence[CaseFacts], cases: Cases) -> Iterator[Problem]:
    """Spacings and sizes that are far from the median along an axis."""
    for key, unit in (("spacing", "mm"), ("size", "voxels")):
        values = np.array([getattr(case, key) for case in facts], np.float64)
        middle = np.median(values, axis=0)
        for case, own in zip(facts, values, strict=True):
            if ((own > _FAR * middle) | (_FAR * own < middle)).any():
                got, usual = (" x ".join(f"{value:.4g}" for value in row) for row in (own, middle))
                what = f"got a {key} of {got} {unit}, the median is {usual}: look whether it belongs here"
                yield Problem("warning", case.name, image_files(cases[case.name])[0], what)


def volumes(classes: Mapping[int, str], facts: Sequence[CaseFacts], cases: Cases) -> Iterator[Problem]:
    """Volumes of a class that are far from the median of the cases that have it, on either side.

    The measure is the logarithm, since volumes spread by factors; median and median absolute deviation, since what is
    looked for must not move them. A class that varies much between cases, as tumours do, has a wide range accordingly.
    Small volumes count as well: most are organs that the image cuts, which a person can tell at a glance, and some are
    contours that were never finished. A case without the class is left out, since it may be absent or not annotated.
    """
    for name in (name for label, name in sorted(classes.items()) if label):
        having = [case for case in facts if case.volumes_ml[name] > 0]
        if len(having) < _FEWEST:
            continue
        logs = np.log([case.volumes_ml[name] for case in having])
        middle = float(np.median(logs))
        deviation = max(1.4826 * float(np.median(abs(logs - middle))), _LEAST_DEVIATION)  # as of a normal distribution
        for case, own in zip(having, logs, strict=True):
            if abs(own - middle) > _DEVIATIONS * deviation:
                unit = "ml" if len(case.size) == 3 else "thousand pixels"
                usual = f"the median of the {len(having)} cases with it is {math.exp(middle):.4g} {unit}"
                why = "another structure may have its label" if own > middle else "it may be cut or unfinished"
                what = f"{name!r} has {case.volumes_ml[name]:.4g} {unit}, {usual}: {why}, look at this label map"
                yield Problem("warning", case.name, Path(cases[case.name]["label"]), what)


def never_seen(classes: Mapping[int, str], facts: Sequence[CaseFacts], file: Path) -> Iterator[Problem]:
    """Classes of the table that no case has."""
    for label, name in classes.items():
        if label and not any(case.volumes_ml[name] for case in facts):
            yield Problem("warning", "", file, f"no sound case has label {label}, {name!r}: it cannot be learned")


def scales(facts: Sequence[CaseFacts], folder: Path) -> Iterator[Problem]:
    """Channels whose brightest voxels lie far apart from case to case."""
    for channel in range(len(facts[0].ranges)):
        highest = sorted(case.ranges[channel][1] for case in facts)
        if highest[0] > 0 and highest[-1] > _APART * highest[0]:
            many = sum(value > _APART * highest[0] for value in highest)
            what = (
                f"the brightest voxel of channel {channel} runs from {highest[0]:.7g} to {highest[-1]:.7g} over the"
                f" cases ({many} beyond {_APART} times the least): normalise each image by itself"
            )
            yield Problem("warning", "", folder, what)


def types(facts: Sequence[CaseFacts], folder: Path) -> Iterator[Problem]:
    """Images stored in different types."""
    stored = Counter(case.dtype for case in facts)
    if len(stored) > 1:
        kinds = ", ".join(f"{dtype} ({number})" for dtype, number in sorted(stored.items()))
        yield Problem("warning", "", folder, f"images are stored as {kinds}: their scales may differ")


def _kind(case: CaseFacts) -> tuple[int, int]:
    return len(case.size), len(case.ranges)

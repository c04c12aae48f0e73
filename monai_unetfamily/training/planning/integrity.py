"""A data set checked whole before it is planned for: every finding, and the fingerprint of what is sound."""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import repeat
from pathlib import Path

import numpy as np
from tqdm import tqdm

from monai_unetfamily.training.planning import across
from monai_unetfamily.training.planning.examining import Examined, examine
from monai_unetfamily.training.planning.facts import CaseFacts, Intensity
from monai_unetfamily.training.planning.fingerprint import Fingerprint
from monai_unetfamily.training.planning.measuring import Measured, Table, summarize
from monai_unetfamily.training.planning.problems import Problem
from monai_unetfamily.volumes.cases import ignore_label, read_facts, read_label_names, stated_label_names
from monai_unetfamily.volumes.datasets import Case, CaseFolder, list_dataset, open_dataset
from monai_unetfamily.volumes.masks import BACKGROUND, may_overlap, number_classes
from monai_unetfamily.volumes.splits import SECTIONS, count_folds, section_names, split_file

_WORKERS = 8  # at most: each holds a case
_CODE = ("$", "@", "%")  # what a word begins with that MONAI's configs resolve
_RGB = ("red", "green", "blue")


def check_integrity(dataset_dir: Path | str) -> tuple[list[Problem], Fingerprint | None]:
    """Check a data set, and measure the cases that nothing is wrong with; each file is read once.

    Every finding is returned, none raised. Errors: files that are missing, unreadable, or of no case; two cases of one
    name, of one file, or of the same voxels; a table of labels or a split that cannot be used; shapes, affines and
    channels that do not match; headers whose sform pixdim contradicts; labels that are fractional or outside the table;
    NaN and infinity, counted. Warnings: labels stored as floats, label maps without any class, classes that no case
    has, images of one value, headers that readers take differently, spacings, sizes and volumes of classes far
    from the others', stored types and scales that differ, a background of another name, another number of cases than
    stated.

    Returns:
        The findings, and the fingerprint of the cases without errors; None where there is none, or no class.

    Raises:
        FileNotFoundError: neither `dataset.json` nor paired folders, or no folder of images.
        ValueError: a `dataset.json` that lists no case or cannot be read.

    >>> from tempfile import TemporaryDirectory
    >>> from monai_unetfamily.volumes.phantom import write_phantoms
    >>> with TemporaryDirectory() as folder:
    ...     _ = write_phantoms(Path(folder), n=2, shape=(16, 16, 16), spacing=(20, 16, 12.5))
    ...     problems, fingerprint = check_integrity(folder)
    >>> problems, fingerprint.spacing(), fingerprint.size()
    ([], (20.0, 16.0, 12.5), (16, 16, 16))
    """
    dataset = open_dataset(Path(dataset_dir))
    cases, flaws = list_dataset(dataset)
    problems = [Problem("error", flaw.case, flaw.file, flaw.what) for flaw in flaws]
    problems += [*_of_splits(dataset, list(cases)), *_of_number(dataset, cases), *across.files_shared(cases)]
    table = _read_table(dataset, problems)
    examined = _examine_all(cases, table)
    problems += [problem for each in examined.values() for problem in each.problems]
    measured = {name: each.measured for name, each in examined.items() if each.measured}
    problems += across.copies(cases, measured)
    classes = table.classes or _found_classes(measured.values())
    if dataset.layout == "paired folders":
        problems += _of_classes(classes, dataset.folder / "labels")
    facts = [_named(each, classes) for each in measured.values()]
    problems += across.mixtures(facts, cases)
    facts = across.alike(facts)
    if not (facts and any(classes)):
        return problems, None
    problems += _of_set(dataset, facts, classes, cases)
    return problems, _fingerprint(dataset, table, classes, facts, [measured[case.name] for case in facts])


def _of_set(
    dataset: CaseFolder, facts: Sequence[CaseFacts], classes: Mapping[int, str], cases: Mapping[str, Case]
) -> Iterator[Problem]:
    yield from across.outliers(facts, cases)
    yield from across.volumes(classes, facts, cases)
    yield from across.never_seen(classes, facts, dataset.file)
    yield from across.scales(facts, dataset.folder)
    yield from across.types(facts, dataset.folder)


def _of_splits(dataset: CaseFolder, names: list[str]) -> Iterator[Problem]:
    """What is wrong with a split into sections, in any of the folds."""
    try:
        file = split_file(dataset.folder)
        folds = count_folds(dataset.folder, len(names))
    except ValueError as error:
        yield Problem("error", "", dataset.folder, str(error))
        return
    for fold in range(folds) if names else ():
        try:
            for section in SECTIONS:
                section_names(dataset.folder, names, section, None if folds == 1 else fold)
        except ValueError as error:
            where = file or dataset.folder
            yield Problem("error", "", where, str(error).removeprefix(f"{where}: "))


def _of_number(dataset: CaseFolder, cases: Mapping[str, Case]) -> Iterator[Problem]:
    stated = dataset.listing.get("numTraining", len(cases))
    if stated != len(cases):
        yield Problem("warning", "", dataset.file, f'states "numTraining" {stated}, and {len(cases)} cases are there')


def _read_table(dataset: CaseFolder, problems: list[Problem]) -> Table:
    """The table of labels; without classes where there is none, or none that can be used."""
    named = read_facts(dataset.folder).channels
    problems += _of_words(named, dataset.file)
    channels = len(named)
    try:
        names = read_label_names(dataset.folder)
        problems += _of_background(stated_label_names(dataset).get(0, BACKGROUND), dataset.file)
    except ValueError as error:
        problems.append(Problem("error", "", dataset.file, str(error).removeprefix(f"{dataset.file}: ")))
        return Table({}, None, channels)
    ignore = ignore_label(names)
    classes = {label: name for label, name in names.items() if label != ignore}
    problems += _of_classes(classes, dataset.file)
    return Table(classes, ignore, channels)


def _of_background(name: str, file: Path) -> Iterator[Problem]:
    if name.casefold() != BACKGROUND:
        what = f"names label 0 {name!r}: it is read as the background; if it is a class, give it another id"
        yield Problem("warning", "", file, what)


def _of_classes(classes: Mapping[int, str], file: Path) -> Iterator[Problem]:
    expected = list(range(len(classes))) if 0 in classes else list(range(1, len(classes) + 1))
    if list(classes) != expected:
        what = f"got ids {list(classes)}; {expected} are allowed, without gaps: renumber the labels"
        yield Problem("error", "", file, what)
    elif len(classes) > 1:
        yield from _of_channels(classes, file)
    names = [name.casefold() for name in classes.values()]
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield Problem("error", "", file, f"names {name!r} twice; each class needs its own name, rename one")
    yield from _of_words(classes.values(), file)


def _of_channels(classes: Mapping[int, str], file: Path) -> Iterator[Problem]:
    """Whether a bundle, which names its network's channels, has the same classes."""
    try:
        if number_classes(dict(enumerate(classes.values()))) != classes:
            what = f"names label 1 {classes[1]!r}, and classes without a label 0 may overlap: rename it"
            yield Problem("error", "", file, what)
    except ValueError as error:
        yield Problem("error", "", file, str(error))


def _of_words(names: Iterable[str], file: Path) -> Iterator[Problem]:
    """Names that a bundle's metadata cannot hold."""
    for name in names:
        if name.startswith(_CODE):
            what = f"got the name {name!r}; MONAI's configs resolve what begins with {', '.join(_CODE)}: rename it"
            yield Problem("error", "", file, what)


def _found_classes(measured: Iterable[Measured]) -> dict[int, str]:
    """Classes by number, of a data set that names none."""
    found = sorted({label for each in measured for label in each.volumes})
    return {0: "background"} | {label: str(label) for label in found}


def _examine_all(cases: Mapping[str, Case], table: Table) -> dict[str, Examined]:
    """All cases, by threads: unpacking, sorting and counting leave Python's lock."""
    workers = min(os.cpu_count() or 1, _WORKERS)
    with ThreadPoolExecutor(workers) as pool:
        examined = pool.map(examine, cases, cases.values(), repeat(table))
        bar = tqdm(examined, total=len(cases), unit="case", disable=None, leave=False)
        return dict(zip(cases, bar, strict=True))


def _named(measured: Measured, classes: Mapping[int, str]) -> CaseFacts:
    volumes = {name: measured.volumes.get(label, 0.0) for label, name in classes.items() if label}
    return replace(measured.facts, volumes_ml=volumes)


def _fingerprint(
    dataset: CaseFolder,
    table: Table,
    classes: Mapping[int, str],
    facts: Sequence[CaseFacts],
    measured: Sequence[Measured],
) -> Fingerprint:
    said = read_facts(dataset.folder)
    number = len(facts[0].ranges)
    plain = _RGB if number == len(_RGB) and len(facts[0].size) == 2 else tuple(map(str, range(number)))
    return Fingerprint(
        name=said.name,
        modality=said.modality,
        channels=said.channels or (("image",) if number == 1 else plain),
        labels=dict(classes),
        ignore=table.ignore,
        layout=dataset.layout,
        overlapping=may_overlap(classes),
        cases=tuple(facts),
        pooled=_pooled(measured, number),
    )


def _pooled(measured: Sequence[Measured], channels: int) -> tuple[Intensity, ...]:
    pooled = [np.concatenate([each.samples[channel] for each in measured]) for channel in range(channels)]
    return tuple(summarize(values) for values in pooled) if pooled[0].size else ()

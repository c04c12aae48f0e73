"""Verify a whole data set before a bundle is planned for it."""

import math
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import repeat
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from nibabel.nifti1 import Nifti1Pair
from tqdm import tqdm

from monai_unetfamily.data import (
    SECTIONS,
    Case,
    CaseFolder,
    count_folds,
    ignore_label,
    image_files,
    list_dataset,
    open_dataset,
    read_facts,
    read_label_names,
    section_names,
    split_file,
    stated_label_names,
)
from monai_unetfamily.io import (
    BACKGROUND,
    GRID_TOLERANCE,
    affine_notes,
    grid_shift,
    is_image2d,
    may_overlap,
    number_classes,
    open_volume,
    read_channels,
    read_label_map,
    read_voxels,
    require_channel_names,
    require_pixdim,
)
from monai_unetfamily.planning.fingerprint import (
    LARGEST_LABEL,
    CaseFacts,
    Contents,
    Fingerprint,
    Intensity,
    Measured,
    Table,
    count_labels,
    foreground,
    measure,
    summarize,
)

# Findings of a data set's check, and the one table that shows them.


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


# One case read once: everything that is wrong with it, and what it is like.

_NAMED = 8  # labels outside the table, at most


class Examined(NamedTuple):
    """What was found in one case, and its measures where no finding is an error."""

    problems: Sequence[Problem]
    measured: Measured | None


def examine(name: str, case: Mapping[str, Any], table: Table) -> Examined:
    """Read a case's files once; nothing is raised for what they hold."""
    problems: list[Problem] = []
    files = image_files(case)
    images = [read for file in files if (read := _read(name, file, problems, label=False))]
    label = _read(name, Path(case["label"]), problems, label=True)
    problems += _of_grids(name, [*images, *([label] if label else [])])
    problems += _of_images(name, images, table, complete=len(images) == len(files))
    problems += _of_labels(name, label, table) if label else ()
    if label is None or any(problem.severity == "error" for problem in problems):
        return Examined(problems, None)
    return Examined(problems, measure(name, images, label, table))


def _read(name: str, file: Path, problems: list[Problem], *, label: bool) -> Contents | None:
    if not file.is_file():
        what = "no such file, though it is a case's; restore it, or take the case out"
        problems.append(Problem("error", name, file, what))
        return None
    try:
        read = _read_image2d(file, label) if is_image2d(file) else _read_volume(name, file, problems)
    except (ValueError, OSError) as error:
        problems.append(_refused(name, file, error))
        return None
    bad = read.values.size - int(np.count_nonzero(np.isfinite(read.values)))
    if bad:
        what = f"{bad} of {read.values.size} voxels are NaN or infinite; finite values are allowed, replace them"
        problems.append(Problem("error", name, file, what))
    return read


def _refused(name: str, file: Path, error: ValueError | OSError) -> Problem:
    return Problem("error", name, file, str(error).removeprefix(f"{file}: ").replace(str(file), file.name))


def _read_image2d(file: Path, label: bool) -> Contents:
    if label:
        values, affine = read_label_map(file)
        return Contents(file, np.moveaxis(values, -1, 0), affine, "")
    return Contents(file, *read_channels([file]), "")


def _read_volume(name: str, file: Path, problems: list[Problem]) -> Contents:
    image = open_volume(file, channels=True)
    problems += _of_header(name, file, image)
    voxels = read_voxels(image, file).reshape((*image.shape[:3], -1), order="F")
    return Contents(file, np.moveaxis(voxels, -1, 0), np.asarray(image.affine), image.get_data_dtype().name)


def _of_header(name: str, file: Path, image: Nifti1Pair) -> Iterator[Problem]:
    try:
        require_pixdim(image, file)
    except ValueError as error:
        yield _refused(name, file, error)
        return
    yield from (Problem("warning", name, file, note) for note in affine_notes(image))


def _of_grids(name: str, reads: Sequence[Contents]) -> Iterator[Problem]:
    """Every file against the first, in shape and affine."""
    for read in reads[1:]:
        first = reads[0]
        got, needed = read.values.shape[1:], first.values.shape[1:]
        if got != needed:
            what = f"got shape {got}, {first.file.name} has {needed}; they must be equal, export one of them again"
            yield Problem("error", name, read.file, what)
        elif (shift := grid_shift(read.affine, first.affine)) > GRID_TOLERANCE:
            what = f"lies up to {shift:.3g} voxels off {first.file.name}; {GRID_TOLERANCE} is allowed, bring it there"
            yield Problem("error", name, read.file, what)


def _of_images(name: str, images: Sequence[Contents], table: Table, *, complete: bool) -> Iterator[Problem]:
    channels = sum(len(read.values) for read in images)
    if complete and table.channels and channels != table.channels:
        what = f"got {channels} channels; {table.channels} are named in dataset.json, name each of them"
        yield Problem("error", name, images[0].file, what)
    for read in images:
        for number in (number for number, values in enumerate(read.values) if values.min() == values.max()):
            where = f"channel {number}" if len(read.values) > 1 else "every voxel"
            yield Problem("warning", name, read.file, f"{where} holds the one value {read.values[number].flat[0]:g}")


def _of_labels(name: str, label: Contents, table: Table) -> Iterator[Problem]:
    needed = len(table.classes) if may_overlap(table.classes) else 1
    if len(label.values) != needed:
        meant = f"{needed} masks of {list(table.classes.values())} are" if needed > 1 else "one label map is"
        what = f"got {len(label.values)} maps; {meant} needed, convert it"
        yield Problem("error", name, label.file, what)
        return
    yield from _of_names(name, label, table)
    values = label.values[np.isfinite(label.values)]
    fractional = values[values != np.rint(values)]
    if fractional.size:
        got = f"{fractional.size} voxels hold fractions, {fractional[0]:g} first"
        yield Problem("error", name, label.file, f"{got}; whole numbers are allowed, threshold it")
    elif values.size:
        yield from _of_ids(name, label, count_labels(values), table)
    if not foreground(label.values, table).any():
        yield Problem("warning", name, label.file, "no voxel is of any class")


def _of_names(name: str, label: Contents, table: Table) -> Iterator[Problem]:
    try:
        require_channel_names(label.file, table.classes)
    except ValueError as error:
        yield _refused(name, label.file, error)


def _of_ids(name: str, label: Contents, found: Mapping[int, int], table: Table) -> Iterator[Problem]:
    """Whole numbers: ids outside the table, or outside what can be an id; and how they are stored."""
    known = {0, 1} if may_overlap(table.classes) else {0, *table.classes}
    known |= set() if table.ignore is None else {table.ignore}
    unknown = {
        each: voxels
        for each, voxels in found.items()
        if (each not in known if table.classes else not 0 <= each <= LARGEST_LABEL)
    }
    if unknown:
        allowed = f"{sorted(known)} are in the table" if table.classes else f"0 to {LARGEST_LABEL} are allowed"
        got = f"got labels {_first(sorted(unknown))} in {sum(unknown.values())} voxels"
        yield Problem("error", name, label.file, f"{got}; {allowed}, add or remap them")
    if label.dtype.startswith("float"):
        what = f"the label map is stored as {label.dtype}; its values are whole, and integers are safer"
        yield Problem("warning", name, label.file, what)


def _first(labels: Sequence[int]) -> str:
    beyond = f" and {len(labels) - _NAMED} more" if len(labels) > _NAMED else ""
    return f"{list(labels[:_NAMED])}{beyond}"


# Findings that only all cases together show.

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


# A data set checked whole before it is planned for: every finding, and the fingerprint of what is sound.

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
    >>> from monai_unetfamily.data.phantom import write_phantoms
    >>> with TemporaryDirectory() as folder:
    ...     _ = write_phantoms(Path(folder), n=2, shape=(16, 16, 16), spacing=(20, 16, 12.5))
    ...     problems, fingerprint = check_integrity(folder)
    >>> problems, fingerprint.spacing(), fingerprint.size()
    ([], (20.0, 16.0, 12.5), (16, 16, 16))
    """
    dataset = open_dataset(Path(dataset_dir))
    cases, flaws = list_dataset(dataset)
    problems = [Problem("error", flaw.case, flaw.file, flaw.what) for flaw in flaws]
    problems += [*_of_splits(dataset, list(cases)), *_of_number(dataset, cases), *files_shared(cases)]
    table = _read_table(dataset, problems)
    examined = _examine_all(cases, table)
    problems += [problem for each in examined.values() for problem in each.problems]
    measured = {name: each.measured for name, each in examined.items() if each.measured}
    problems += copies(cases, measured)
    classes = table.classes or _found_classes(measured.values())
    if dataset.layout == "paired folders":
        problems += _of_classes(classes, dataset.folder / "labels")
    facts = [_named(each, classes) for each in measured.values()]
    problems += mixtures(facts, cases)
    facts = alike(facts)
    if not (facts and any(classes)):
        return problems, None
    problems += _of_set(dataset, facts, classes, cases)
    return problems, _fingerprint(dataset, table, classes, facts, [measured[case.name] for case in facts])


def _of_set(
    dataset: CaseFolder, facts: Sequence[CaseFacts], classes: Mapping[int, str], cases: Mapping[str, Case]
) -> Iterator[Problem]:
    yield from outliers(facts, cases)
    yield from volumes(classes, facts, cases)
    yield from never_seen(classes, facts, dataset.file)
    yield from scales(facts, dataset.folder)
    yield from types(facts, dataset.folder)


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

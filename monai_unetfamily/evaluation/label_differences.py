"""Compare two label maps of one image, neither of them a reference."""

import csv
from collections.abc import Collection, Generator, Mapping, Sequence
from dataclasses import dataclass
from io import StringIO
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import label as find_pieces

from monai_unetfamily.data import ignore_label
from monai_unetfamily.evaluation.metrics import checked_edges
from monai_unetfamily.io import Labels, atomic_file

# Which classes of two label maps are the same ones: by their names, or by ids where a map has no names.


class Match(NamedTuple):
    """A class, and its label id in either map; None where a map does not know the class."""

    name: str
    a: int | None
    b: int | None

    @property
    def shared(self) -> bool:
        """Whether both maps know it, be it there or not."""
        return self.a is not None and self.b is not None


def match_classes(
    a: Mapping[int, str], b: Mapping[int, str], found_a: Collection[int], found_b: Collection[int]
) -> list[Match]:
    """Bring the classes of two label maps together, in the order of the first, then what the second alone knows.

    Where both have names these count, but for case and underscores; a map without names may hold any id, under the
    name that the other gives it. What a map holds and does not name is called by its number: "label 7".

    Args:
        a: label id -> name, of the first map; the background, 0, is no class. Empty: it has no names.
        b: the same of the second.
        found_a: label ids that occur in the first.
        found_b: label ids that occur in the second.

    Raises:
        ValueError: one name for two ids of a map.

    >>> match_classes({1: "liver", 2: "spleen"}, {5: "Spleen", 6: "spine"}, {1, 2}, {5})
    [Match(name='liver', a=1, b=None), Match(name='spleen', a=2, b=5), Match(name='spine', a=None, b=6)]
    >>> match_classes({1: "liver", 2: "spleen"}, {}, {1}, {1, 7})
    [Match(name='liver', a=1, b=1), Match(name='spleen', a=2, b=2), Match(name='label 7', a=None, b=7)]
    """
    mine, theirs = _complete(a, found_a), _complete(b, found_b)
    return _by_name(mine, theirs) if _named(a) and _named(b) else _by_id(a, b, mine, theirs)


def _named(names: Mapping[int, str]) -> bool:
    return any(names)


def _complete(names: Mapping[int, str], found: Collection[int]) -> dict[int, str]:
    ids = sorted({*names, *found} - {0})
    return {label: names.get(label, f"label {label}") for label in ids}


def _by_name(mine: Mapping[int, str], theirs: Mapping[int, str]) -> list[Match]:
    ids, others = _ids(mine), _ids(theirs)
    both = [Match(mine[label], label, others.get(key)) for key, label in ids.items()]
    return both + [Match(theirs[label], None, label) for key, label in others.items() if key not in ids]


def _ids(names: Mapping[int, str]) -> dict[str, int]:
    """Name as it is compared -> label id."""
    ids = {" ".join(name.casefold().replace("_", " ").split()): label for label, name in names.items()}
    if len(ids) < len(names):
        twice = sorted(name for label, name in names.items() if label not in ids.values())
        raise ValueError(f"got the class {twice[0]!r} twice in one label map; a name for each is needed: rename one")
    return ids


def _by_id(
    a: Mapping[int, str], b: Mapping[int, str], mine: Mapping[int, str], theirs: Mapping[int, str]
) -> list[Match]:
    """A map without names may hold any id of the other."""
    names = {**theirs, **mine, **{label: name for label, name in b.items() if label and label not in a}}
    known_a, known_b = (mine if _named(a) else names), (theirs if _named(b) else names)
    return [
        Match(names[label], label if label in known_a else None, label if label in known_b else None)
        for label in sorted(names)
    ]


# Two label maps counted together: how many voxels are of one class here and of another there, and where.

AGREE, ONLY_A, ONLY_B, OTHER = range(4)  # kinds of difference: `Comparison` says what they mean
LARGEST_LABEL = 65535  # uint16: tables over all ids stay small

Counts = NDArray[np.int64]


class Codes:
    """Label ids as numbers that both maps share: 0 background, 1 to n the matches, n + 1 what is ignored."""

    def __init__(self, matches: Sequence[Match], ignored_a: int | None, ignored_b: int | None) -> None:
        self.matches, self.count = matches, len(matches) + 2
        shared = [number for number, match in enumerate(matches, start=1) if match.shared]
        self.compared = np.zeros(self.count, np.int32)  # code -> itself, or 0 of a class that one map alone knows
        self.compared[shared] = shared
        self._of_a = self._table([match.a for match in matches], ignored_a) * np.int32(self.count)
        self._of_b = self._table([match.b for match in matches], ignored_b)

    def joint(self, a: Labels, b: Labels) -> NDArray[np.int32]:
        """The codes of both maps in one number: count * code in A + code in B."""
        joint: NDArray[np.int32] = self._of_a[a] + self._of_b[b]
        return joint

    def unlike(self, a: Labels, b: Labels, number: int) -> NDArray[np.bool_]:
        """Where one of two maps alone holds a class; nowhere where either is ignored."""
        of_a, of_b = np.divmod(self.joint(a, b), self.count)
        last = self.count - 1
        unlike: NDArray[np.bool_] = ((of_a == number) ^ (of_b == number)) & (of_a < last) & (of_b < last)
        return unlike

    def kinds(self) -> NDArray[np.uint8]:
        """Joint code -> kind of difference."""
        a, b = np.meshgrid(self.compared, self.compared, indexing="ij")
        kinds = np.where(a == b, AGREE, np.where(b == 0, ONLY_A, np.where(a == 0, ONLY_B, OTHER))).astype(np.uint8)
        kinds[-1], kinds[:, -1] = AGREE, AGREE
        return kinds.ravel()

    def _table(self, ids: Sequence[int | None], ignored: int | None) -> NDArray[np.int32]:
        table = np.zeros(LARGEST_LABEL + 1, np.int32)
        for code, label in enumerate([*ids, ignored], start=1):
            if label is not None:
                table[label] = code
        return table


class Sums:
    """What a pass over the layers adds up."""

    def __init__(self, shape: tuple[int, ...], slow: int, codes: Codes) -> None:
        self._codes, self._slow, self._kinds = codes, slow, codes.kinds()
        self.pairs = np.zeros(codes.count**2, np.int64)  # joint code -> voxels
        self.profiles = [np.zeros((codes.count, size), np.int64) for size in shape]  # code -> differing, by slice

    def add(self, layer: int, joint: NDArray[np.int32], drawn: NDArray[np.uint8]) -> None:
        """Count a layer, and draw its kinds."""
        self.pairs += np.bincount(joint.ravel(), minlength=self.pairs.size)
        drawn[...] = self._kinds[joint]
        places = np.nonzero(drawn)
        both = self._codes.compared[np.stack(np.divmod(joint[places], self._codes.count))]  # (2, differing)
        fast = [axis for axis in range(len(self.profiles)) if axis != self._slow]
        for axis, positions in zip(fast, places, strict=True):
            profile = self.profiles[axis]
            found = np.bincount((both * profile.shape[1] + positions).ravel(), minlength=profile.size)
            profile += found.reshape(profile.shape)
        self.profiles[self._slow][:, layer] = np.bincount(both.ravel(), minlength=self._codes.count)

    def square(self) -> Counts:
        """Voxels by code in A and code in B, without those that are ignored."""
        return self.pairs.reshape(self._codes.count, -1)[:-1, :-1]


# Where and how two label maps of one volume differ.

_Place = tuple[int, ...]  # a voxel


class Difference(NamedTuple):
    """One class in two maps A and B; None where a map does not know the class, or there is nothing to say."""

    name: str
    label_a: int | None
    label_b: int | None
    dice: float | None  # as `evaluate_case` has it; None: it is in neither, or one map alone knows it
    ml_a: float | None  # None for a picture, as the next two
    ml_b: float | None
    difference_ml: float | None  # B minus A
    voxels_a: int | None
    voxels_b: int | None
    differing: int | None  # voxels that are of this class in one of the two alone


@dataclass(frozen=True)
class Comparison:
    """What came of holding map A against map B.

    Attributes:
        kinds: (*spatial) uint8: `AGREE`, `ONLY_A` (a class in A, none in B), `ONLY_B`, `OTHER` (two
            different classes).
        rows: one a class. One that a single map knows counts as background in `kinds`, as it does in a Dice.
        places: for each row where to look, one voxel for slices across each axis: in the slice with most of its
            differing voxels the middle of the largest piece; of a picture one pixel; none where they agree.
    """

    kinds: NDArray[np.uint8]
    rows: list[Difference]
    places: list[tuple[_Place, ...]]


def compare_labels(
    a: Labels,
    b: Labels,
    spacing: Sequence[float] | None,
    names_a: Mapping[int, str],
    names_b: Mapping[int, str],
) -> Comparison:
    """Say where two label maps of one grid differ, and how much, class by class.

    Layer by layer: beside the maps and `kinds` memory is that of a few layers. Where a map names an id "ignore", its
    voxels are left out of everything, as `evaluate_folders` does.

    Args:
        a: integer labels (x, y, z), or (rows, columns) of a picture.
        b: integer labels on the same grid.
        spacing: three voxel edge lengths in mm; None for a picture.
        names_a: label id -> name, as `match_classes` takes them.
        names_b: the same of `b`.

    Raises:
        ValueError: shapes differ or do not fit the spacing, labels that are not whole numbers from 0 to 65535; what
            `match_classes` raises.

    >>> a, b = np.zeros((2, 4, 4, 4), np.uint8)
    >>> a[:2, 1, 1], b[1:3, 1, 1] = 1, 7
    >>> found = compare_labels(a, b, (10.0, 10.0, 10.0), {1: "liver"}, {7: "liver", 8: "spleen"})
    >>> liver, spleen = found.rows
    >>> liver.dice, liver.ml_a, liver.differing, spleen.dice, spleen.label_a
    (0.5, 2.0, 2, None, None)
    >>> found.kinds[:, 1, 1].tolist(), found.places[0][0]
    ([1, 0, 2, 0], (0, 1, 1))
    """
    steps = compare_steps(a, b, spacing, names_a, names_b)
    while True:
        try:
            next(steps)
        except StopIteration as done:
            comparison: Comparison = done.value
            return comparison


def compare_steps(
    a: Labels,
    b: Labels,
    spacing: Sequence[float] | None,
    names_a: Mapping[int, str],
    names_b: Mapping[int, str],
) -> Generator[tuple[int, int], None, Comparison]:
    """The same step by step: yields how many steps are done, of how many."""
    edges = checked_edges(a, b, spacing)
    slow = int(np.argmax(np.abs(a.strides)))  # layers lie whole in memory
    layers = list(zip(np.moveaxis(a, slow, 0), np.moveaxis(b, slow, 0), strict=True))
    seen = np.zeros((2, LARGEST_LABEL + 1), np.bool_)
    for done, pair in enumerate(layers):
        _note_labels(seen, pair)
        yield done, 2 * len(layers)
    matches = _matches(names_a, names_b, *(set(np.flatnonzero(one).tolist()) for one in seen))
    codes = Codes(matches, ignore_label(names_a), ignore_label(names_b))
    kinds = np.empty_like(a, np.uint8, subok=False)
    sums = Sums(a.shape, slow, codes)
    for layer, (pair, drawn) in enumerate(zip(layers, np.moveaxis(kinds, slow, 0), strict=True)):
        sums.add(layer, codes.joint(*pair), drawn)
        yield len(layers) + layer, 2 * len(layers)
    ml = None if spacing is None else prod(edges) / 1000
    rows = [_row(match, number, sums, ml) for number, match in enumerate(matches, start=1)]
    return Comparison(kinds, rows, [_places(a, b, codes, sums, number) for number in range(1, len(rows) + 1)])


def write_differences(rows: Sequence[Difference], path: Path) -> None:
    """Write one row a class under a header of `Difference`'s fields; the file appears whole or not.

    What is None is an empty cell, which pandas and R read as missing.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "differences.csv"
    ...     write_differences([Difference("spleen", 2, None, None, 1.5, None, None, 12, None, None)], path)
    ...     path.read_text().splitlines()[1]
    'spleen,2,,,1.5,,,12,,'
    """
    text = StringIO()
    csv.writer(text, lineterminator="\n").writerows([Difference._fields, *rows])
    with atomic_file(path) as stream:
        stream.write(text.getvalue().encode())


def _note_labels(seen: NDArray[np.bool_], pair: tuple[Labels, Labels]) -> None:
    for found, layer in zip(seen, pair, strict=True):
        low, high = int(layer.min(initial=0)), int(layer.max(initial=0))
        if low < 0 or high > LARGEST_LABEL:
            got = low if low < 0 else high
            raise ValueError(f"got label {got}; whole numbers from 0 to {LARGEST_LABEL} are allowed: renumber it")
        found[layer] = True


def _matches(a: Mapping[int, str], b: Mapping[int, str], found_a: set[int], found_b: set[int]) -> list[Match]:
    """The classes of both, without what is ignored."""
    named_a, named_b = ({k: v for k, v in names.items() if k != ignore_label(names)} for names in (a, b))
    return match_classes(named_a, named_b, found_a - {ignore_label(a)}, found_b - {ignore_label(b)})


def _row(match: Match, number: int, sums: Sums, ml: float | None) -> Difference:
    square = sums.square()
    in_a, in_b = int(square[number].sum()), int(square[:, number].sum())
    in_both, whole = int(square[number, number]), in_a + in_b
    return Difference(
        match.name,
        match.a,
        match.b,
        dice=2 * in_both / whole if match.shared and whole else None,
        ml_a=None if ml is None or match.a is None else in_a * ml,
        ml_b=None if ml is None or match.b is None else in_b * ml,
        difference_ml=None if ml is None or not match.shared else (in_b - in_a) * ml,
        voxels_a=None if match.a is None else in_a,
        voxels_b=None if match.b is None else in_b,
        differing=whole - 2 * in_both if match.shared else None,
    )


def _places(a: Labels, b: Labels, codes: Codes, sums: Sums, number: int) -> tuple[_Place, ...]:
    if not sums.profiles[0][number].any():
        return ()
    if a.ndim == 2:
        return (_middle(codes.unlike(a, b, number)),)
    places = []
    for axis, profile in enumerate(sums.profiles):
        most = int(profile[number].argmax())
        slice_a, slice_b = (np.moveaxis(labels, axis, 0)[most] for labels in (a, b))
        piece = _middle(codes.unlike(slice_a, slice_b, number))
        places.append((*piece[:axis], most, *piece[axis:]))
    return tuple(places)


def _middle(mask: NDArray[np.bool_]) -> _Place:
    """The pixel of the largest piece that lies nearest to the piece's centre."""
    pieces, _ = find_pieces(mask, np.ones((3, 3)))
    sizes: NDArray[Any] = np.bincount(pieces.ravel())
    points = np.argwhere(pieces == 1 + int(sizes[1:].argmax()))
    row, column = points[np.square(points - points.mean(axis=0)).sum(axis=1).argmin()].tolist()
    return row, column

"""Which classes of two label maps are the same ones: by their names, or by ids where a map has no names."""

from collections.abc import Collection, Mapping
from typing import NamedTuple


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

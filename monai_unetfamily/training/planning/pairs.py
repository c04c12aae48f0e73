"""Classes that come in pairs of left and right: what a mirrored image would exchange."""

import re
from collections.abc import Sequence

_SIDES = {"left": "left", "l": "left", "lh": "left", "right": "right", "r": "right", "rh": "right"}
_OTHER = {"left": "right", "right": "left"}
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|[^\W\d_]+|\d+")


def paired_sides(names: Sequence[str]) -> list[tuple[str, str]]:
    """Pairs (left, right) of names that differ in the side alone: left, l or lh, and right, r or rh, as whole words.

    >>> paired_sides(["liver", "left_kidney", "right_kidney", "Lung R", "Lung L", "left atrium"])
    [('left_kidney', 'right_kidney'), ('Lung L', 'Lung R')]
    >>> paired_sides(["KidneyRight", "KidneyLeft", "1", "2"])
    [('KidneyLeft', 'KidneyRight')]
    """
    known = {_words(name): name for name in names}
    lefts = [words for words in known if "left" in words]
    return [(known[left], known[right]) for left in lefts if (right := _mirrored(left)) in known]


def _words(name: str) -> tuple[str, ...]:
    words = (word.casefold() for word in _WORD.findall(name))
    return tuple(_SIDES.get(word, word) for word in words)


def _mirrored(words: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(_OTHER.get(word, word) for word in words)

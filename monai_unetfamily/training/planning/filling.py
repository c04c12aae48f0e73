"""Templates of a bundle's files: text with places <<name>> that lines or a word fill."""

import re
from collections.abc import Mapping, Sequence

_PLACE = re.compile(r"<<(\w+)>>")
_ALONE = re.compile(r"( *)<<(\w+)>>")


def fill(template: str, values: Mapping[str, str | Sequence[str]]) -> str:
    """Fill each place: one that is a line by itself with lines of its indentation, perhaps none; others with a word.

    >>> template = "size: <<size>>\\nsteps:\\n  <<steps>>\\n<<rest>>\\n"
    >>> print(fill(template, {"size": "3", "steps": ["- a", "- b"], "rest": []}), end="")
    size: 3
    steps:
      - a
      - b

    Raises:
        KeyError: a place for which there is no value.
    """
    lines = (line for text in template.splitlines() for line in _filled(text, values))
    return "".join(f"{line}\n" for line in lines)


def _filled(line: str, values: Mapping[str, str | Sequence[str]]) -> list[str]:
    if alone := _ALONE.fullmatch(line):
        given = values[alone[2]]
        return [f"{alone[1]}{text}".rstrip() for text in ([given] if isinstance(given, str) else given)]
    return [_PLACE.sub(lambda place: str(values[place[1]]), line)]

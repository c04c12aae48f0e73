"""A bundle's own files: inside its folder, of a size that a person writes, and of one meaning; nothing of them runs."""

import json
from collections.abc import Iterator
from copy import deepcopy
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

_BYTES = 2**20  # of a file: ordinary ones have some thousands
_VALUES = 20_000  # in a config, with all that it repeats written out: ordinary ones have some hundreds
_LINE = 100  # letters that count as a value
_UNREADABLE = (yaml.YAMLError, ValueError, RecursionError, KeyError, AttributeError, TypeError)  # the last of odd tags
_DEPTH = 64  # of objects within objects: ordinary ones have about ten


def inside(root: Path, file: Path) -> Path:
    """The file, which no link leads out of the bundle's folder; the folder itself may be reached through links.

    Raises:
        ValueError: says where it leads.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     root = Path(folder)
    ...     inside(root, root / "configs" / "metadata.json").name
    'metadata.json'
    """
    if not file.resolve().is_relative_to(root.resolve()):
        raise ValueError(
            f"{file}: leads to {file.resolve()}, outside the bundle; put the file itself there (cp -rL copies a bundle "
            "with what its links lead to)."
        )
    return file


def require_inside(root: Path) -> None:
    """Refuse a bundle in which any link leads out: what is written to it would be written elsewhere.

    Raises:
        ValueError: names the first.
    """
    for file in sorted(root.rglob("*")):
        if file.is_symlink():
            inside(root, file)


def read_object(root: Path, file: Path) -> dict[str, Any]:
    """The object in a bundle's JSON or YAML file.

    Raises:
        FileNotFoundError: no such file; a pipe or a device is none.
        ValueError: outside the bundle, too large, not JSON or YAML, a key twice, or no object.
    """
    if not inside(root, file).is_file():
        raise FileNotFoundError(f"{file}: no such file; complete the bundle.")
    if (size := file.stat().st_size) > _BYTES:
        raise ValueError(f"{file}: has {size:,} bytes; a config has {_BYTES:,} at most: leave out what is no config.")
    try:
        content = deepcopy(_parsed(file.read_text(encoding="utf-8"), file.suffix))
    except _UNREADABLE as error:
        raise ValueError(f"{file}: cannot be read ({' '.join(str(error).split())}); mend the file.") from error
    if not isinstance(content, dict):
        raise ValueError(f"{file}: holds {type(content).__name__}; an object is needed; mend the file.")
    return content


@lru_cache(maxsize=32)  # a run reads the same few files many times, YAML in 50 ms
def _parsed(text: str, suffix: str) -> Any:
    content = json.loads(text, object_pairs_hook=_once) if suffix == ".json" else yaml.load(text, _Loader)
    require_small(content)
    return content


def require_small(content: Any) -> None:
    """Refuse a config that repeats parts of itself until it fills the memory of whoever walks through it.

    Raises:
        ValueError: more values than a config has, each counted wherever it is repeated, or deeper ones.

    >>> require_small({"spacing": [1.0, 1.0, 2.5]})
    """
    for count, depth in enumerate(_depths(content)):
        if count > _VALUES or depth > _DEPTH:
            raise ValueError(f"it holds more than {_VALUES:,} values, or deeper than {_DEPTH}, with what it repeats")


def _depths(value: Any, depth: int = 0) -> Iterator[int]:
    """How deep each value lies; a long text counts as many."""
    yield from [depth] * (1 + len(value) // _LINE if isinstance(value, str) else 1)
    for below in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _depths(below, depth + 1)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of which each key stands there once: a reader and a machine would not take the same of two."""
    seen = dict[str, Any]()
    for key, value in pairs:
        if key in seen:
            raise ValueError(f"{key!r} stands there twice")
        seen[key] = value
    return seen


class _Loader(yaml.SafeLoader):
    """YAML of plain values, without keys that stand there twice, and without "<<", which PyYAML writes out."""

    def compose_mapping_node(self, anchor: str | None) -> Any:
        node = super().compose_mapping_node(anchor)
        keys = [key for key, _ in node.value]
        if [key for key in keys if key.tag == "tag:yaml.org,2002:merge"]:
            raise ValueError('"<<" is not read; write the keys, or repeat a part by "%"')
        _once([(str(key.value), None) for key in keys if isinstance(key, yaml.ScalarNode)])
        return node

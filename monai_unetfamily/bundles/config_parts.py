"""The parts of a config that are needed, with what they refer to, and nothing else: what is left out cannot run."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from monai.bundle import ConfigParser, ReferenceResolver

from monai_unetfamily.bundles.config_files import require_small

Keys = tuple[str, ...]  # from the top: ("preprocessing", "transforms", "2")
_WHOLE_REFERENCE = re.compile(r"@\w+(::\w+)*")


def expand(config: Mapping[str, Any]) -> dict[str, Any]:
    """Write out relative references (`@#`) and what `%` repeats from elsewhere in the config, as MONAI reads them.

    A `%` that names another file stays: nothing is read.

    Raises:
        ValueError: a `%` that leads nowhere, or back to itself, or that repeats too much.

    >>> expand({"a": {"size": 3, "half": "$@#size / 2"}, "b": "%a"})
    {'a': {'size': 3, 'half': '$@a::size / 2'}, 'b': {'size': 3, 'half': '$@a::size / 2'}}
    """
    try:
        done = dict[Keys, Any]()
        expanded = {key: _expanded(value, (str(key),), config, done) for key, value in config.items()}
        require_small(expanded)
        return expanded
    except RecursionError as error:
        raise ValueError("it refers to itself without end") from error


def leave_out_savers(config: dict[str, Any]) -> dict[str, Any]:
    """The config without the steps of postprocessing that save: files are written by this package, which keeps headers.

    Raises:
        ValueError: a postprocessing that is no transform.
    """
    postprocessing = followed(config["postprocessing"], config)
    if not isinstance(postprocessing, dict):
        raise ValueError("postprocessing is no transform with a _target_; give a Compose of transforms")
    steps = followed(postprocessing.get("transforms"), config)
    kept = [step for step in steps if not _saves(followed(step, config))] if isinstance(steps, list) else steps
    return config if kept == steps else {**config, "postprocessing": postprocessing | {"transforms": kept}}


def needed_parts(config: Mapping[str, Any], parts: Sequence[str]) -> dict[str, Any]:
    """An expanded config without what none of `parts` refers to.

    In a list None stands for what is left out.

    >>> needed_parts({"net": {"width": "@widths::1"}, "widths": [8, 16], "run": "$quit()"}, ["net"])
    {'net': {'width': '@widths::1'}, 'widths': [None, 16]}
    """
    kept: set[Keys] = set()
    waiting = [tuple(part.replace("#", "::").split("::")) for part in parts]
    while waiting:
        if (path := waiting.pop()) not in kept:
            kept.add(path)
            waiting += _references(at(config, path))
    needed: dict[str, Any] = _kept(config, (), kept)
    return needed


def at(config: Any, path: Keys) -> Any:
    """What stands in a config under a path; None where nothing does."""
    for key in path:
        pairs = config.items() if isinstance(config, dict) else enumerate(config) if isinstance(config, list) else ()
        config = next((value for name, value in pairs if str(name) == key), None)
    return config


def followed(item: Any, config: Mapping[str, Any]) -> Any:
    """What a chain of references leads to, or the value itself."""
    seen: set[Keys] = set()
    while (path := _reference(item)) and path not in seen:
        seen.add(path)
        item = at(config, path)
    return item


def _expanded(item: Any, path: Keys, config: Mapping[str, Any], done: dict[Keys, Any]) -> Any:
    """An item of the config, written out; `done` holds what is repeated, which is written out once."""
    if isinstance(item, dict):
        return {key: _expanded(value, (*path, str(key)), config, done) for key, value in item.items()}
    if isinstance(item, list):
        return [_expanded(value, (*path, str(number)), config, done) for number, value in enumerate(item)]
    if not isinstance(item, str):
        return item
    text = ConfigParser.resolve_relative_ids("::".join(path), item)
    file, name = ConfigParser.split_path_id(text[1:]) if text.startswith("%") else ("", "")
    if file or not text.startswith("%"):
        return text
    if (target := at(config, there := tuple(name.split("::")))) is None:
        raise ValueError(f"{item} leads nowhere")
    if there not in done:
        done[there] = _expanded(target, there, config, done)
    return done[there]


def _reference(value: Any) -> Keys | None:
    """Where a value leads that is a reference and nothing else."""
    whole = isinstance(value, str) and _WHOLE_REFERENCE.fullmatch(value.replace("#", "::"))
    return tuple(value.replace("#", "::")[1:].split("::")) if whole else None


def _saves(step: Any) -> bool:
    return isinstance(step, dict) and str(step.get("_target_", "")).split(".")[-1].startswith("SaveImage")


def _references(item: Any) -> Iterator[Keys]:
    """Every reference in a part of a config, as MONAI finds them."""
    if isinstance(item, dict | list):
        for value in item.values() if isinstance(item, dict) else item:
            yield from _references(value)
    elif isinstance(item, str):
        for name in ReferenceResolver.match_refs_pattern(item):
            yield tuple(name.split("::"))


def _kept(item: Any, path: Keys, kept: set[Keys]) -> Any:
    """An item without what is not under, and not on the way to, a path that is kept."""
    if path in kept or not isinstance(item, dict | list):
        return item
    on_the_way = {other[: len(path) + 1] for other in kept if other[: len(path)] == path}
    if isinstance(item, dict):
        below = {key: (*path, str(key)) for key in item}
        return {key: _kept(value, below[key], kept) for key, value in item.items() if below[key] in on_the_way}
    steps = [(*path, str(number)) for number in range(len(item))]
    return [_kept(value, step, kept) if step in on_the_way else None for value, step in zip(item, steps, strict=True)]

"""What a bundle's config would run, told before any of it runs.

A config can run anything: by `$` expressions, by `_target_` (`torch.os.system` is a perfectly good one), by arguments
that name a function. So a list of what is forbidden would never end. Of a config that is not trusted, only the parts
that are needed go on to MONAI's parser, with what they refer to; and all of these are compared with what is allowed:

- a `_target_` is a plain name of something on the list of `allow_list.py`; it is passed on by its full name;
- a `_mode_` is "default", a reader of images is one of the list, and nothing asks for a debugger;
- a `$` expression holds references, literals and arithmetic, and no name, call or attribute;
- a `%` names no other file.

What a train config may contain besides is in `allow_list.py` too, and reviewed at the end of this module.
"""

import ast
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser, ReferenceResolver

from monai_unetfamily.bundles.config import read_config
from monai_unetfamily.bundles.config_parts import Keys, at, expand, followed, leave_out_savers, needed_parts
from monai_unetfamily.bundles.metadata import METADATA, config_file
from monai_unetfamily.bundles.trust.allow_list import (
    CASES,
    EXPRESSIONS,
    LISTERS,
    PLACES,
    full_name,
    full_reader_name,
    locator,
    recipe_name,
)

PREDICTION = ("network_def", "preprocessing", "inferer", "postprocessing")
_PLAIN = (
    *(ast.Expression, ast.Constant, ast.List, ast.Tuple, ast.Dict, ast.Subscript, ast.Slice, ast.Name, ast.Load),
    *(ast.BinOp, ast.Add, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Mod, ast.UnaryOp, ast.UAdd, ast.USub),
)
_ANOTHER_FILE = "{}, the content of another file"  # which expand leaves: all other % are written out
_LOADERS = ("monai.transforms.io.array.LoadImage", "monai.transforms.io.dictionary.LoadImaged")


@dataclass(frozen=True)
class Rule:
    """What a config may hold: `name_of` gives full names of what a `_target_` may name, `expressions` go besides."""

    name_of: Callable[[str], str | None]
    expressions: frozenset[str] = frozenset()


FOR_PREDICTION = Rule(full_name)


@dataclass(frozen=True)
class Finding:
    """One thing that a config would run and that is not on the list.

    Attributes:
        where: file and part, "configs/inference.json: preprocessing#transforms#2".
        what: as it stands there, "_target_ my_code.Transform" or "$import os"; control characters are written out.
    """

    where: str
    what: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"


class UntrustedBundleError(ValueError):
    """A bundle would run what is not on the list; `findings` says what and where."""

    def __init__(self, root: Path, findings: Sequence[Finding]) -> None:
        self.findings = tuple(findings)
        found = "; ".join(map(str, findings))
        super().__init__(
            f"{root}: would run what is no known part of MONAI or of this package: {found}. Read it, and give --trust "
            "(trust=True) if you trust who wrote it."
        )


def review(root: Path, name: str = "inference", parts: Sequence[str] = PREDICTION) -> tuple[Finding, ...]:
    """All that a bundle would run for prediction, once trusted, that is not on the list; nothing for ordinary bundles.

    Nothing of the bundle is run, and no module is imported but MONAI's and this package's. Steps that save files do not
    count: `open_bundle` leaves them out. Where there is something, what a trusted bundle imports is told too.

    Args:
        root: the bundle's folder.
        name, parts: which of its configs, and which parts of it with what these refer to.

    Raises:
        FileNotFoundError: no such config.
        ValueError: a config that cannot be used.

    >>> from monai_unetfamily.bundles import find_bundle
    >>> review(find_bundle("phantom_ct"))
    ()
    """
    config, file = _read(root, name, parts, "cpu"), config_file(root, name)
    return findings(config, needed_parts(config, parts), file)


def reviewed_parser(root: Path, name: str, parts: Sequence[str], device: torch.device, *, trust: bool) -> ConfigParser:
    """MONAI's parser of a bundle's config, in which nothing but `parts` can be resolved unless the bundle is trusted.

    Its `bundle_root` and `device` are set here, whatever the config says of them.

    Raises:
        FileNotFoundError: no such config.
        ValueError: a config that cannot be used.
        UntrustedBundleError: it would run what is not on the list, and `trust` is false.
    """
    return restricted_parser(_read(root, name, parts, device), parts, config_file(root, name), trust=trust)


def restricted_parser(config: Mapping[str, Any], parts: Sequence[str], file: Path, *, trust: bool) -> ConfigParser:
    """The same of an expanded config of the bundle whose `file` this is.

    Raises:
        UntrustedBundleError: as `reviewed_parser`.
    """
    needed = needed_parts(config, parts)
    if found := findings(config, needed, file):
        if not trust:
            raise UntrustedBundleError(file.parents[1], found)
        return ConfigParser(dict(config))
    return harmless_parser(needed)


def harmless_parser(reviewed: Mapping[str, Any], rule: Rule = FOR_PREDICTION) -> ConfigParser:
    """MONAI's parser of a config in which there were no findings; it has no names left to look up."""
    parser = ConfigParser(_named_in_full(reviewed, reviewed, rule))
    parser.locator = locator()
    return parser


def _read(root: Path, name: str, parts: Sequence[str], device: object) -> dict[str, Any]:
    """The config as it will be resolved."""
    file, config = config_file(root, name), read_expanded(root, name)
    if missing := [part for part in parts if at(config, tuple(part.split("#"))) is None]:
        raise ValueError(f"{file}: has no {', '.join(missing)}, which is needed; complete the bundle.")
    config |= {"bundle_root": str(root.absolute()), "device": device}
    try:
        return leave_out_savers(config) if "postprocessing" in parts else config
    except ValueError as error:
        raise ValueError(f"{file}: {error}; mend the file.") from error


def read_expanded(root: Path, name: str) -> dict[str, Any]:
    """A config of a bundle, with what it repeats written out.

    Raises:
        FileNotFoundError: no such config.
        ValueError: a config that cannot be used.
    """
    config = read_config(root, name)
    try:
        return expand(config)
    except ValueError as error:
        raise ValueError(f"{config_file(root, name)}: {error}; mend the file.") from error


def findings(
    config: Mapping[str, Any],
    needed: Mapping[str, Any],
    file: Path,
    rule: Rule = FOR_PREDICTION,
    more: Sequence[tuple[Keys, str]] = (),
) -> tuple[Finding, ...]:
    """Findings in what is needed, and where there are any, what a trusted config imports and reads besides.

    Args:
        config: all of it, expanded.
        needed: what can be resolved.
        file: that it stands in.
        rule: what may stand there.
        more: where and what else was found.
    """
    found = [*offences(needed, (), needed, rule), *more]
    besides = _imports(config, ()) if found else ()
    return tuple(dict.fromkeys(_finding(path, what, file) for path, what in [*found, *besides]))


def _finding(path: Keys, what: str, file: Path) -> Finding:
    name, path = (METADATA, path[1:]) if path[:1] == ("_meta_",) else (file.name, path)
    visible = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in what)
    return Finding(f"configs/{name}: {'#'.join(path)}", visible)


def offences(item: Any, path: Keys, config: Mapping[str, Any], rule: Rule) -> Iterator[tuple[Keys, str]]:
    """Where and what, of everything in a part of a config that is not on the list."""
    if isinstance(item, dict) and "_target_" in item:
        yield from ((path, what) for what in _wrong_with(item, config, rule))
    for key, value in below(item):
        if key != "_target_":
            yield from offences(value, (*path, key), config, rule)
    if isinstance(item, str) and item.startswith("$") and not _is_allowed(item, rule):
        yield path, item
    if isinstance(item, str) and item.startswith("%"):
        yield path, _ANOTHER_FILE.format(item)


def _imports(item: Any, path: Keys) -> Iterator[tuple[Keys, str]]:
    """Where and what MONAI's parser imports and reads as soon as it resolves anything."""
    for key, value in below(item):
        yield from _imports(value, (*path, key))
    if isinstance(item, str) and item.startswith("%"):
        yield path, _ANOTHER_FILE.format(item)
    if isinstance(item, str) and _imports_a_module(item):
        yield path, item


def below(item: Any) -> list[tuple[str, Any]]:
    """What an object or a list holds, by key or number."""
    pairs = item.items() if isinstance(item, dict) else enumerate(item) if isinstance(item, list) else ()
    return [(str(key), value) for key, value in pairs]


def _wrong_with(component: Mapping[str, Any], config: Mapping[str, Any], rule: Rule) -> Iterator[str]:
    target = component["_target_"]
    name = rule.name_of(target) if isinstance(target, str) else None
    if name is None:
        yield f"_target_ {target}"
    if component.get("_mode_", "default") != "default":
        yield f"_mode_ {component['_mode_']} of {target}"
    if "_debug_" in component:
        yield f"_debug_ of {target}"
    if name in _LOADERS and component.get("reader") is not None and _full_readers(component["reader"], config) is None:
        yield f"reader {component['reader']} of {target}"


def _full_readers(readers: Any, config: Mapping[str, Any]) -> list[str] | None:
    """Full names of one or several readers of images; None where one is not on the list."""
    given = followed(readers, config)
    names = [followed(each, config) for each in (given if isinstance(given, list) else [given])]
    full = [full_reader_name(name) if isinstance(name, str) else None for name in names]
    return [name for name in full if name] if all(full) else None


def _is_allowed(expression: str, rule: Rule) -> bool:
    return expression.replace("::", "#") in rule.expressions or _is_plain(expression)


def _is_plain(expression: str) -> bool:
    """Whether a `$` expression holds nothing but references, literals and arithmetic, as MONAI will evaluate it."""
    names = ReferenceResolver.match_refs_pattern(expression)
    code = ReferenceResolver.update_refs_pattern(expression, names).removeprefix("$")
    try:
        nodes = list(ast.walk(ast.parse(code, mode="eval")))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    values = ReferenceResolver._vars
    named = all(node.id == values for node in nodes if isinstance(node, ast.Name))
    once_more = values in expression or re.search("[@%]::", code)  # what MONAI would replace once more
    return named and not once_more and all(isinstance(node, _PLAIN) for node in nodes)


def _imports_a_module(text: str) -> bool:
    """Whether MONAI takes a string for an import, of a module that is not loaded yet: else it runs nothing."""
    try:
        node = next(iter(ast.parse(text.removeprefix("$")).body), None) if text.startswith("$") else None
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    match node:
        case ast.Import(names=[ast.alias(name=name), *_]) | ast.ImportFrom(module=str(name)):
            return name not in sys.modules
    return False


def _named_in_full(item: Any, config: Mapping[str, Any], rule: Rule) -> Any:
    """A reviewed config with each `_target_` and reader by its full name, so that MONAI has nothing to look up."""
    if isinstance(item, list):
        return [_named_in_full(value, config, rule) for value in item]
    if not isinstance(item, dict):
        return item
    full = {key: _named_in_full(value, config, rule) for key, value in item.items()}
    if "_target_" not in item:
        return full
    full["_target_"] = rule.name_of(item["_target_"])
    if full["_target_"] in _LOADERS and item.get("reader") is not None:
        full["reader"] = _full_readers(item["reader"], config)
    return full


# What a train config would run, and where it would write or read, told before any of it runs.
#
# Training resolves the whole config. Without trust it may contain what `recipe_names` lists, and its places stay
# where they belong: each directory in it lies in the bundle or was given by the user, and so were the cases.

FOR_TRAINING = Rule(recipe_name, EXPRESSIONS)
_GIVEN = ("dataset_dir", "cache_dir")  # settings that are folders of the user's
_META, _PLACE = "_meta_", "_place_"


def review_training(root: Path, settings: Mapping[str, Any]) -> tuple[Finding, ...]:
    """All that training a bundle would run or touch, once trusted, that is not on the list; nothing is run.

    Args:
        root: the bundle's folder.
        settings: what stands in place of its train config's keys; folders among them are the user's.

    Raises:
        FileNotFoundError: no train config.
        ValueError: a config that cannot be used.

    >>> from monai_unetfamily.bundles import find_bundle
    >>> review_training(find_bundle("phantom_ct"), {"dataset_dir": "/data"})
    ()
    """
    return _findings(root, _settled(root, settings), settings)


def training_parser(root: Path, settings: Mapping[str, Any], *, trust: bool) -> ConfigParser:
    """MONAI's parser of a bundle's train config with these settings.

    Raises:
        FileNotFoundError, ValueError: as `review_training`.
        UntrustedBundleError: it would run or touch what is not on the list, and `trust` is false.
    """
    config = _settled(root, settings)  # read once: what is reviewed is what runs
    found = _findings(root, config, settings)
    if found and not trust:
        raise UntrustedBundleError(root, found)
    return ConfigParser(config) if found else harmless_parser(_resolved(config), FOR_TRAINING)


def _findings(root: Path, config: Mapping[str, Any], settings: Mapping[str, Any]) -> tuple[Finding, ...]:
    needed, given = _resolved(config), [root, *(Path(settings[key]) for key in _GIVEN if key in settings)]
    misplaced = list(_misplaced(needed, (), needed, given))
    return findings(config, needed, config_file(root, "train"), FOR_TRAINING, misplaced)


def _settled(root: Path, settings: Mapping[str, Any]) -> dict[str, Any]:
    return read_expanded(root, "train") | {"bundle_root": str(root.absolute())} | dict(settings)


def _resolved(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config without what none of its keys refers to in the metadata."""
    return {_META: {}} | needed_parts(config, [key for key in config if key != _META])


def _misplaced(item: Any, path: Keys, config: Mapping[str, Any], given: Sequence[Path]) -> Iterator[tuple[Keys, str]]:
    """Where and what, of each place beyond the folders that are given."""
    if isinstance(item, dict) and isinstance(target := item.get("_target_"), str):
        name = recipe_name(target) or ""
        for argument in PLACES.get(name, ()):
            if not _stays(item.get(argument), config, given):
                yield (*path, argument), f"{argument} {item.get(argument)} of {target}, outside the bundle"
        if (argument := CASES.get(name, "")) and not _is_listed(item.get(argument), config):
            yield (*path, argument), f"{argument} of {target}, which are not those of the data set"
    for key, value in below(item):
        yield from _misplaced(value, (*path, key), config, given)


def _stays(place: Any, config: Mapping[str, Any], given: Sequence[Path]) -> bool:
    """Whether a place, once it is worked out, lies in one of the folders; nothing but arithmetic is run for it."""
    parts = needed_parts({**config, _PLACE: place}, [_PLACE])
    if list(offences(parts, (), parts, FOR_PREDICTION)):
        return False
    try:
        folder = harmless_parser(parts).get_parsed_content(_PLACE)
        return any(Path(folder).resolve().is_relative_to(each.resolve()) for each in given)
    except (RuntimeError, ValueError, TypeError, KeyError, OSError):  # no place at all
        return False


def _is_listed(cases: Any, config: Mapping[str, Any]) -> bool:
    """Whether cases are what the data set's listers give, or some of these; texts would name other files."""
    cases = followed(cases, config)
    if isinstance(cases, dict):
        return recipe_name(str(cases.get("_target_"))) in LISTERS
    if not isinstance(cases, str) or not cases.startswith("$") or "'" in cases or '"' in cases:
        return False
    values = [followed(f"@{name}", config) for name in ReferenceResolver.match_refs_pattern(cases)]
    return all(isinstance(value, int) or _is_listed(value, config) for value in values)

"""What a train config would run, and where it would write or read, told before any of it runs.

Training resolves the whole config. Without trust it may hold what `recipes.py` lists, and its places stay where they
belong: each folder in it lies in the bundle or is one that the user gave, and cases come from the user's data set.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser, ReferenceResolver

from monai_unetfamily.bundles.metadata import config_file
from monai_unetfamily.bundles.parts import Keys, followed, needed_parts
from monai_unetfamily.bundles.recipes import CASES, EXPRESSIONS, LISTERS, PLACES, recipe_name
from monai_unetfamily.bundles.trust import (
    FOR_PREDICTION,
    Finding,
    Rule,
    UntrustedBundleError,
    below,
    findings,
    harmless_parser,
    offences,
    read_expanded,
)

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

    >>> from monai_unetfamily.bundles.metadata import find_bundle
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

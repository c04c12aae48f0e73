"""A bundle's configs: read, and their parts with every reference replaced by what it refers to; nothing is built."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from monai_unetfamily.bundles.config_files import read_object, require_small
from monai_unetfamily.bundles.metadata import config_file, read_metadata

# Parts of a bundle's config as they are meant: every reference replaced by what it refers to; nothing is built.

IMAGE2D_READER = "Image2DReader"
_LETTERS = 20_000  # in an expression, with what it refers to written out
_REFERENCE = re.compile(r"@(\w+(?:(?:#|::)\w+)*)")


def read_config(root: Path, name: str) -> dict[str, Any]:
    """The config `name` of a bundle, with its metadata under "_meta_", as MONAI's references name it.

    Raises:
        FileNotFoundError: the bundle has no such config.
        ValueError: `read_object` refuses it, or it has keys of MONAI's for changing another key.
    """
    file = config_file(root, name)
    config = read_object(root, file)
    if changes := [key for key in config if re.search("^[+]|#|::", str(key))]:
        raise ValueError(f"{file}: {changes[0]!r} changes another part of the file; write the change where it belongs.")
    return config | {"_meta_": read_metadata(root)}


def resolved_part(root: Path, part: str) -> Any:
    """A part of a bundle's inference config, such as "preprocessing", with its references replaced; nothing is built.

    Two bundles whose parts are equal mean the same by them, however they name their values.

    Raises:
        FileNotFoundError: no inference config.
        ValueError: the config cannot be read, has no such part, or refers to itself without end.

    >>> from monai_unetfamily.bundles import find_bundle
    >>> resolved_part(find_bundle("phantom_ct"), "preprocessing")["transforms"][3]["pixdim"]
    [5.0, 5.0, 5.0]
    """
    config, file = read_config(root, "inference"), config_file(root, "inference")
    if part not in config:
        raise ValueError(f"{file}: has no {part}; prediction needs it: complete the bundle.")
    try:
        return _replaced(config[part], config)
    except RecursionError as error:
        raise ValueError(f"{file}: {part} refers to itself without end; mend the file.") from error
    except ValueError as error:
        raise ValueError(f"{file}: {part}: {error}; mend the file.") from error


def takes_only_2d_images(root: Path) -> bool:
    """Whether the reader that a bundle's inference config names for its images is the one of PNG and TIFF.

    Raises:
        FileNotFoundError: no inference config.
        ValueError: a config that cannot be used.

    >>> from monai_unetfamily.bundles import find_bundle
    >>> takes_only_2d_images(find_bundle("phantom_2d")), takes_only_2d_images(find_bundle("phantom_ct"))
    (True, False)
    """
    match resolved_part(root, "preprocessing"):
        case {"transforms": [{"reader": str(reader)}, *_]}:
            return reader.split(".")[-1] == IMAGE2D_READER
    return False


def _replaced(item: Any, config: Mapping[str, Any]) -> Any:
    if isinstance(item, dict):
        return {key: _replaced(value, config) for key, value in item.items()}
    if isinstance(item, list):
        return [_replaced(value, config) for value in item]
    if not isinstance(item, str):
        return item
    if whole := _REFERENCE.fullmatch(item):
        return _at(config, whole[1], item)
    return _written_out(item, config)


def _written_out(text: str, config: Mapping[str, Any]) -> str:
    """A text with each reference in it replaced by what it refers to."""
    values = {match[0]: repr(_at(config, match[1], match[0])) for match in _REFERENCE.finditer(text)}
    if sum(len(values[match[0]]) for match in _REFERENCE.finditer(text)) > _LETTERS:
        raise ValueError(f"it refers to more than {_LETTERS:,} letters")
    return _REFERENCE.sub(lambda match: values[match[0]], text)


def _at(config: Mapping[str, Any], name: str, unknown: str) -> Any:
    """What a reference refers to, itself replaced; a reference to nothing stays as it is."""
    found: Any = config
    for key in name.replace("#", "::").split("::"):
        try:
            found = found[int(key)] if isinstance(found, list) else found[key]
        except (KeyError, TypeError, ValueError, IndexError):
            return unknown
    replaced = _replaced(found, config)
    require_small(replaced)
    return replaced

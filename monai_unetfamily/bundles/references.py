"""Parts of a bundle's config as they are meant: every reference replaced by what it refers to."""

import re
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser

from monai_unetfamily.bundles.bundle import METADATA, config_file

_REFERENCE = re.compile(r"@(\w+(?:(?:#|::)\w+)*)")


def resolved_part(root: Path, part: str) -> Any:
    """A part of a bundle's inference config, such as "preprocessing", with its references replaced; nothing is built.

    Two bundles whose parts are equal mean the same by them, however they name their values.

    Raises:
        FileNotFoundError: no inference config.
        ValueError: the config has no such part.

    >>> from monai_unetfamily.bundles.bundle import find_bundle
    >>> resolved_part(find_bundle("phantom_ct"), "preprocessing")["transforms"][3]["pixdim"]
    [5.0, 5.0, 5.0]
    """
    file, parser = config_file(root, "inference"), ConfigParser()
    parser.read_config(str(file))
    parser.read_meta(str(root / "configs" / METADATA))
    if part not in parser:
        raise ValueError(f"{file}: has no {part}; prediction needs it: complete the bundle.")
    return _replaced(parser[part], parser)


def _replaced(item: Any, parser: ConfigParser) -> Any:
    if isinstance(item, dict):
        return {key: _replaced(value, parser) for key, value in item.items()}
    if isinstance(item, list):
        return [_replaced(value, parser) for value in item]
    if not isinstance(item, str):
        return item
    if (whole := _REFERENCE.fullmatch(item)) and whole[1] in parser:
        return _replaced(parser[whole[1]], parser)
    return _REFERENCE.sub(lambda m: repr(_replaced(parser[m[1]], parser)) if m[1] in parser else m[0], item)

"""What a bundle's classes are, in codes that other programs know, and who it is: what DICOM wants said of labels.

Metadata may say it in `network_data_format.outputs.pred.class_codes`, by the classes' names in `channel_def`:

    "class_codes": {"left_kidney": {
      "category": ["91723000", "SCT", "Anatomical Structure"],
      "type": ["64033007", "SCT", "Kidney"],
      "modifiers": [["7771000", "SCT", "Left"]]
    }}

What it does not say, the class's name does where it is an organ's; the rest has codes of the bundle's own. Codes go by
name so that a copy whose channels are changed never has one class's code for another.
"""

from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from monai_unetfamily.bundles.metadata import METADATA, class_names, read_metadata
from monai_unetfamily.volumes.segment_codes import Code, Codes, Maker, known_codes, own_codes

_LENGTHS = (16, 16, 64)  # characters of value, scheme, meaning


def class_codes(root: Path) -> dict[int, Codes]:
    """Label id -> what the class is, of every class but the background.

    Raises:
        ValueError: metadata that `class_names` refuses, or `class_codes` of another form.

    >>> from monai_unetfamily.bundles.metadata import find_bundle
    >>> class_codes(find_bundle("phantom_ct"))[1].type
    Code(value='10200004', scheme='SCT', meaning='Liver')
    """
    names, metadata = class_names(root), read_metadata(root)
    said = metadata["network_data_format"]["outputs"]["pred"].get("class_codes", {})
    try:
        codes = {name: _codes(**row) for name, row in said.items()}
    except (TypeError, ValueError, AttributeError) as error:
        raise ValueError(
            f"{root / 'configs' / METADATA}: class_codes: {error}; of a class a category, a type and modifiers are "
            "allowed, each [value, scheme, meaning] of at most 16, 16 and 64 characters; correct it."
        ) from error
    owner = str(metadata.get("name", root.name))
    return {k: codes.get(name) or known_codes(name) or own_codes(owner, name) for k, name in names.items() if k}


def maker_of(roots: Sequence[Path], hashes: Sequence[str]) -> Maker:
    """The maker of what bundles predict together; its codes are the first one's.

    Args:
        roots: of their folders.
        hashes: of their contents, as `records.hash_bundle` takes them.

    Raises:
        ValueError: metadata that `class_codes` refuses.

    >>> from monai_unetfamily.bundles.metadata import find_bundle
    >>> maker = maker_of([find_bundle("hippocampus_mr")], ["0" * 64])
    >>> maker.name, maker.version
    ('hippocampus_mr', '0.2.0')
    """
    names = " + ".join(root.absolute().name for root in roots)
    versions = " + ".join(str(read_metadata(root).get("version", "unknown")) for root in roots)
    whole = hashes[0] if len(hashes) == 1 else sha256("".join(hashes).encode()).hexdigest()
    return Maker(names, versions, whole, class_codes(roots[0]))


def _codes(category: Any, type: Any, modifiers: Any = ()) -> Codes:
    return Codes(_code(category), _code(type), tuple(_code(modifier) for modifier in modifiers))


def _code(parts: Any) -> Code:
    fits = isinstance(parts, list) and len(parts) == len(_LENGTHS) and all(isinstance(part, str) for part in parts)
    if not fits or not all(0 < len(part) <= most for part, most in zip(parts, _LENGTHS, strict=True)):
        raise ValueError(f"got {parts!r}")
    return Code(*parts)

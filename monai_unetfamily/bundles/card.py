"""What a bundle says of itself, for a reader who has to choose one: read without torch or MONAI, nothing is run."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monai_unetfamily.bundles.config import resolved_part, takes_only_2d_images
from monai_unetfamily.bundles.config_files import inside
from monai_unetfamily.bundles.metadata import (
    METADATA,
    class_names,
    image_format,
    read_metadata,
    trained_only_on_phantoms,
    weights_file,
)

_BY_SLICES = ("WindowInferer", "SliceInferer")  # they slide a 2-D network over volumes
_FACTORY = "create_network"
_BEGINNING = 4096  # letters of a LICENSE, of which two lines are read


@dataclass(frozen=True)
class Card:
    """A bundle in words.

    Attributes:
        root: its folder.
        name: the metadata's, or the folder's.
        task, intended_use: the metadata's; empty where it has none.
        classes: label id -> name, with 0 for a background alone.
        modality: "CT", "MR"; empty where it is unknown.
        axes: of the images that it takes, 2 or 3; volumes under a 2-D network have 3.
        channels: what each channel of the image is, in order.
        network: the class of its network, or its name in this family; empty where an expression makes it.
        license: in one line; empty where there is no LICENSE.
        phantoms_only: it knows no patient.
        weights: whether they are there.
        pictures: it takes PNG and TIFF alone.
    """

    root: Path
    name: str
    task: str
    classes: dict[int, str]
    modality: str
    axes: int
    channels: tuple[str, ...]
    network: str
    license: str
    phantoms_only: bool
    weights: bool
    pictures: bool
    intended_use: str


def read_card(root: Path) -> Card:
    """Read a bundle's card from its metadata, its inference config and its LICENSE.

    Raises:
        FileNotFoundError: it has no metadata or no inference config.
        ValueError: one of the two cannot be read, or the metadata does not state image and classes.

    >>> from monai_unetfamily.bundles import find_bundle
    >>> card = read_card(find_bundle("hippocampus_mr"))
    >>> card.name, card.modality, card.axes, card.network, card.license
    ('Hippocampus in T1-weighted MR', 'MR', 3, 'PlainUNet', 'Apache License 2.0')
    """
    metadata, pictures = read_metadata(root), takes_only_2d_images(root)
    return Card(
        root=root,
        name=_text(metadata, "name") or root.resolve().name,
        task=_text(metadata, "task"),
        classes=class_names(root),
        modality=_modality(root),
        axes=2 if pictures else _axes(root),
        channels=_channels(root),
        network=_network(root),
        license=_license(root),
        phantoms_only=trained_only_on_phantoms(root),
        weights=weights_file(root).is_file(),
        pictures=pictures,
        intended_use=_text(metadata, "intended_use"),
    )


def _text(metadata: dict[str, Any], key: str) -> str:
    value = metadata.get(key)
    return " ".join(value.split()) if isinstance(value, str) else ""


def _image(root: Path) -> dict[str, Any]:
    image_format(root)  # says what is missing
    image: dict[str, Any] = read_metadata(root)["network_data_format"]["inputs"]["image"]
    return image


def _modality(root: Path) -> str:
    modality = _text(_image(root), "modality")
    return "" if modality.casefold() in ("n/a", "na", "none", "unknown") else modality


def _axes(root: Path) -> int:
    inferer = str(_target(resolved_part(root, "inferer")))
    return 2 if image_format(root).axes == 2 and inferer not in _BY_SLICES else 3


def _channels(root: Path) -> tuple[str, ...]:
    """The names of the image's channels in `channel_def`, in the order of its numbers; "" for those without."""
    try:
        names = {int(channel): str(name) for channel, name in (_image(root).get("channel_def") or {}).items()}
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{root / 'configs' / METADATA}: network_data_format.inputs.image.channel_def maps no channels to names; "
            'write it as {"0": "CT"}.'
        ) from error
    return tuple(names.get(channel, "") for channel in image_format(root).seen)


def _network(root: Path) -> str:
    definition = resolved_part(root, "network_def")
    target = _target(definition)
    return str(definition.get("name", "")) if target == _FACTORY else target


def _target(definition: Any) -> str:
    """The last word of a `_target_`."""
    match definition:
        case {"_target_": str(target)}:
            return target.split(".")[-1]
    return ""


def _license(root: Path) -> str:
    """The first line of LICENSE, with its version where the next line begins with one."""
    file = inside(root, root / "LICENSE")
    if not file.is_file():
        return ""
    with file.open(encoding="utf-8", errors="replace") as stream:
        lines = [line.strip() for line in stream.read(_BEGINNING).splitlines() if line.strip()]
    name, following, *_ = *lines, "", ""
    version = following.removeprefix("Version ").split(",")[0] if following.startswith("Version ") else ""
    return f"{name} {version}".strip()

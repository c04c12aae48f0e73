"""Find bundles, and read their metadata: image format, classes, codes. Loads neither torch nor MONAI."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from monai_unetfamily.bundles.config_files import inside, read_object
from monai_unetfamily.io import hash_files, number_classes
from monai_unetfamily.io.dicom import Code, Codes, Maker, known_codes, own_codes

# Where bundles are, and what their metadata says of image and classes: read without torch or MONAI.


METADATA = "metadata.json"
WEIGHTS = "model.pt"  # the network alone, what prediction loads
SAFE_WEIGHTS = "model.safetensors"  # the same by another writer: loaded where there is no model.pt
INSTALLED = Path(__file__).parents[1] / "configs"
SHIPPED = INSTALLED if INSTALLED.is_dir() else Path(__file__).parents[2] / "configs"  # the latter in a checkout


@dataclass(frozen=True)
class ImageFormat:
    """What the metadata says of the image.

    Attributes:
        axes: spatial ones of a window.
        channels: of the image itself.
        low, high: the range of its values.
        neighbours: slices from either side that a 2-D network sees as further channels.
    """

    axes: int
    channels: int
    low: float
    high: float
    neighbours: int = 0

    @property
    def seen(self) -> range:
        """The image's own channels among all that the network sees: slice by slice, those of the middle one.

        >>> ImageFormat(axes=2, channels=2, low=0.0, high=1.0, neighbours=1).seen
        range(2, 4)
        """
        first = self.neighbours * self.channels
        return range(first, first + self.channels)

    @property
    def network_channels(self) -> int:
        """All channels that the network sees."""
        return (2 * self.neighbours + 1) * self.channels


def shipped_bundles() -> list[Path]:
    """The folders of the bundles that ship with the package, by name; recipes, which have no weights, among them.

    >>> [folder.name for folder in shipped_bundles()]
    ['abdomen_ct', 'heart_mr', 'hippocampus_mr', 'phantom_2d', 'phantom_ct', 'spleen_ct']
    """
    return sorted(file.parents[1] for file in SHIPPED.glob(f"*/configs/{METADATA}"))


def find_bundle(name: str | Path) -> Path:
    """The folder of a bundle: a path as it is, or else the name of one that ships with the package.

    Raises:
        FileNotFoundError: where there is neither; the message lists the shipped ones.

    >>> find_bundle("hippocampus_mr").name
    'hippocampus_mr'
    """
    for folder in (Path(name), *_shipped(name)):
        if (folder / "configs" / METADATA).is_file():
            return folder
    shipped = ", ".join(folder.name for folder in shipped_bundles())
    raise FileNotFoundError(
        f"{name}: no bundle there (no configs/{METADATA}); give a bundle's folder, or a shipped one's name: {shipped}."
    )


def find_weights(name: Path) -> Path:
    """The file of weights that a path means: itself, or that of a bundle, given by its folder or a shipped name.

    Raises:
        FileNotFoundError: where there is neither.

    >>> find_weights(Path("hippocampus_mr")).name
    'model.pt'
    """
    for file in (name, *(weights_file(folder) for folder in (name, *_shipped(name)))):
        if file.is_file():
            return file
    raise FileNotFoundError(f"{name}: no file of weights, and no bundle that has some; give one of the two.")


def weights_file(root: Path) -> Path:
    """A bundle's weights: `models/model.pt`, which training writes and MONAI's `run` reads, or `model.safetensors`.

    The latter counts where it is alone. Where there is neither, it is where the former would be.

    Raises:
        ValueError: a link that leads out of the bundle.

    >>> weights_file(find_bundle("hippocampus_mr")).name
    'model.pt'
    """
    usual, safe = (root / "models" / name for name in (WEIGHTS, SAFE_WEIGHTS))
    return inside(root, usual if usual.exists() or not safe.exists() else safe)


def _shipped(name: str | Path) -> list[Path]:
    """The shipped bundle of that name; a path to elsewhere is none."""
    return [folder for folder in shipped_bundles() if folder.name == str(name)]


def config_file(root: Path, name: str) -> Path:
    """The config `name` of a bundle, in YAML or JSON.

    Raises:
        FileNotFoundError: where the bundle has none.
        ValueError: a link that leads out of the bundle.
    """
    for suffix in (".yaml", ".yml", ".json"):
        if (file := root / "configs" / f"{name}{suffix}").is_file():
            return inside(root, file)
    raise FileNotFoundError(f"{root}: this bundle has no configs/{name}.yaml or .json; complete it.")


def read_metadata(root: Path) -> dict[str, Any]:
    """A bundle's metadata.

    Raises:
        FileNotFoundError: where there is none.
        ValueError: where `read_object` refuses it.
    """
    file = root / "configs" / METADATA
    if not file.is_file():
        raise FileNotFoundError(f"{root}: this bundle has no configs/{METADATA}; give a bundle's folder.")
    return read_object(root, file)


def class_names(root: Path) -> dict[int, str]:
    """Label id -> name of a bundle's classes, from its metadata's `channel_def`, by the rule of `number_classes`.

    Raises:
        ValueError: where the metadata has none, or none that can be meant.

    >>> class_names(find_bundle("hippocampus_mr"))
    {0: 'background', 1: 'anterior', 2: 'posterior'}
    """
    metadata, file = read_metadata(root), root / "configs" / METADATA
    try:
        channels = metadata["network_data_format"]["outputs"]["pred"]["channel_def"]
        channels = {int(channel): str(name) for channel, name in channels.items()}
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(
            f"{file}: has no network_data_format.outputs.pred.channel_def (channel: name); add it."
        ) from error
    try:
        return number_classes(channels)
    except ValueError as error:
        raise ValueError(f"{file}: channel_def: {error}") from error


def trained_only_on_phantoms(root: Path) -> bool:
    """Whether a bundle's metadata says "phantoms_only": it was made to be shown, and its labels of a patient are wrong.

    Raises:
        FileNotFoundError, ValueError: metadata that cannot be read.

    >>> trained_only_on_phantoms(find_bundle("phantom_ct")), trained_only_on_phantoms(find_bundle("hippocampus_mr"))
    (True, False)
    """
    return read_metadata(root).get("phantoms_only") is True


def image_shape(root: Path) -> tuple[int, ...]:
    """Voxels per axis of the image that a bundle's metadata states.

    Raises:
        ValueError: it states none in numbers.

    >>> image_shape(find_bundle("phantom_2d"))
    (128, 160)
    """
    try:
        return tuple(map(int, read_metadata(root)["network_data_format"]["inputs"]["image"]["spatial_shape"]))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{root / 'configs' / METADATA}: network_data_format.inputs.image needs a spatial_shape in numbers; add it."
        ) from error


def image_channels(root: Path) -> int:
    """Channels of the image that a bundle's metadata states.

    Raises:
        ValueError: its metadata does not say.

    >>> image_channels(find_bundle("phantom_2d"))
    1
    """
    return image_format(root).channels


def image_format(root: Path) -> ImageFormat:
    """The image that a bundle's metadata states; an empty `value_range` is no limit.

    `num_channels` counts what the network sees, as MONAI's `verify_net_in_out` takes it: the channels of the
    `neighbours` too, which this package's metadata names.

    Raises:
        ValueError: its metadata does not say.

    >>> image_format(find_bundle("phantom_2d"))
    ImageFormat(axes=2, channels=1, low=0.0, high=255.0, neighbours=0)
    """
    metadata = read_metadata(root)
    try:
        image = metadata["network_data_format"]["inputs"]["image"]
        low, high = map(float, image.get("value_range") or (-math.inf, math.inf))
        neighbours = int(image.get("neighbours", 0))
        channels, left = divmod(int(image["num_channels"]), 2 * neighbours + 1)
        if left or neighbours < 0:
            raise ValueError("slices of unlike channels")
        return ImageFormat(len(image["spatial_shape"]), channels, low, high, neighbours)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(
            f"{root / 'configs' / METADATA}: network_data_format.inputs.image needs spatial_shape, num_channels (of "
            "all slices, where it has neighbours) and a value_range of two numbers or none; add them."
        ) from error


def hash_bundle(root: Path) -> str:
    """SHA-256 of what a bundle's predictions hang on: its inference config, metadata and weights."""
    return hash_files([config_file(root, "inference"), root / "configs" / METADATA, weights_file(root)])


# What a bundle's classes are, in codes that other programs know, and who it is: what DICOM wants said of labels.
#
# Metadata may say it in `network_data_format.outputs.pred.class_codes`, by the classes' names in `channel_def`:
#
#     "class_codes": {"left_kidney": {
#       "category": ["91723000", "SCT", "Anatomical Structure"],
#       "type": ["64033007", "SCT", "Kidney"],
#       "modifiers": [["7771000", "SCT", "Left"]]
#     }}
#
# What it does not say, the class's name does where it is an organ's; the rest has codes of the bundle's own. Codes go
# by name so that a copy whose channels are changed never has one class's code for another.

_LENGTHS = (16, 16, 64)  # characters of value, scheme, meaning


def class_codes(root: Path) -> dict[int, Codes]:
    """Label id -> what the class is, of every class but the background.

    Raises:
        ValueError: metadata that `class_names` refuses, or `class_codes` of another form.

    >>> from monai_unetfamily.bundles import find_bundle
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

    >>> from monai_unetfamily.bundles import find_bundle
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

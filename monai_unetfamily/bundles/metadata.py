"""Where bundles are, and what their metadata says of image and classes: read without torch or MONAI."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monai_unetfamily.bundles.reading import inside, read_object
from monai_unetfamily.volumes.masks import number_classes

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


def knows_phantoms_alone(root: Path) -> bool:
    """Whether a bundle's metadata says "phantoms_only": it was made to be shown, and its labels of a patient are wrong.

    Raises:
        FileNotFoundError, ValueError: metadata that cannot be read.

    >>> knows_phantoms_alone(find_bundle("phantom_ct")), knows_phantoms_alone(find_bundle("hippocampus_mr"))
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

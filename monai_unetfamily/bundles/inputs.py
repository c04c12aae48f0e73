"""What a bundle takes: volumes or pictures, and pictures of how many channels and which values."""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from monai_unetfamily.bundles.bundle import METADATA, read_metadata, reader_name
from monai_unetfamily.volumes.readers import PictureReader
from monai_unetfamily.volumes.sources import is_picture, read_image


@dataclass(frozen=True)
class _Image:
    """What the metadata says of the image: its spatial axes, its channels, and its values' range."""

    axes: int
    channels: int
    low: float
    high: float


def image_shape(root: Path) -> tuple[int, ...]:
    """Voxels per axis of the image that a bundle's metadata states.

    Raises:
        ValueError: it states none in numbers.

    >>> from monai_unetfamily.bundles.bundle import find_bundle
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

    >>> from monai_unetfamily.bundles.bundle import find_bundle
    >>> image_channels(find_bundle("phantom_2d"))
    1
    """
    return _stated(root).channels


def check_source(root: Path, path: Path) -> None:
    """Refuse a file as `check_kind` and, of pictures, `check_values` refuse it.

    Raises what they raise, and what `read_image` raises of pictures.

    >>> from monai_unetfamily.bundles.bundle import find_bundle
    >>> check_source(find_bundle("hippocampus_mr"), Path("mr.nii.gz"))
    """
    check_kind(root, path, is_picture(path))
    if is_picture(path):
        values, _ = read_image(path)
        check_values(root, path, values[None] if values.ndim == 2 else np.moveaxis(values, -1, 0))


def check_kind(root: Path, path: Path, picture: bool) -> None:
    """Refuse a picture or a volume where the bundle is for the other, and pictures that its own reader would turn.

    Raises:
        ValueError: says what to do; the metadata does not say.
        FileNotFoundError: the bundle has no inference config.
    """
    ours = reader_name(root) == PictureReader.__name__
    if picture and _stated(root).axes != 2:
        raise ValueError(
            f"{path}: is a picture, and {root.name} is for volumes; give NIfTI files, or choose a 2-D bundle."
        )
    if picture and not ours:
        raise ValueError(
            f"{path}: {root.name} learned from pictures that its reader turned; name {PictureReader.__module__}."
            f"{PictureReader.__name__} in its LoadImaged, and train it anew."
        )
    if ours and not picture:
        raise ValueError(
            f"{path}: is no PNG or TIFF, and {root.name} takes these alone; convert it, or choose a bundle for volumes."
        )


def check_values(root: Path, path: Path, values: NDArray[np.float32]) -> None:
    """Refuse a picture (C, rows, columns) unlike what the bundle's metadata states.

    Its `network_data_format` has `num_channels`, and the `value_range` of values as stored; an empty one is no limit.

    Raises:
        ValueError: says what to do.
    """
    stated = _stated(root)
    if len(values) != stated.channels:
        raise ValueError(
            f"{path}: has {len(values)} channels, and {root.name} takes {stated.channels} (1 is greyscale, 3 RGB); "
            "convert it, or choose another bundle."
        )
    if values.min() < stated.low or values.max() > stated.high:
        raise ValueError(
            f"{path}: has values from {values.min():g} to {values.max():g}, and {root.name} takes {stated.low:g} to "
            f"{stated.high:g}; scale it as the bundle's own pictures were, or choose another bundle."
        )


def _stated(root: Path) -> _Image:
    metadata = read_metadata(root)
    try:
        image = metadata["network_data_format"]["inputs"]["image"]
        low, high = map(float, image.get("value_range") or (-math.inf, math.inf))
        return _Image(len(image["spatial_shape"]), int(image["num_channels"]), low, high)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(
            f"{root / 'configs' / METADATA}: network_data_format.inputs.image needs spatial_shape, num_channels and a "
            "value_range of two numbers or none; add them."
        ) from error

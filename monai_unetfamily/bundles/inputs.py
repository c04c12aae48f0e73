"""What a bundle takes: volumes or pictures, and pictures of how many channels and which values."""

from collections.abc import Sequence
from math import prod
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from monai_unetfamily.bundles.metadata import image_format
from monai_unetfamily.bundles.references import PICTURE_READER, takes_pictures_alone
from monai_unetfamily.volumes.nifti import open_volume
from monai_unetfamily.volumes.sources import is_picture, read_channels


def check_source(root: Path, paths: Sequence[Path]) -> None:
    """Refuse an image, whose channels may be files of their own, as `check_kind` and, of pictures, `check_values` do.

    Raises:
        FileNotFoundError, ValueError: what they raise, what `open_volume` raises of volumes and `read_channels` of
            pictures, and another number of channels than the bundle takes.

    >>> from monai_unetfamily.bundles.metadata import find_bundle
    >>> check_source(find_bundle("hippocampus_mr"), [Path("xray.png")])
    Traceback (most recent call last):
    ValueError: xray.png: is a picture, and hippocampus_mr is for volumes; ...
    """
    for path in paths:
        check_kind(root, path, is_picture(path))
    if is_picture(paths[0]):
        values, _ = read_channels(paths)
        check_values(root, paths[0], values)
        return
    got, needed = sum(prod(open_volume(path, channels=True).shape[3:]) for path in paths), image_format(root).channels
    if got != needed:
        ways = "a file a channel, or a 4-D file"
        raise ValueError(f"{paths[0]}: has {got} channels, and {root.name} takes {needed}; give {ways} of as many.")


def check_kind(root: Path, path: Path, picture: bool) -> None:
    """Refuse a picture or a volume where the bundle is for the other, and pictures that its own reader would turn.

    Raises:
        ValueError: says what to do; the metadata does not say.
        FileNotFoundError: the bundle has no inference config.
    """
    ours = takes_pictures_alone(root)
    if picture and image_format(root).axes != 2:
        raise ValueError(
            f"{path}: is a picture, and {root.name} is for volumes; give NIfTI files, or choose a 2-D bundle."
        )
    if picture and not ours:
        raise ValueError(
            f"{path}: {root.name} learned from pictures that its reader turned; name monai_unetfamily.volumes.readers."
            f"{PICTURE_READER} in its LoadImaged, and train it anew."
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
    stated = image_format(root)
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

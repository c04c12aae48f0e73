"""Overlapping classes: a voxel may be whole tumour and tumour core at once, so each class has a mask of its own.

One rule numbers classes everywhere, in files, tables and pictures: where channel 0 is the background, channel c is
label id c; where there is no background, channel c is label id c + 1. Classes without a background overlap (two or more
of them), and their masks are held in one array (X, Y, Z, C) or one file a class, never in one label map.
"""

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from unicodedata import normalize

import numpy as np
from nibabel.nifti1 import Nifti1Extension, Nifti1Pair
from numpy.typing import NDArray

from monai_unetfamily.io.atomic import atomic_directory
from monai_unetfamily.io.formats import is_image2d, is_itk
from monai_unetfamily.io.image2d import write_label_image2d
from monai_unetfamily.io.label_table import Label, mask_table, table_extensions
from monai_unetfamily.io.nifti import Labels, label_image, open_volume, save_image, write_labels

BACKGROUND = "background"
_COMMENT = 6  # NIfTI's code for an extension of plain text
_LONGEST = 100  # characters of a file's name: with a number and a suffix below every file system's limit


def number_classes(channels: Mapping[int, str]) -> dict[int, str]:
    """Label id -> name of channels 0, 1, ...: a first one named "background" has id 0, any other id 1.

    Raises:
        ValueError: channels that are not numbered so, no class among them, or names that would steer a terminal.

    >>> number_classes({0: "background", 1: "liver"}), number_classes({0: "whole tumour", 1: "core"})
    ({0: 'background', 1: 'liver'}, {1: 'whole tumour', 2: 'core'})
    """
    if sorted(channels) != list(range(len(channels))):
        raise ValueError(f"got channels {sorted(channels)}; 0, 1, 2, ... are allowed, number them so")
    if odd := [name for name in channels.values() if not name.isprintable()]:
        raise ValueError(f"got the name {odd[0]!r}; letters, digits and the like are allowed, rename it")
    first = 0 if channels.get(0, "").casefold() == BACKGROUND else 1
    names = {channel + first: channels[channel] for channel in sorted(channels)}
    if not set(names) - {0}:
        raise ValueError(f"got channels {dict(channels)}; a class besides the background is needed, name it")
    return names


def may_overlap(names: Mapping[int, str]) -> bool:
    """Whether classes (label id -> name) are two or more without a background.

    >>> may_overlap({0: "background", 1: "liver"}), may_overlap({1: "nodule"}), may_overlap({1: "tumour", 2: "core"})
    (False, False, True)
    """
    return 0 not in names and len(names) > 1


def mask_of(labels: Labels, label: int, axes: int = 3) -> NDArray[np.bool_]:
    """The mask of one label id, of a label map of so many axes or of masks with one axis more.

    >>> mask_of(np.array([[[0, 2]]]), 2).tolist(), mask_of(np.array([[[[0, 1], [1, 1]]]]), 2).tolist()
    ([[[False, True]]], [[[True, True]]])
    """
    return labels[..., label - 1] > 0 if labels.ndim > axes else labels == label


def write_masks(masks: Labels, names: Mapping[int, str], like: Path | Nifti1Pair, path: Path) -> None:
    """Write masks as one 4-D NIfTI (X, Y, Z, C) on the grid of the volume `like`, all of it or nothing.

    Affine, sform and qform codes, unit of length and description are those of `like`, as `nifti.write_labels` keeps
    them. The fourth axis counts classes, not seconds: its step is 1, without a unit. Header extensions say which
    channel is which: names and colours as `label_table.table_extensions` has them, and plain text (code 6, which
    `read_channel_names` reads), `{"channel_def": {"0": "liver", ...}}`.

    Args:
        masks: (X, Y, Z, C), 0 or 1; channel c is label id c + 1.
        names: label id -> name, of each channel.
        like: a NIfTI file or an image of nibabel's.
        path: ends in `.nii.gz` or `.nii`; an existing file is replaced.

    Raises:
        ValueError: other values, another shape, another file name, an unusable `like`, which a picture is.
        OSError: the file cannot be written; what was there before is untouched.

    >>> import nibabel as nib
    >>> from tempfile import TemporaryDirectory
    >>> ct = nib.Nifti1Image(np.zeros((2, 3, 4), np.int16), np.diag([2.0, 2.0, 5.0, 1.0]))
    >>> with TemporaryDirectory() as folder:
    ...     write_masks(np.ones((2, 3, 4, 2), int), {1: "tumour", 2: "core"}, ct, Path(folder) / "a.nii.gz")
    ...     image = open_volume(Path(folder) / "a.nii.gz", channels=True)
    >>> image.shape, read_channel_names(image)
    ((2, 3, 4, 2), {1: 'tumour', 2: 'core'})
    """
    if isinstance(like, Path) and is_image2d(like):
        classes = [name for _, name in sorted(names.items())]
        raise ValueError(f"{like}: got classes {classes} that may overlap; a PNG holds one label map, split them")
    source = open_volume(like) if isinstance(like, Path) else like
    _require_masks(masks, (*source.shape[:3], len(names)), path)
    image = label_image(masks, source)
    image.header["pixdim"][4] = 1
    image.header["toffset"] = 0
    image.header["xyzt_units"] = source.header["xyzt_units"] % 8  # its unit of length alone
    image.header.extensions.extend(table_extensions([mask_table(*item) for item in sorted(names.items())]))
    channels = {str(label - 1): name for label, name in sorted(names.items())}
    text = json.dumps({"channel_def": channels}).encode()
    image.header.extensions.append(Nifti1Extension(_COMMENT, text))
    save_image(image, path)


def read_channel_names(image: Nifti1Pair) -> dict[int, str]:
    """Label id -> name that `write_masks` left in a header; empty where it left none.

    >>> import nibabel as nib
    >>> read_channel_names(nib.Nifti1Image(np.zeros((2, 3, 4, 2), np.int16), np.eye(4)))
    {}
    """
    for extension in image.header.extensions:
        if extension.get_code() == _COMMENT and (names := _parse(extension.get_content())):
            return names
    return {}


def require_channel_names(path: Path, names: Mapping[int, str]) -> None:
    """Refuse a file whose header names a channel otherwise than `names` (label id -> name), case aside.

    Pictures, MetaImage and NRRD name none.

    Raises:
        ValueError: says which.
    """
    if is_image2d(path) or is_itk(path):
        return
    for label, name in read_channel_names(open_volume(path, channels=True)).items():
        if name.casefold() != names.get(label, name).casefold():
            got = f"its header names channel {label - 1} {name!r}"
            raise ValueError(f"{path}: {got}; {dict(names)} are meant (channel c is id c + 1), bring them in order")


def write_separate_masks(labels: Labels, names: Mapping[int, str], like: Path | Nifti1Pair, folder: Path) -> None:
    """Write one mask (0 or 1) for each class as `folder/<class>.nii.gz`; the folder appears whole or not at all.

    Each file is what `nifti.write_labels` makes of the mask, with its class's name and colour in the header, or a PNG
    where `like` is a picture; a class that is nowhere gets an empty one. `file_names` says how they are named.

    Args:
        labels: a label map (*spatial), or masks (*spatial, C).
        names: label id -> name; 0, the background, gets no file.
        like: a NIfTI file, an image of nibabel's, or a picture.
        folder: is made; it must not hold anything yet.

    Raises:
        ValueError: labels of another shape, an unusable `like`.
        FileExistsError: the folder holds something.
        OSError: the folder cannot be written.

    >>> import nibabel as nib
    >>> from tempfile import TemporaryDirectory
    >>> ct = nib.Nifti1Image(np.zeros((2, 3, 4), np.int16), np.eye(4))
    >>> with TemporaryDirectory() as room:
    ...     write_separate_masks(np.ones((2, 3, 4), int), {0: "background", 1: "left lung"}, ct, Path(room) / "ct")
    ...     [file.name for file in (Path(room) / "ct").iterdir()]
    ['left_lung.nii.gz']
    """
    write: Callable[[Labels, Path, dict[int, Label]], None]
    if isinstance(like, Path) and is_image2d(like):
        axes, suffix, write = 2, ".png", lambda mask, path, _: write_label_image2d(mask, path)
    else:
        source = open_volume(like) if isinstance(like, Path) else like
        axes, suffix, write = 3, ".nii.gz", lambda mask, path, table: write_labels(mask, source, path, table)
    with atomic_directory(folder) as directory:
        for label, name in file_names(names).items():
            mask = mask_of(labels, label, axes).astype(np.uint8)
            write(mask, directory / f"{name}{suffix}", mask_table(label, names[label]))


def file_names(names: Mapping[int, str]) -> dict[int, str]:
    """Label id -> file name without suffix, of every class but the background; no two are alike on any system.

    Letters, digits, "-", "+" and "_" stay, any other run of characters becomes "_". Where two names would then differ
    in nothing or in case alone, or one would have no letter or digit left, the label id goes before each.

    >>> file_names({0: "background", 1: "left lung", 2: "tumour (core)"})
    {1: 'left_lung', 2: 'tumour_core'}
    >>> file_names({1: "T1", 2: "t1", 3: "?"})
    {1: '1_T1', 2: '2_t1', 3: '3_'}
    """
    safe = {
        label: re.sub(r"[^\w+-]+", "_", normalize("NFC", name)).strip("_")[:_LONGEST]
        for label, name in names.items()
        if label
    }
    if all(safe.values()) and len({name.casefold() for name in safe.values()}) == len(safe):
        return safe
    return {label: f"{label}_{name}" for label, name in safe.items()}


def _parse(text: bytes) -> dict[int, str]:
    try:
        channels = json.loads(text)["channel_def"]
        return number_classes({int(channel): str(name) for channel, name in channels.items()})
    except (ValueError, KeyError, TypeError, AttributeError):  # somebody else's comment
        return {}


def _require_masks(masks: Labels, shape: tuple[int, ...], path: Path) -> None:
    if masks.shape != shape:
        got = f"got masks of shape {masks.shape}"
        raise ValueError(f"{path}: {got}; {shape} is allowed, the source's grid with a channel for each class")
    if masks.dtype.kind not in "iu" or masks.min() < 0 or masks.max() > 1:
        raise ValueError(f"{path}: got masks of type {masks.dtype}; integers 0 and 1 are allowed, threshold them first")

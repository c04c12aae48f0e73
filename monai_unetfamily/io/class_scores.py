"""Class scores on a volume's grid, in a file that is filled part by part: no memory holds them all."""

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from io import BufferedWriter
from pathlib import Path
from typing import Any

import numpy as np
from nibabel.nifti1 import Nifti1Extension, Nifti1Header, Nifti1Image, Nifti1Pair
from nibabel.nifti2 import Nifti2Header, Nifti2Image
from numpy.typing import NDArray

from monai_unetfamily.io.atomic import atomic_file

Write = Callable[[tuple[slice, ...], int, NDArray[np.floating[Any]]], None]

_STEPS = 255  # of a score from 0 to 1: what a byte holds
_COMMENT = 6  # NIfTI's code for an extension of plain text


@contextmanager
def score_file(path: Path, like: Nifti1Pair, names: Mapping[int, str]) -> Iterator[Write]:
    """Make an uncompressed NIfTI of scores (X, Y, Z, C), which appears whole when the block ends well, or not at all.

    Voxels are bytes with the slope 1/255, so a reader sees scores from 0 to 1, off by 0.002 at most. Affine, sform and
    qform codes, unit of length and description are those of `like`. A header extension of plain text says which channel
    is which, as that of `io.write_masks`. The room on the disk is taken at the beginning.

    Args:
        path: ends in `.nii`; an existing file is replaced.
        like: the volume, an image of nibabel's; its voxels are not needed.
        names: label id -> name, of each channel.

    Yields:
        what takes a part of the volume (one slice per axis), a channel, and its scores there.

    Raises:
        ValueError: another file name.
        OSError: the file cannot be written, or the disk has no room for it; what was there before is untouched.

    >>> import nibabel as nib
    >>> from tempfile import TemporaryDirectory
    >>> ct = Nifti1Image(np.zeros((2, 3, 4), np.int16), np.diag([2.0, 2.0, 5.0, 1.0]))
    >>> with TemporaryDirectory() as folder:
    ...     with score_file(Path(folder) / "a.nii", ct, {0: "background", 1: "liver"}) as write:
    ...         write((slice(0, 2), slice(0, 3), slice(1, 2)), 1, np.full((2, 3, 1), 0.6))
    ...     scores = nib.load(Path(folder) / "a.nii").get_fdata()
    >>> scores.shape, scores[0, 0, :2, 1].round(3).tolist()
    ((2, 3, 4, 2), [0.0, 0.6])
    """
    if path.suffix.lower() != ".nii":
        raise ValueError(f"{path}: cannot name scores; .nii is allowed, uncompressed: rename it")
    header = _header(like, names)
    shape, start = header.get_data_shape(), header.get_data_offset()
    with atomic_file(path) as stream:
        header.write_to(stream)
        stream.flush()
        _reserve(stream, start + int(np.prod(shape)))
        voxels = np.memmap(stream.name, np.uint8, "r+", start, shape, order="F")

        def write(where: tuple[slice, ...], channel: int, scores: NDArray[np.floating[Any]]) -> None:
            part: tuple[slice | int, ...] = (*where, channel)
            voxels[part] = np.rint(np.clip(scores, 0, 1) * _STEPS)

        yield write
        voxels.flush()


def _header(like: Nifti1Pair, names: Mapping[int, str]) -> Nifti1Header:
    header = like.header.copy()
    header.extensions.clear()
    header["cal_min"] = header["cal_max"] = header["toffset"] = 0
    single = Nifti2Image if isinstance(header, Nifti2Header) else Nifti1Image
    no_voxels = np.broadcast_to(np.uint8(0), (*like.shape[:3], len(names)))
    header = single(no_voxels, header.get_best_affine(), header, dtype=np.uint8).header
    header["pixdim"][4] = 1  # a class
    header["xyzt_units"] = like.header["xyzt_units"] % 8  # its unit of length alone
    header.set_slope_inter(1 / _STEPS, 0)
    channels = {str(channel): name for channel, (_, name) in enumerate(sorted(names.items()))}
    header.extensions.append(Nifti1Extension(_COMMENT, json.dumps({"channel_def": channels}).encode()))
    header.set_data_offset(header.single_vox_offset + header.extensions.get_sizeondisk())
    return header


def _reserve(stream: BufferedWriter, size: int) -> None:
    """Without it a disk that becomes full would kill the process that writes through the map."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(stream.fileno(), 0, size)
    else:
        stream.truncate(size)

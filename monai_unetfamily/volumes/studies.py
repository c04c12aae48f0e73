"""What is to be segmented, and what was read of it."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from nibabel.nifti1 import Nifti1Pair
from numpy.typing import NDArray


@dataclass(frozen=True)
class Study:
    """One image to segment: what its outputs are called, and the files that hold it."""

    name: str  # of its outputs, no suffix; may hold "/" (BIDS: sub-01/anat/sub-01_T1w)
    files: tuple[Path, ...]  # one a channel; of a DICOM series its slices, sorted by position
    kind: str  # "nifti", "itk" (.mha .mhd .nrrd), "dicom", "picture"
    channel_dim: int | None = None  # axis of a 4-D file that counts channels
    notes: tuple[str, ...] = ()  # one line each: what was chosen or passed over; goes into the report


@dataclass(frozen=True)
class Image:
    """What a study holds."""

    voxels: NDArray[np.float32]  # (C, X, Y, Z), or (C, rows, columns) of a picture
    grid: Nifti1Pair | None  # its header and affine are those of the label map; no voxels needed; None: picture
    notes: tuple[str, ...] = ()  # e.g. "sform and qform disagree: the sform is used"

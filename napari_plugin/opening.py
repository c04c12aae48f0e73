"""Files as they are opened to be looked at: voxels as stored, the header they lie under, what was odd about either.

What cannot be segmented may still be looked at: NaN, pictures and series of volumes open here.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from nibabel.nifti1 import Nifti1Pair
from numpy.typing import NDArray

from monai_unetfamily.volumes.forms import form_notes
from monai_unetfamily.volumes.nifti import open_volume, read_stored
from monai_unetfamily.volumes.sources import stem


@dataclass(frozen=True)
class Opened:
    """One image: a volume, a picture, or several volumes on one grid."""

    voxels: NDArray[Any]  # (X, Y, Z), (X, Y) of a picture, (X, Y, Z, T)
    image: Nifti1Pair  # header and affine
    name: str
    path: Path | None = None
    modality: str = ""  # of DICOM, as "CT"
    series: str = ""  # of DICOM: its UID
    notes: tuple[str, ...] = ()


def open_nifti(path: Path) -> Opened:
    """Open a NIfTI file; uncompressed, unscaled voxels are not read but mapped.

    Raises:
        FileNotFoundError, ValueError: what `nifti.open_volume` and `nifti.read_stored` refuse.
    """
    image = open_volume(path, channels=True, flat=True)
    voxels = read_stored(image, path)
    if np.prod(image.shape[3:]) == 1:
        voxels = voxels.reshape(image.shape[:3], order="F")
    return Opened(voxels, image, stem(path), path, notes=form_notes(image) if len(image.shape) > 2 else ())


def open_itk_file(path: Path) -> Opened:
    """Open a MetaImage or NRRD.

    Raises:
        FileNotFoundError, ValueError: what `itk.read_itk` refuses.
    """
    from monai_unetfamily.volumes.itk import read_itk_stored

    voxels, image, notes = read_itk_stored(path)
    return Opened(voxels, image, stem(path), path, notes=notes)


def open_dicom(path: Path) -> Opened:
    """Open a series: of a folder the largest axial one, the others being named in a note; of a slice its own.

    Raises:
        ValueError: no series, or series of several studies; what `dicom.read_series` refuses.
    """
    from monai_unetfamily.volumes.dicom import read_series
    from monai_unetfamily.volumes.dicom_series import choose_series, list_series

    folder = path if path.is_dir() else path.parent
    found, passed = list_series(folder)
    if path.is_file():
        found = [series for series in found if path in series.files]
    try:
        series, others = choose_series(found, passed=passed)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    voxels, image, notes = read_series(series.files)
    name = series.description or folder.resolve().name
    if path.is_file():
        passed = ()
    return Opened(voxels, image, name, path, series.modality, series.uid, (*notes, *others, *passed))

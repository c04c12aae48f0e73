"""How large a study is, by its headers alone."""

from collections.abc import Callable
from dataclasses import dataclass

import nibabel as nib
import numpy as np
from nibabel.affines import voxel_sizes
from numpy.typing import NDArray
from PIL import Image as Pictures

from monai_unetfamily.volumes.headers import MAX_VOXELS
from monai_unetfamily.volumes.reading import open_nifti, require_files
from monai_unetfamily.volumes.studies import Study


@dataclass(frozen=True)
class Probe:
    """What headers say of a study.

    Attributes:
        shape: voxels per axis, or pixels of a picture.
        spacing: their size, mm; of a picture 1.
        axes: along which of the patient's axes each of them runs most: 0 is left to right, 1 back to front, 2 up.
    """

    shape: tuple[int, ...]
    spacing: tuple[float, ...]
    axes: tuple[int, ...]


def probe_study(study: Study, max_voxels: int = MAX_VOXELS) -> Probe:
    """Look at the headers of a study; no voxel is read, so that damage further on is not seen.

    Args:
        study: of `find_studies`.
        max_voxels: the most that a file or a DICOM series may claim.

    Raises:
        FileNotFoundError, ValueError: as `reading.read_study` words it, what the header alone shows to be unreadable.

    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder) / "ct.nii.gz"
    ...     nib.save(nib.Nifti1Image(np.zeros((4, 3, 2), np.int16), np.diag([2, 2, 5, 1])), path)
    ...     probe_study(Study("ct", (path,), "nifti"))
    Probe(shape=(4, 3, 2), spacing=(2.0, 2.0, 5.0), axes=(0, 1, 2))
    """
    require_files(study)
    return _PROBES[study.kind](study, max_voxels)


def _nifti(study: Study, max_voxels: int) -> Probe:
    _, _, grid = open_nifti(study, max_voxels)[0]
    spacing = tuple(float(f"{mm:.5g}") for mm in voxel_sizes(grid.affine))
    return Probe(grid.shape[:3], spacing, _patient_axes(np.asarray(grid.affine)))


def _itk(study: Study, max_voxels: int) -> Probe:
    from monai_unetfamily.volumes.itk import open_itk

    (reader, affine), *_ = [open_itk(file, max_voxels) for file in study.files]
    return Probe(reader.GetSize(), reader.GetSpacing(), _patient_axes(affine))


def _dicom(study: Study, max_voxels: int) -> Probe:
    from monai_unetfamily.volumes.dicom import require_size
    from monai_unetfamily.volumes.dicom_slices import open_slice, sort_slices

    if study.files[0].is_dir():
        raise ValueError(study.notes[0])
    ends = [open_slice(study.files[0]), open_slice(study.files[-1])]
    _, offsets = sort_slices(ends)
    step = float(offsets[-1, 2]) / max(1, len(study.files) - 1)
    shape, spacing = (*ends[0].size, len(study.files)), (*map(float, ends[0].spacing), step)
    require_size(shape, study.files[0].parent, max_voxels)
    return Probe(shape, spacing, _patient_axes(ends[0].axes.T))


def _picture(study: Study, max_voxels: int) -> Probe:
    try:
        with Pictures.open(study.files[0]) as picture:
            columns, rows = picture.size
    except OSError as error:
        raise ValueError(f"{study.files[0]}: cannot be read as a picture; copy or export it again") from error
    return Probe((rows, columns), (1.0, 1.0), (0, 1))


def _patient_axes(affine: NDArray[np.float64]) -> tuple[int, ...]:
    square = np.eye(4)
    square[:3, :3] = affine[:3, :3]
    return tuple(int(axis) for axis in nib.io_orientation(square)[:, 0])


_PROBES: dict[str, Callable[[Study, int], Probe]] = {"nifti": _nifti, "itk": _itk, "dicom": _dicom, "picture": _picture}

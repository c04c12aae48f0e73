"""How large a study is, by its headers alone."""

from collections.abc import Callable
from dataclasses import dataclass

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pictures

from monai_unetfamily.volumes.nifti import open_volume
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


def probe_study(study: Study) -> Probe:
    """Look at the headers of a study; no voxel is read, so that damage further on is not seen.

    Raises:
        FileNotFoundError, ValueError: what the header alone shows to be unreadable.

    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder) / "ct.nii.gz"
    ...     nib.save(nib.Nifti1Image(np.zeros((4, 3, 2), np.int16), np.diag([2, 2, 5, 1])), path)
    ...     probe_study(Study("ct", (path,), "nifti"))
    Probe(shape=(4, 3, 2), spacing=(2.0, 2.0, 5.0), axes=(0, 1, 2))
    """
    return _PROBES[study.kind](study)


def _nifti(study: Study) -> Probe:
    image = open_volume(study.files[0], channels=True)
    axis = None if study.channel_dim is None else study.channel_dim % 4
    axes = [a for a in range(image.ndim) if a != axis][:3]
    zooms = image.header.get_zooms()
    shape, spacing = tuple(image.shape[a] for a in axes), tuple(float(f"{zooms[a]:.5g}") for a in axes)
    return Probe(shape, spacing, _patient_axes(np.asarray(image.affine)))


def _itk(study: Study) -> Probe:
    import SimpleITK as sitk

    reader = sitk.ImageFileReader()
    reader.SetFileName(str(study.files[0]))
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        raise ValueError(f"{study.files[0]}: its header cannot be read; copy or export it again") from error
    return Probe(reader.GetSize(), reader.GetSpacing(), _patient_axes(np.reshape(reader.GetDirection(), (3, 3))))


def _dicom(study: Study) -> Probe:
    from monai_unetfamily.volumes.dicom_slices import open_slice, sort_slices

    if study.files[0].is_dir():
        raise ValueError(study.notes[0])
    ends = [open_slice(study.files[0]), open_slice(study.files[-1])]
    _, offsets = sort_slices(ends)
    step = float(offsets[-1, 2]) / max(1, len(study.files) - 1)
    shape, spacing = (*ends[0].size, len(study.files)), (*map(float, ends[0].spacing), step)
    return Probe(shape, spacing, _patient_axes(ends[0].axes.T))


def _picture(study: Study) -> Probe:
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


_PROBES: dict[str, Callable[[Study], Probe]] = {"nifti": _nifti, "itk": _itk, "dicom": _dicom, "picture": _picture}

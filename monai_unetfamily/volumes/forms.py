"""What a NIfTI header leaves open about where its voxels lie, in words for a report."""

import numpy as np
from nibabel.affines import apply_affine, voxel_sizes
from nibabel.nifti1 import Nifti1Pair
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray

from monai_unetfamily.volumes.headers import length_unit
from monai_unetfamily.volumes.nifti import GRID_TOLERANCE, grid_shift

_SHEAR_TOLERANCE = 1e-3  # cosine between two axes, the limit ITK uses


def form_notes(image: Nifti1Pair) -> tuple[str, ...]:
    """One line for each thing that readers of an invertible affine (nibabel's, RAS+) may take otherwise.

    An sform and a qform that lie more than `nifti.GRID_TOLERANCE` voxels apart, or an sform that pixdim contradicts:
    the sform is used. Both codes 0: nibabel's fall-back is used, and sides are a guess. Axes that are sheared are taken
    as they stand; lengths in other units are converted to mm.

    >>> import nibabel as nib
    >>> image = nib.Nifti1Image(np.zeros((3, 4, 5)), np.eye(4))
    >>> form_notes(image)
    ()
    >>> image.set_qform(np.diag([1.0, 1.0, 2.0, 1.0]), 1)
    >>> form_notes(image)
    ('sform and qform disagree by up to 4 mm: the sform is used',)
    """
    return tuple(note for note in (_form_note(image), _shear_note(image.affine), _unit_note(image)) if note)


def _form_note(image: Nifti1Pair) -> str:
    has_sform, has_qform = (int(image.header[f"{form}_code"]) > 0 for form in ("sform", "qform"))
    if not has_sform:
        guess = "orientation and sides are a guess (nibabel's: x runs to the left), check left and right"
        return "" if has_qform else f"the codes of sform and qform are both 0: {guess}"
    return _disagreement(image) if has_qform else _pixdim_note(image)


def _disagreement(image: Nifti1Pair) -> str:
    try:
        qform = np.diag([*[length_unit(image.header)[1]] * 3, 1]) @ np.asarray(image.get_qform())
    except (HeaderDataError, ValueError):
        return "the qform holds no rotation: the sform is used"
    if not np.isfinite(qform).all():
        return "the qform is not finite: the sform is used"
    if grid_shift(qform, image.affine) <= GRID_TOLERANCE:
        return ""
    return f"sform and qform disagree by up to {_distance(qform, image):.3g} mm: the sform is used"


def _distance(other: NDArray[np.float64], image: Nifti1Pair) -> float:
    """How far apart (mm) two affines take a corner of the grid at most."""
    corners = np.stack(np.meshgrid(*((0, n - 1) for n in image.shape[:3])), axis=-1).reshape(-1, 3)
    return float(np.linalg.norm(apply_affine(other, corners) - apply_affine(image.affine, corners), axis=1).max())


def _pixdim_note(image: Nifti1Pair) -> str:
    sizes = voxel_sizes(image.affine)
    pixdim = np.asarray(image.header.get_zooms()[:3]) * length_unit(image.header)[1]
    if np.allclose(sizes, pixdim, rtol=GRID_TOLERANCE):
        return ""
    return f"voxels are {_joined(sizes)} mm by the sform, {_joined(pixdim)} by pixdim: the sform is used"


def _shear_note(affine: NDArray[np.float64]) -> str:
    directions = affine[:3, :3] / voxel_sizes(affine)
    cosine = float(np.abs(directions.T @ directions - np.eye(3)).max())
    degrees = np.degrees(np.arcsin(min(cosine, 1.0)))
    return f"the axes are sheared: two are {degrees:.3g} degrees off a right angle" if cosine > _SHEAR_TOLERANCE else ""


def _unit_note(image: Nifti1Pair) -> str:
    unit, mm = length_unit(image.header)
    return f"the header's unit of length is the {unit}: lengths are converted to mm" if mm != 1 else ""


def _joined(sizes: NDArray[np.float64]) -> str:
    return " x ".join(f"{size:.5g}" for size in sizes)

"""The grids of ITK and DICOM, which count millimetres to the left, back and top (LPS+), as NIfTI grids (RAS+)."""

import numpy as np
from nibabel.nifti1 import Nifti1Header, Nifti1Image
from numpy.typing import NDArray

Volume = tuple[NDArray[np.float32], Nifti1Image, tuple[str, ...]]  # voxels (X, Y, Z), grid, notes
MAX_SHEAR = 1e-3  # cosine between two axes; ITK's NIfTI reader refuses more

_LONGEST_AXIS = 2**15 - 1  # of a NIfTI-1 header


def patient_grid(shape: tuple[int, ...], affine: NDArray[np.float64]) -> Nifti1Image:
    """Return the NIfTI grid of an ITK or DICOM one: an image without voxels (it reads as zeros) for its header.

    Its header has sform and qform, both of code 1, and millimetres; its affine is the sform as the header
    holds it, so that what is written on the grid has the affine to the last bit.

    Args:
        shape: (X, Y, Z).
        affine: (4, 4) to mm in ITK's and DICOM's directions LPS+ (left, posterior, superior), at right angles.

    Raises:
        ValueError: an axis that a NIfTI header cannot count.

    >>> grid = patient_grid((512, 512, 90), np.diag([0.75, 0.75, 2.5, 1.0]))
    >>> grid.shape, grid.affine.diagonal().tolist(), int(grid.header["qform_code"])
    ((512, 512, 90), [-0.75, -0.75, 2.5, 1.0], 1)
    """
    if max(shape) > _LONGEST_AXIS:
        raise ValueError(f"got a grid of {shape} voxels; NIfTI counts to {_LONGEST_AXIS} along an axis, crop it first")
    affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
    header = Nifti1Header()
    header.set_data_dtype(np.int16)
    header.set_data_shape(shape)
    header.set_xyzt_units("mm")
    header.set_qform(affine, code=1)
    header.set_sform(affine, code=1)
    return Nifti1Image(np.broadcast_to(np.int16(0), shape), header.get_sform(), header)


def require_right_angles(affine: NDArray[np.float64], name: str) -> None:
    """Refuse an affine (4, 4) that is not finite, or whose axes are not at right angles to within `MAX_SHEAR`.

    >>> require_right_angles(np.array([[1, 0, 0.5, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]), "ct.mha")
    Traceback (most recent call last):
    ValueError: ct.mha: got axes at angles of 90, 90 and 63.4 degrees; right angles are allowed, resample it first
    """
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    if not (np.isfinite(affine).all() and lengths.all()):
        raise ValueError(f"{name}: got the affine {affine[:3].tolist()}; finite axes are needed, mend the header")
    axes = affine[:3, :3] / lengths
    cosines = np.array([axes[:, 0] @ axes[:, 1], axes[:, 1] @ axes[:, 2], axes[:, 0] @ axes[:, 2]])
    if np.abs(cosines).max() > MAX_SHEAR:
        first, second, third = np.degrees(np.arccos(np.clip(cosines, -1, 1)))
        got = f"got axes at angles of {first:.3g}, {second:.3g} and {third:.3g} degrees"
        raise ValueError(f"{name}: {got}; right angles are allowed, resample it first")

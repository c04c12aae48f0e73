"""Both hippocampi of a brain that anyone may have: the MNI152 template, out of nilearn's package.

ICBM 2009a, the mean T1-weighted MR of 152 adults without the skull, 1 mm isotropic (Fonov et al., Unbiased average
age-appropriate atlases for pediatric studies, NeuroImage 54, 2011). Its left and right halves are mirror images.
"""

from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.nifti1 import Nifti1Image

from monai_unetfamily.io import save_image

# MNI coordinates in mm, RAS+, of the first and the last voxel: 36 x 52 x 37, as large as the crops of MSD Task04
_BOXES = {
    "left": ((-45, -48, -32), (-10, 3, 4)),
    "right": ((10, -48, -32), (45, 3, 4)),
}


def write_crops(folder: Path) -> list[Path]:
    """Write `left.nii.gz` and `right.nii.gz`, the template around each hippocampus, and return the two files.

    Voxels are copied, never resampled, and the affine is that of the crop: coordinates stay MNI's. The template is a
    file of nilearn's package (the extra `demo`); nothing is downloaded.

    Args:
        folder: that exists.

    Raises:
        ModuleNotFoundError: nilearn is not installed.
        OSError: the folder cannot be written.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     [nib.load(file).shape for file in write_crops(Path(folder))]
    [(36, 52, 37), (36, 52, 37)]
    """
    from nilearn.datasets import MNI152_FILE_PATH

    template = Nifti1Image.from_filename(MNI152_FILE_PATH)
    files = {side: folder / f"{side}.nii.gz" for side in _BOXES}
    for side, file in files.items():
        save_image(template.slicer[_voxels(template, _BOXES[side])], file)
    return list(files.values())


def _voxels(template: Nifti1Image, box: tuple[tuple[int, ...], tuple[int, ...]]) -> tuple[slice, ...]:
    ends = np.rint(nib.affines.apply_affine(np.linalg.inv(template.affine), box)).astype(int)
    return tuple(slice(first, last + 1) for first, last in ends.T)

"""The table of sform and qform: which is taken, and what is said where they disagree."""

from typing import NamedTuple

import numpy as np
from scipy.spatial.transform import Rotation

SHAPE = (7, 6, 5)
AFFINE = np.diag([10.0, 11.0, 12.0, 1.0])
MOVED, MIRRORED, TURNED = AFFINE.copy(), np.diag([-10.0, 11.0, 12.0, 1.0]), AFFINE.copy()
MOVED[:3, 3] = 3, -4, 5
TURNED[:3, :3] = Rotation.from_euler("z", 20, degrees=True).as_matrix() @ AFFINE[:3, :3]


class Form(NamedTuple):
    """What a header holds, the affine that is used (None: as nibabel invents it), and a part of the note."""

    sform: np.ndarray | None
    qform: np.ndarray | None
    codes: tuple[int, int]
    used: np.ndarray | None
    note: str = ""


FORMS = {
    "both agree": Form(AFFINE, AFFINE, (1, 1), AFFINE),
    "both agree, of other codes": Form(AFFINE, AFFINE, (4, 2), AFFINE),
    "sform alone": Form(AFFINE, None, (2, 0), AFFINE),
    "qform alone": Form(None, AFFINE, (0, 1), AFFINE),
    "neither": Form(None, None, (0, 0), None, "are both 0"),
    "moved": Form(AFFINE, MOVED, (1, 1), AFFINE, "the sform is used"),
    "another side": Form(AFFINE, MIRRORED, (1, 1), AFFINE, "the sform is used"),
    "turned": Form(AFFINE, TURNED, (1, 1), AFFINE, "the sform is used"),
    "turned, of other codes": Form(TURNED, AFFINE, (3, 1), TURNED, "the sform is used"),
}

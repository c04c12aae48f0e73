"""File > Open Sample: a phantom CT with its organs, the same each time, that can be saved like any other."""

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from napari.layers import Image, Labels

pytestmark = pytest.mark.slow


def test_the_sample_opens_from_the_menu(make_napari_viewer: Any, plugin: Any, tmp_path: Path) -> None:
    viewer = make_napari_viewer()
    viewer.open_sample(plugin.name, "phantom_ct")
    ct, organs = viewer.layers
    assert isinstance(ct, Image)
    assert isinstance(organs, Labels)
    assert (ct.visible, organs.visible) == (True, False)
    assert ct.contrast_limits == [-160, 240]
    assert organs.metadata["classes"][1] == "liver"
    np.testing.assert_array_equal(ct.scale, organs.scale)
    _, _, columns = np.nonzero(organs.data == 1)
    assert columns.mean() < ct.data.shape[2] / 2  # the liver is on the left of the screen
    organs.save(str(tmp_path / "organs.nii.gz"), plugin=plugin.name)
    assert nib.aff2axcodes(nib.load(tmp_path / "organs.nii.gz").affine) == ("R", "A", "S")

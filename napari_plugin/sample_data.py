"""A patient who never was: what File > Open Sample shows."""

from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from monai_unetfamily.data.phantom import LABELS, make_phantom
from monai_unetfamily.io import label_table, table_extensions
from napari_plugin.reader import LayerData, Opened, to_layers

_SEED = 7


def phantom_ct() -> list[LayerData]:
    """A phantom CT of the upper abdomen, 160 x 128 x 80 voxels, and its organs, which are hidden at first."""
    phantom = make_phantom(np.random.default_rng(_SEED), (160, 128, 80), (2.0, 2.0, 2.5))
    ct, organs = (_image(voxels, phantom.affine) for voxels in (phantom.image, phantom.labels))
    organs.header.extensions.extend(table_extensions([label_table(LABELS)]))
    (truth,) = to_layers(Opened(phantom.labels, organs, "organs of the phantom"))
    return [*to_layers(Opened(phantom.image, ct, "phantom CT", modality="CT")), _hidden(truth)]


def _image(voxels: NDArray[np.integer[Any]], affine: NDArray[np.float64]) -> nib.Nifti1Image:
    image = nib.Nifti1Image(voxels, affine)
    image.header.set_xyzt_units("mm")
    image.set_sform(affine, code=1)
    image.set_qform(affine, code=1)
    return image


def _hidden(layer: LayerData) -> LayerData:
    data, shown, kind = layer
    return data, shown | {"visible": False}, kind

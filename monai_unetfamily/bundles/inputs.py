"""What a bundle takes: volumes or pictures."""

from pathlib import Path

from monai_unetfamily.bundles.bundle import METADATA, read_metadata
from monai_unetfamily.volumes.sources import is_picture


def check_source(root: Path, path: Path) -> None:
    """Refuse a picture where the bundle is for volumes: its `network_data_format` has three spatial axes.

    Raises:
        ValueError: says what to do; and where the metadata has no such axes.

    >>> from monai_unetfamily.bundles.bundle import find_bundle
    >>> check_source(find_bundle("hippocampus_mr"), Path("mr.nii.gz"))
    """
    if not is_picture(path):
        return
    try:
        axes = len(read_metadata(root)["network_data_format"]["inputs"]["image"]["spatial_shape"])
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"{root / 'configs' / METADATA}: has no network_data_format.inputs.image.spatial_shape; add it."
        ) from error
    if axes != 2:
        raise ValueError(
            f"{path}: is a picture, and {root.name} is for volumes; give NIfTI files, or choose a 2-D bundle."
        )

"""The early exit of a guided network: python tests/benchmarks/early_exit.py."""

import json
import sys
from pathlib import Path

import nibabel as nib
import numpy as np

from monai_unetfamily.volumes.nifti import save_image
from monai_unetfamily.volumes.phantom import write_phantoms

SHAPE, SPACING = (125, 100, 250), (4.0, 4.0, 4.0)  # 500 x 400 x 1000 mm: a trunk and much that holds no organ
SPINE = 5


def write_trunks(folder: Path, n: int, seed: int = 0) -> None:
    """Tall phantoms without the spine's label, which would be in every slice."""
    write_phantoms(folder, n, seed, shape=SHAPE, spacing=SPACING)
    for file in (folder / "labelsTr").iterdir():
        image = nib.load(file)
        labels = np.asarray(image.dataobj)
        save_image(
            nib.Nifti1Image(np.where(labels == SPINE, 0, labels).astype(np.uint8), image.affine, image.header), file
        )
    listing = json.loads((folder / "dataset.json").read_text())
    del listing["labels"][str(SPINE)]
    (folder / "dataset.json").write_text(json.dumps(listing, indent=1))


if __name__ == "__main__":
    write_trunks(Path(sys.argv[1]), int(sys.argv[2]))

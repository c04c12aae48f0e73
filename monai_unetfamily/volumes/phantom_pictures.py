"""Axial slices of phantoms as pictures: a 2-D data set that anybody may have."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monai_unetfamily.volumes.anatomy import ID
from monai_unetfamily.volumes.files import atomic_file
from monai_unetfamily.volumes.phantom import Triple, absent_organs, listing, make_phantom, make_room
from monai_unetfamily.volumes.pictures import write_picture
from monai_unetfamily.volumes.sources import stem

SLICES = 8  # of one phantom, at most
WINDOW = -160, 240  # HU, soft tissue, as 0 to 255


def write_phantom_pictures(
    out: Path,
    n: int,
    seed: int = 0,
    shape: tuple[int, int, int] = (160, 128, 40),
    spacing: Triple = (2.0, 2.0, 5.0),
) -> list[Path]:
    """Write axial slices of `n` phantoms as pairs of 8-bit PNG in the Decathlon's layout and return the images.

    Of each phantom up to 8 slices, evenly spread over those that show an organ other than the spine. Seen the
    radiological way: rows run from front to back, columns from the patient's right to left. Intensities from -160 to
    240 HU become 0 to 255. The anatomy of phantom i is that of `write_phantoms`; every fourth patient lacks an organ.
    `splits.json` parts patients, not slices: every fifth patient is validation.

    Args:
        out: new folder; gets `imagesTr/phantom_000_12.png` ..., `labelsTr/`, `splits.json` and `dataset.json`.
        n: number of phantoms.
        seed: the same seed gives the same pixels.
        shape: voxels of the scan that is sliced, as `make_phantom` takes them.
        spacing: mm along the same axes.

    Raises:
        ValueError, FileExistsError, OSError: as `write_phantoms`.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     images = write_phantom_pictures(Path(folder), n=1, shape=(16, 16, 16), spacing=(20, 16, 12.5))
    ...     len(images), images[0].name
    (8, 'phantom_000_02.png')
    """
    make_room(out, n, seed, shape, spacing)
    sections: dict[str, list[str]] = {"training": [], "validation": []}
    for i in range(n):
        phantom = make_phantom(np.random.default_rng([seed, i]), shape, spacing, absent_organs(i))
        grey = _windowed(phantom.image)
        for z in _chosen(phantom.labels):
            name = f"phantom_{i:03d}_{z:02d}.png"
            write_picture(_radiological(grey[:, :, z]), out / "imagesTr" / name)
            write_picture(_radiological(phantom.labels[:, :, z]), out / "labelsTr" / name)
            sections["training" if i % 5 else "validation"].append(name)
    names = sorted(sections["training"] + sections["validation"])
    about = {
        "tensorImageSize": "2D",
        "description": "Axial slices of computed CT-like volumes, -160 to 240 HU as 0 to 255",
    }
    _write_json({key: [stem(Path(name)) for name in part] for key, part in sections.items()}, out / "splits.json")
    _write_json(listing(names) | about, out / "dataset.json")
    return [out / "imagesTr" / name for name in names]


def _windowed(hu: NDArray[np.int16]) -> NDArray[np.uint8]:
    low, high = WINDOW
    return (np.clip((hu - np.float32(low)) / (high - low), 0, 1) * 255).round().astype(np.uint8)


def _chosen(labels: NDArray[np.uint8]) -> list[int]:
    """Up to `SLICES` of the axial slices that show an organ, evenly spread."""
    organs = (labels > 0) & (labels != ID["spine"])
    shown = np.flatnonzero(organs.any(axis=(0, 1)) | ~organs.any())  # all, where the scan is too small for any
    return sorted({int(shown[k]) for k in np.linspace(0, len(shown) - 1, SLICES).round().astype(int)})


def _radiological(axial: NDArray[Any]) -> NDArray[Any]:
    """An axial slice (x to the right, y to the front) as rows from front to back, columns from right to left."""
    return axial.T[::-1, ::-1]


def _write_json(content: object, path: Path) -> None:
    with atomic_file(path) as stream:
        stream.write(json.dumps(content, indent=1).encode())

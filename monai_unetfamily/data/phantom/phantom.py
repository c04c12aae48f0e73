"""CT-like abdominal phantoms with known labels: a data set that anybody may have, for trials and tests.

A phantom is no patient. It has what a segmentation has to cope with (overlapping intensities, partial volume,
noise, varying anatomy, missing organs, flipped, permuted, anisotropic and oblique grids) and no disease.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff, ornt_transform
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from scipy.spatial.transform import Rotation

from monai_unetfamily.data.phantom.anatomy import AIR, ID, LABELS, Anatomy, Structure, draw_anatomy
from monai_unetfamily.io import (
    MAX_VOXELS,
    atomic_file,
    make_directory,
    require_free,
    save_image,
    stem,
    write_label_image2d,
)

MIN_SIZE = 16  # voxels an axis
# A quarter of a voxel off the centre, the signs' product positive: four points that halve all three axes
_SUBSAMPLES = ((0.25, 0.25, 0.25), (0.25, -0.25, -0.25), (-0.25, 0.25, -0.25), (-0.25, -0.25, 0.25))
_GRIDS = (  # orientation of the axes, tilt about x, y, z in degrees, slice thickness relative to the set's
    ("RAS", (0, 0, 0), 1.0),
    ("LPS", (0, 0, 0), 1.0),
    ("LAS", (0, 0, 0), 0.6),
    ("RAS", (12, 0, 4), 1.0),
    ("PIR", (0, 0, 0), 1.0),
    ("LPS", (-8, 5, 15), 0.8),
    ("SRA", (0, 0, 0), 1.25),
)
_REMOVED = ("spleen", "left_kidney", "right_kidney")
Triple = tuple[float, float, float]


@dataclass(frozen=True)
class Phantom:
    """A scan: `image` (X, Y, Z) int16 in HU, `labels` (X, Y, Z) uint8, `affine` (4, 4) to mm, RAS+."""

    image: NDArray[np.int16]
    labels: NDArray[np.uint8]
    affine: NDArray[np.float64]


def make_phantom(
    rng: np.random.Generator,
    shape: tuple[int, int, int] = (160, 128, 40),
    spacing: Triple = (2.0, 2.0, 5.0),
    absent: Sequence[str] = (),
    orientation: str = "RAS",
    tilt: Triple = (0.0, 0.0, 0.0),
) -> Phantom:
    """Draw a patient and scan it. The anatomy depends on `rng` and `absent` alone, never on the grid.

    Args:
        shape: voxels along the patient's right-left, front-back and up-down axes, at least 16 each.
        spacing: mm along the same axes.
        absent: organs that were taken out: names of `anatomy.LABELS`.
        orientation: where the arrays' axes point (nibabel's axis codes); they are permuted and flipped to it.
        tilt: degrees by which the grid is turned about x, y, z: an oblique scan.

    Raises:
        ValueError: an axis below 16 voxels, a spacing that is not positive, an unknown organ or orientation.

    >>> phantom = make_phantom(np.random.default_rng(0), (40, 32, 20), (8.0, 8.0, 10.0), absent=["spleen"])
    >>> phantom.image.shape, phantom.image.dtype.name, np.unique(phantom.labels).tolist()
    ((40, 32, 20), 'int16', [0, 1, 3, 4, 5])
    """
    _require_grid(shape, spacing, orientation)
    organs = [name for label, name in LABELS.items() if label]
    unknown = sorted(set(absent) - set(organs))
    if unknown:
        raise ValueError(f"got absent organs {unknown}; {organs} are allowed, correct the names")
    patient = draw_anatomy(rng, absent)
    affine = _grid_affine(shape, spacing, tilt, rng)
    labels = _label_table(patient)[_scan(patient, affine, shape, (0, 0, 0))]
    hu = np.mean([_hu_table(patient)[_scan(patient, affine, shape, at)] for at in _SUBSAMPLES], axis=0)
    image = np.clip(hu + _noise(rng, shape), -1024, 3071).round().astype(np.int16)
    return _reorient(Phantom(image, labels, affine), orientation)


def write_phantoms(
    out: Path,
    n: int,
    seed: int = 0,
    shape: tuple[int, int, int] = (160, 128, 40),
    spacing: Triple = (2.0, 2.0, 5.0),
) -> list[Path]:
    """Write `n` phantoms as a data set in the Decathlon's layout and return the image files.

    `out` gets `imagesTr/phantom_000.nii.gz` ..., `labelsTr/` with the same names, and, last, `dataset.json`.
    Case i depends on (seed, i) alone. Orientation, tilt and slice thickness vary from case to case, over one
    field of view; every fourth patient lacks the spleen or a kidney.

    Raises:
        ValueError: `n` below 1, or a grid that `make_phantom` refuses.
        FileExistsError: `out` exists and is not an empty folder.
        OSError: a file cannot be written.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     images = write_phantoms(Path(folder), n=2, shape=(16, 16, 16), spacing=(20, 16, 12.5))
    ...     [image.name for image in images]
    ['phantom_000.nii.gz', 'phantom_001.nii.gz']
    """
    make_room(out, n, seed, shape, spacing)
    names = [f"phantom_{i:03d}.nii.gz" for i in range(n)]
    for i, name in enumerate(names):
        phantom = _case(seed, i, shape, spacing)
        _save(phantom.image, phantom.affine, out / "imagesTr" / name)
        _save(phantom.labels, phantom.affine, out / "labelsTr" / name)
    with atomic_file(out / "dataset.json") as stream:
        stream.write(json.dumps(listing(names), indent=1).encode())
    return [out / "imagesTr" / name for name in names]


def make_room(out: Path, n: int, seed: int, shape: tuple[int, int, int], spacing: Triple) -> None:
    """Make the folders of a data set of phantoms; raises what `write_phantoms` raises, and then makes none."""
    if n < 1:
        raise ValueError(f"got n = {n} phantoms; 1 or more are allowed, ask for at least one")
    if seed < 0:
        raise ValueError(f"got seed {seed}; 0 or more is allowed, choose another")
    _require_grid(shape, spacing, "RAS")
    require_free(out)
    for folder in ("imagesTr", "labelsTr"):
        make_directory(out / folder)


def absent_organs(i: int) -> list[str]:
    """The organs that case i lacks: one in every fourth patient.

    >>> [absent_organs(i) for i in (2, 3, 7)]
    [[], ['spleen'], ['left_kidney']]
    """
    return [_REMOVED[i // 4 % len(_REMOVED)]] if i % 4 == 3 else []


def _case(seed: int, i: int, shape: tuple[int, int, int], spacing: Triple) -> Phantom:
    orientation, tilt, thickness = _GRIDS[i % len(_GRIDS)]
    slices = max(MIN_SIZE, round(shape[2] / thickness))
    thick = spacing[2] * shape[2] / slices  # the field of view stays
    rng = np.random.default_rng([seed, i])
    return make_phantom(rng, (*shape[:2], slices), (*spacing[:2], thick), absent_organs(i), orientation, tilt)


def _scan(
    patient: Anatomy, affine: NDArray[np.float64], shape: tuple[int, int, int], shift: Triple
) -> NDArray[np.uint8]:
    """Find what lies `shift` voxels off each voxel's centre: (X, Y, Z), 0 for air, i + 1 for structure i."""
    voxels = np.indices(shape, dtype=np.float32) + np.reshape(shift, (3, 1, 1, 1)).astype(np.float32)
    points = np.tensordot(affine[:3, :3].astype(np.float32), voxels, 1)
    points = patient.to_model(points + affine[:3, 3].astype(np.float32).reshape(3, 1, 1, 1))
    found = np.zeros(shape, np.uint8)
    names = ["air"] + [s.name for s in patient.structures]
    for number, structure in enumerate(patient.structures, start=1):
        box = _box(structure, patient, affine, shape)
        here = structure.inside(points[(slice(None), *box)])
        if structure.over:
            here &= np.isin(names, structure.over)[found[box]]
        found[box][here] = number
    return found


def _box(
    structure: Structure, patient: Anatomy, affine: NDArray[np.float64], shape: tuple[int, int, int]
) -> tuple[slice, ...]:
    """The voxels that a structure can reach: its box in mm as the grid sees it, deformation allowed for."""
    to_voxel = np.linalg.inv(affine)
    centre = to_voxel[:3, :3] @ (np.asarray(structure.centre) * patient.scale) + to_voxel[:3, 3]
    reach = np.abs(to_voxel[:3, :3]) @ (np.asarray(structure.extent) + patient.slack) * patient.scale + 1
    low = np.clip(np.floor(centre - reach), 0, shape).astype(int)
    high = np.clip(np.ceil(centre + reach) + 1, 0, shape).astype(int)
    return tuple(slice(a, b) for a, b in zip(low, high, strict=True))


def _hu_table(patient: Anatomy) -> NDArray[np.float32]:
    return np.array([AIR] + [s.hu for s in patient.structures], np.float32)


def _label_table(patient: Anatomy) -> NDArray[np.uint8]:
    return np.array([0] + [s.label for s in patient.structures], np.uint8)


def _noise(rng: np.random.Generator, shape: tuple[int, int, int]) -> NDArray[np.float32]:
    """Gaussian noise in HU, correlated over neighbouring voxels of a slice as reconstruction leaves it."""
    noise = gaussian_filter(rng.standard_normal(shape, dtype=np.float32), (0.7, 0.7, 0.3))
    return np.asarray(noise / noise.std() * rng.uniform(15, 25), np.float32)


def _grid_affine(shape: Sequence[int], spacing: Triple, tilt: Triple, rng: np.random.Generator) -> NDArray[np.float64]:
    """The affine of a grid about the patient's origin, up to 4 mm off: nobody lies quite in the middle."""
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", tilt, degrees=True).as_matrix() * spacing
    affine[:3, 3] = rng.uniform(-4, 4, 3) - affine[:3, :3] @ ((np.asarray(shape) - 1) / 2)
    return affine


def _reorient(phantom: Phantom, orientation: str) -> Phantom:
    """The same scan with its axes permuted and flipped; no voxel changes its place in the patient."""
    change = ornt_transform(axcodes2ornt("RAS"), axcodes2ornt(orientation))
    affine = phantom.affine @ inv_ornt_aff(change, phantom.image.shape)
    image, labels = (np.ascontiguousarray(apply_orientation(a, change)) for a in (phantom.image, phantom.labels))
    return Phantom(image, labels, affine)


def _require_grid(shape: Sequence[int], spacing: Sequence[float], orientation: str) -> None:
    if min(shape) < MIN_SIZE:
        raise ValueError(f"got shape {tuple(shape)}; {MIN_SIZE} voxels or more an axis are allowed, enlarge it")
    if prod(shape) > MAX_VOXELS:
        raise ValueError(f"got shape {tuple(shape)}; {MAX_VOXELS} voxels in all are allowed, make it smaller")
    if not all(0 < length < np.inf for length in spacing):
        raise ValueError(f"got spacing {tuple(spacing)} mm; positive, finite lengths are allowed, correct it")
    if sorted(orientation.translate(str.maketrans("LPI", "RAS"))) != sorted("RAS"):
        raise ValueError(f"got orientation {orientation!r}; one of L/R, P/A and I/S each is allowed, as 'LPS'")


def _save(array: NDArray[np.integer], affine: NDArray[np.float64], path: Path) -> None:
    image = nib.Nifti1Image(array, affine)
    image.header.set_xyzt_units("mm")
    image.set_sform(affine, code=1)
    image.set_qform(affine, code=1)
    save_image(image, path)


def listing(names: Sequence[str]) -> dict[str, object]:
    """The content of the `dataset.json` of phantoms by these file names."""
    return {
        "name": "Abdominal phantoms",
        "description": "Computed CT-like volumes of the upper abdomen; no patient was scanned",
        "reference": "monai_unetfamily.data.phantom",
        "licence": "CC0-1.0",
        "release": "1.0",
        "tensorImageSize": "3D",
        "modality": {"0": "CT"},
        "labels": {str(label): name for label, name in LABELS.items()},
        "numTraining": len(names),
        "numTest": 0,
        "training": [{"image": f"./imagesTr/{name}", "label": f"./labelsTr/{name}"} for name in names],
        "test": [],
    }


# Axial slices of phantoms as pictures: a 2-D data set that anybody may have.

SLICES = 8  # of one phantom, at most
WINDOW = -160, 240  # HU, soft tissue, as 0 to 255


def write_phantom_images2d(
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
    ...     images = write_phantom_images2d(Path(folder), n=1, shape=(16, 16, 16), spacing=(20, 16, 12.5))
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
            write_label_image2d(_radiological(grey[:, :, z]), out / "imagesTr" / name)
            write_label_image2d(_radiological(phantom.labels[:, :, z]), out / "labelsTr" / name)
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

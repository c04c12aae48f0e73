"""Geometry of layers: the affine of a layer, and views of voxels in radiological orientation."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from nibabel.affines import apply_affine, from_matvec, voxel_sizes
from nibabel.nifti1 import Nifti1Header, Nifti1Image, Nifti1Pair
from nibabel.nifti2 import Nifti2Header, Nifti2Image
from nibabel.orientations import io_orientation
from numpy.typing import NDArray

from monai_unetfamily.io import in_mm

if TYPE_CHECKING:
    from napari.layers import Layer

# Where a layer lies that no file tells of: by what napari was told of its scale, place, turn and units.


def compose_affine(layer: "Layer") -> tuple[NDArray[np.float64], tuple[str, ...]]:
    """Compose the affine (4, 4), RAS+, of a layer's last three axes, counted backwards (X is the last), and say so.

    A layer of two axes is one slice of 1 mm.

    Raises:
        ValueError: more than 4 axes.

    >>> from napari.layers import Labels
    >>> affine, notes = compose_affine(Labels(np.zeros((3, 4, 6), int), scale=(5, 2, 2), units=("mm",) * 3))
    >>> affine.diagonal().tolist(), len(notes)
    ([-2.0, -2.0, -5.0, 1.0], 1)
    """
    if not 2 <= layer.ndim <= 4:
        raise ValueError(f"{layer.name}: got {layer.ndim} axes and no file; 2 to 4 are allowed, take a part of it")
    axes = min(layer.ndim, 3)
    lengths, unknown = _millimetres(layer, axes)
    points = world_points(layer)[:, -axes:] * lengths
    world = np.eye(4)  # shown voxels to (inferior, posterior, left) mm
    world[3 - axes : 3, 3 - axes : 3] = (points[-axes:] - points[0]).T
    world[3 - axes : 3, 3] = points[0]
    where = f"{layer.name}: no file tells where it lies: that is composed from its scale and place in napari"
    return _reversed(world), (where, *unknown)


def world_points(layer: "Layer") -> NDArray[np.float64]:
    """Where (axes + 1, axes) the first voxel lies, and one step from it along each axis, in napari's world."""
    steps = np.eye(layer.ndim + 1, layer.ndim, k=-1)
    return np.array([layer.data_to_world(step) for step in steps])


def _reversed(world: NDArray[np.float64]) -> NDArray[np.float64]:
    """From (inferior, posterior, left) of shown voxels to RAS+ of voxels in the opposite order."""
    affine = np.eye(4)
    affine[:3, :3] = -world[2::-1, 2::-1]
    affine[:3, 3] = -world[2::-1, 3]
    return affine


def _millimetres(layer: "Layer", axes: int) -> tuple[NDArray[np.float64], tuple[str, ...]]:
    """How long (axes,) the units of the last axes are, and a note where they are no lengths."""
    units = layer.units[-axes:]
    lengths = [(1 * unit).to("mm").magnitude if unit.is_compatible_with("mm") else math.nan for unit in units]
    note = f"{layer.name}: its units are {' x '.join(map(str, units))}: one is taken for 1 mm"
    return np.nan_to_num(lengths, nan=1.0), (note,) if np.isnan(lengths).any() else ()


# Voxels as a file has them, and as napari shows them: a transposed and flipped view, never a resampled copy.
#
# Shown axes run from superior to inferior, from anterior to posterior and from the patient's right to the left, so
# that slices look as in radiology: anterior or superior is up, the patient's right is on the left of an axial and of
# a coronal slice. napari's world is (inferior, posterior, left) in mm, of every volume alike, so that those of one
# patient lie on each other. Oblique axes are shown as the nearest ones; the true affine waits in the layer's
# metadata.
#
# What this plugin opens or makes has in `layer.metadata`: `path` (str or None), `affine` (4, 4), `header`
# (nibabel's), `notes` (tuple of str), `kind` ("volume" or "picture"); what is opened also `series` (DICOM's UID, or
# empty), images `reach` (least and largest of their values), labels `classes` (id -> name), labels of a result
# `image` (the path of what was segmented). A layer without a file may have `orientation`, a key of `ORIENTATIONS`.

Array = NDArray[Any]
Affine = NDArray[np.float64]  # (4, 4), voxels of the file to mm, RAS+
AXIS_LABELS = ("S-I", "A-P", "R-L")
# Of a layer without a file: where each of its axes leads, and which arrays are like that.
ORIENTATIONS = {
    "IPL": "S→I, A→P, R→L: radiological view",
    "SPL": "I→S, A→P, R→L: SimpleITK array",
    "RAS": "L→R, P→A, I→S: nibabel array, RAS",
    "LPS": "R→L, A→P, I→S: nibabel array, LPS",
    "SAR": "I→S, P→A, L→R: RAS, reversed",
    "IPR": "S→I, A→P, L→R: neurological view",
}
ASSUMED = "IPL"
_TOWARDS = {"R": (1, 0, 0), "L": (-1, 0, 0), "A": (0, 1, 0), "P": (0, -1, 0), "S": (0, 0, 1), "I": (0, 0, -1)}


@dataclass(frozen=True)
class Reorientation:
    """How the axes of a file are shown, one entry a shown axis: S-I, A-P, R-L.

    >>> voxels = np.arange(24).reshape(2, 3, 4)  # R, A, S: file axes of the identity
    >>> turn = reorientation_of(np.eye(4))
    >>> shown = turn.view(voxels)
    >>> shown.shape, int(shown[0, 0, 0]), bool((turn.undo(shown) == voxels).all())
    ((4, 3, 2), 23, True)
    """

    axes: tuple[int, ...]  # the file's axis
    flips: tuple[bool, ...]  # whether it is shown backwards

    def view(self, voxels: Array) -> Array:
        """Show a file's voxels, (X, Y), (X, Y, Z) or (X, Y, Z, T) with T first: a view of the same memory."""
        if voxels.ndim == 2:
            return self.view(voxels[..., None]).squeeze(self._thin)
        return voxels.transpose(*range(3, voxels.ndim), *self.axes)[self._flip]

    def undo(self, shown: Array) -> Array:
        """Return what is shown in the file's order: the inverse of `view`, and a view, too."""
        if shown.ndim == 2:
            return self.undo(np.expand_dims(shown, self._thin))[..., 0]
        order = (*range(3, shown.ndim), *self.axes)
        return shown[self._flip].transpose(np.argsort(order).tolist())

    def scale(self, affine: Affine) -> Affine:
        """The lengths (3,) of the shown axes' voxels in mm."""
        return np.asarray(voxel_sizes(affine)[list(self.axes)], np.float64)

    def translate(self, affine: Affine, shape: tuple[int, ...]) -> Affine:
        """Where (3,) the first shown voxel of a file of `shape` lies: inferior, posterior and left mm.

        Oblique axes are shown straight, about the centre of the volume.
        """
        last = np.array([*shape[:3], 1][:3]) - 1
        centre = -apply_affine(affine, last / 2)[::-1]
        return np.asarray(centre - self.scale(affine) * last[list(self.axes)] / 2, np.float64)

    @property
    def _flip(self) -> tuple[Any, ...]:
        return (..., *(slice(None, None, -1 if flip else None) for flip in self.flips))

    @property
    def _thin(self) -> int:
        """The shown axis that a picture, a file of two axes, has not."""
        return self.axes.index(2)


def reorientation_of(affine: Affine) -> Reorientation:
    """The turn that shows a file with this affine (4, 4), RAS+, as radiologists look at it.

    >>> reorientation_of(np.diag([-1.0, -1.0, 5.0, 1.0]))  # DICOM's order: to the left, to the back, up
    Reorientation(axes=(2, 1, 0), flips=(True, False, False))
    """
    directions = {int(axis): (number, bool(sign > 0)) for number, (axis, sign) in enumerate(io_orientation(affine))}
    axes, flips = zip(*(directions[axis] for axis in (2, 1, 0)), strict=True)  # S, A, R
    return Reorientation(axes, flips)


def placement(affine: Affine, shape: tuple[int, ...]) -> dict[str, Any]:
    """What puts a file of 2, 3 or 4 axes into napari's world: the keywords of a layer.

    >>> shown = placement(np.diag([2.0, 2.0, 5.0, 1.0]), (3, 4, 6))
    >>> shown["scale"].tolist(), shown["translate"].tolist(), shown["units"], shown["axis_labels"]
    ([5.0, 2.0, 2.0], [-25.0, -6.0, -4.0], ('mm', 'mm', 'mm'), ('S-I', 'A-P', 'R-L'))
    """
    reorientation = reorientation_of(affine)
    shown = [k for k, axis in enumerate(reorientation.axes) if axis < len(shape)]
    extra = len(shape[3:])
    return {
        "scale": np.array([1.0] * extra + list(reorientation.scale(affine)[shown])),
        "translate": np.array([0.0] * extra + list(reorientation.translate(affine, shape)[shown])),
        "units": ("pixel",) * extra + ("mm",) * len(shown),
        "axis_labels": ("t",) * extra + tuple(AXIS_LABELS[k] for k in shown),
    }


@dataclass(frozen=True)
class Grid:
    """Where a layer's voxels lie in a patient: what their file says, or what napari was told."""

    image: Nifti1Pair  # header and affine, as `volumes.studies.Image.grid`; reads as zeros
    reorientation: Reorientation  # how it is shown
    notes: tuple[str, ...] = ()  # what had to be assumed


def grid_of(layer: "Layer") -> Grid:
    """The grid of a layer's file; made by hand, of the layer it was drawn on; else one composed, and noted.

    Raises:
        ValueError: a layer without a file that is turned or mirrored in napari, or has more than 4 axes.
    """
    known = source_metadata(layer)
    if known is None:
        return _composed(layer)
    affine = np.asarray(known["affine"], np.float64)
    image = _empty_image(affine, known.get("header"), layer_shape(layer))
    return Grid(image, reorientation_of(affine), _moved(layer, affine))


def source_metadata(layer: "Layer") -> Mapping[str, Any] | None:
    """The metadata, its own or those of the layer it was drawn on, that tell where a layer of its shape lies."""
    candidates = (known.metadata for known in (layer, *_drawn_on(layer)))
    return next((metadata for metadata in candidates if _fits(metadata, layer_shape(layer))), None)


def layer_shape(layer: "Layer") -> tuple[int, ...]:
    """The shape of what is shown, without the colours of an RGB picture."""
    return tuple(layer.data.shape[: layer.ndim])


def _drawn_on(layer: "Layer") -> Iterator["Layer"]:
    """Layers of the viewer that lie exactly under this one."""
    import napari

    viewer = napari.current_viewer()
    for other in viewer.layers if viewer else ():
        if other is not layer and other.ndim == layer.ndim and np.allclose(world_points(other), world_points(layer)):
            yield other


def _fits(metadata: Mapping[str, Any], shown: tuple[int, ...]) -> bool:
    """Whether the metadata are ours, and tell of a layer of this shape: it may have been cropped since."""
    if "kind" not in metadata or metadata.get("affine") is None:
        return False
    header = metadata.get("header")
    shape = tuple(header.get_data_shape()) if header is not None else _file_shape(metadata["affine"], shown)
    return shown in {_shown_shape(metadata["affine"], whole) for whole in (shape, shape[:3])}


def _shown_shape(affine: Affine, shape: tuple[int, ...]) -> tuple[int, ...]:
    return reorientation_of(affine).view(np.broadcast_to(np.uint8(0), shape)).shape


def _file_shape(affine: Affine, shown: tuple[int, ...]) -> tuple[int, ...]:
    return reorientation_of(affine).undo(np.broadcast_to(np.uint8(0), shown)).shape


def _empty_image(affine: Affine, header: Nifti1Header | None, shown: tuple[int, ...]) -> Nifti1Pair:
    shape = _file_shape(affine, shown)[:3]
    if header is None:
        header = _header_in_mm(affine)
    elif math.prod(header.get_data_shape()[3:]) == 1:
        shape = tuple(header.get_data_shape())
    single = Nifti2Image if isinstance(header, Nifti2Header) else Nifti1Image
    return in_mm(single(np.broadcast_to(np.uint8(0), shape), header.get_best_affine(), header))


def _moved(layer: "Layer", affine: Affine) -> tuple[str, ...]:
    placed = placement(affine, _file_shape(affine, layer_shape(layer)))
    expected = np.vstack([np.zeros(layer.ndim), np.diag(placed["scale"])]) + placed["translate"]
    moved = f"{layer.name}: was moved in napari; it stays where its file has it"
    return () if np.allclose(world_points(layer), expected) else (moved,)


def _composed(layer: "Layer") -> Grid:
    affine, notes = compose_affine(layer)
    reorientation = Reorientation((2, 1, 0), (False, False, False))
    if reorientation_of(affine) != reorientation:
        raise ValueError(f"{layer.name}: is turned or mirrored in napari, and has no file; take its rotation off first")
    shape = layer_shape(layer)[-3:]
    shape = (1,) * (3 - len(shape)) + shape
    orientation = orientation_of(layer)
    oriented = _oriented(affine, shape[::-1], orientation)
    empty = Nifti1Image(np.broadcast_to(np.uint8(0), shape[::-1]), oriented, _header_in_mm(oriented))
    lies, *others = notes
    return Grid(empty, reorientation, (f"{lies}; its axes are taken to run {ORIENTATIONS[orientation]}", *others))


def _header_in_mm(affine: Affine) -> Nifti1Header:
    header = Nifti1Header()
    header.set_xyzt_units("mm")
    header.set_qform(affine, code=1)
    header.set_sform(affine, code=1)
    return header


def orientation_of(layer: "Layer") -> str:
    """Return the key of `ORIENTATIONS` that was chosen for a layer without a file, or for the one it was drawn on."""
    metadata = (known.metadata for known in (layer, *_drawn_on(layer)))
    return next((known["orientation"] for known in metadata if known.get("orientation")), ASSUMED)


def _oriented(affine: Affine, shape: tuple[int, ...], orientation: str) -> Affine:
    """Turn an affine (4, 4) of voxels whose axes run as `ASSUMED`, in opposite order, about the centre of `shape`."""
    chosen, assumed = (np.array([_TOWARDS[code] for code in codes]).T for codes in (orientation, ASSUMED))
    linear = chosen @ np.linalg.inv(assumed) @ affine[:3, :3]
    middle = (np.array(shape) - 1) / 2
    return from_matvec(linear, apply_affine(affine, middle) - linear @ middle)

"""Open NIfTI, MetaImage, NRRD and DICOM in napari, in radiological orientation."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import napari
import numpy as np
from napari.utils.notifications import show_warning
from nibabel.nifti1 import Nifti1Pair
from numpy.typing import NDArray

from monai_unetfamily.io import ITK, Label, affine_notes, open_volume, read_label_tables, read_stored, stem
from monai_unetfamily.io.dicom import is_dicom, leads_to_dicom
from napari_plugin.layers import placement, reorientation_of, table_layer
from napari_plugin.qt import plain

# Files as they are opened to be looked at: voxels as stored, the header they lie under, what was odd about either.
#
# What cannot be segmented may still be looked at: NaN, pictures and series of volumes open here.


@dataclass(frozen=True)
class Opened:
    """One image: a volume, a picture, or several volumes on one grid."""

    voxels: NDArray[Any]  # (X, Y, Z), (X, Y) of a picture, (X, Y, Z, T)
    image: Nifti1Pair  # header and affine
    name: str
    path: Path | None = None
    modality: str = ""  # of DICOM, as "CT"
    series: str = ""  # of DICOM: its UID
    notes: tuple[str, ...] = ()


def open_nifti(path: Path) -> Opened:
    """Open a NIfTI file; uncompressed, unscaled voxels are not read but mapped.

    Raises:
        FileNotFoundError, ValueError: what `nifti.open_volume` and `nifti.read_stored` refuse.
    """
    image = open_volume(path, channels=True, flat=True)
    voxels = read_stored(image, path)
    if np.prod(image.shape[3:]) == 1:
        voxels = voxels.reshape(image.shape[:3], order="F")
    return Opened(voxels, image, stem(path), path, notes=affine_notes(image) if len(image.shape) > 2 else ())


def open_itk_file(path: Path) -> Opened:
    """Open a MetaImage or NRRD.

    Raises:
        FileNotFoundError, ValueError: what `itk.read_itk` refuses.
    """
    from monai_unetfamily.io import read_itk_stored

    voxels, image, notes = read_itk_stored(path)
    return Opened(voxels, image, stem(path), path, notes=notes)


def open_dicom(path: Path) -> Opened:
    """Open a series: of a folder the largest axial one, the others being named in a note; of a slice its own.

    Raises:
        ValueError: no series, or series of several studies; what `io.dicom.read_series` refuses.
    """
    from monai_unetfamily.io.dicom import choose_series, list_series, read_series

    folder = path if path.is_dir() else path.parent
    found, passed = list_series(folder)
    if path.is_file():
        found = [series for series in found if path in series.files]
    try:
        series, others = choose_series(found, passed=passed)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    voxels, image, notes = read_series(series.files)
    name = series.description or folder.resolve().name
    if path.is_file():
        passed = ()
    return Opened(voxels, image, name, path, series.modality, series.uid, (*notes, *others, *passed))


# Volumes opened as radiologists look at them: NIfTI, MetaImage, NRRD and DICOM; label maps with names and colours.

LayerData = tuple[NDArray[Any], dict[str, Any], str]
ABDOMEN = (-160.0, 240.0)  # HU: the usual window for soft tissue, 400 wide about 40
_AIR = -500.0  # HU: other images have no values so low
_FINE, _COARSE = 64, 8  # steps of a sample along the two fastest axes of a file, and along the others


def get_reader(path: str | list[str]) -> Callable[[str | list[str]], list[LayerData]] | None:
    """napari's question whether this plugin reads `path`: of folders only those that lead to DICOM."""
    return read if all(file.is_file() or leads_to_dicom(file) for file in _listed(path)) else None


def read(path: str | list[str]) -> list[LayerData]:
    """Open files or a folder as layers; slices that are named together are one series.

    Raises:
        FileNotFoundError, ValueError: what cannot be read, in one line.
    """
    files = _listed(path)
    if is_dicom(files[0]):
        files = files[:1]
    return [layer for file in files for layer in to_layers(open_file(file))]


def open_file(path: Path) -> Opened:
    """Open a file by its kind, or a folder of DICOM."""
    if path.is_dir() or is_dicom(path):
        return open_dicom(path)
    return open_itk_file(path) if path.name.lower().endswith(ITK) else open_nifti(path)


def to_layers(opened: Opened) -> list[LayerData]:
    """An image layer, or label layers where the header says that the values are labels; notes are shown."""
    if opened.notes:
        show_warning(plain(f"{opened.name}: {'; '.join(opened.notes)}"))
    tables = read_label_tables(opened.image)
    labels = _labels(opened.voxels) if tables or _are_labels(opened.image) else None
    if labels is None:
        return [_image_layer(opened)]
    if labels.ndim == 4 and len(tables) == labels.shape[3]:  # a mask a class
        return [_mask_layer(opened, mask, table) for mask, table in zip(np.moveaxis(labels, 3, 0), tables, strict=True)]
    return [_labels_layer(opened, labels, *tables[:1])]


def _listed(path: str | list[str]) -> list[Path]:
    return [Path(path)] if isinstance(path, str) else [Path(file) for file in path]


def _are_labels(image: Nifti1Pair) -> bool:
    return bool(image.header.get_intent()[0] == "label")


def _labels(voxels: NDArray[Any]) -> NDArray[Any] | None:
    """Ids that can be painted on; None of values that are none."""
    if voxels.dtype.kind in "iu":
        return np.array(voxels, voxels.dtype.newbyteorder("="))
    with np.errstate(invalid="ignore"):  # NaN is no id: found below
        ids = voxels.astype(np.int32)
    return ids if np.array_equal(ids, voxels) else None


def _image_layer(opened: Opened) -> LayerData:
    values = sample(opened.voxels)
    is_ct = opened.modality == "CT" or (not opened.modality and values.min() <= _AIR)
    window = ABDOMEN if is_ct else _percentiles(values)
    data, shown = _layer(opened, opened.voxels)
    shown["metadata"]["reach"] = float(min(values.min(), window[0])), float(max(values.max(), window[1]))
    if viewer := napari.current_viewer():
        viewer.layers.events.inserted.connect(_widen)
    return data, shown | {"contrast_limits": window, "rgb": False}, "image"


def _widen(event: Any) -> None:
    """Let the slider of an image's contrast reach all values: napari ends it where the first window does."""
    if reach := event.value.metadata.get("reach"):
        event.value.contrast_limits_range = reach


def _labels_layer(opened: Opened, labels: NDArray[Any], table: dict[int, Label] | None = None) -> LayerData:
    data, shown = _layer(opened, labels)
    shown["metadata"]["classes"] = {label: name for label, (name, _) in (table or {}).items()}
    return data, shown | (table_layer(table) if table else {}), "labels"


def _mask_layer(opened: Opened, mask: NDArray[Any], table: dict[int, Label]) -> LayerData:
    data, shown, kind = _labels_layer(opened, mask, table)
    name = next((label.name for number, label in table.items() if number), "")
    return data, shown | {"name": f"{opened.name} {name}".strip()}, kind


def _layer(opened: Opened, voxels: NDArray[Any]) -> tuple[NDArray[Any], dict[str, Any]]:
    affine = np.asarray(opened.image.affine, np.float64)
    metadata = {
        "path": str(opened.path) if opened.path else None,
        "affine": affine,
        "header": opened.image.header,
        "notes": opened.notes,
        "series": opened.series,
        "kind": "picture" if voxels.ndim == 2 else "volume",
    }
    return reorientation_of(affine).view(voxels), placement(affine, voxels.shape) | {
        "name": opened.name,
        "metadata": metadata,
    }


def sample(voxels: NDArray[Any]) -> NDArray[np.float64]:
    """Some of the finite values, spread over all axes; few pages of a mapped file are touched.

    >>> sample(np.zeros((512, 512, 100), np.int8, order="F")).size
    32768
    """
    fast = set(np.argsort(np.abs(voxels.strides))[:2].tolist())
    steps = (-(-size // (_FINE if axis in fast else _COARSE)) for axis, size in enumerate(voxels.shape))
    values = voxels[tuple(slice(None, None, step) for step in steps)].astype(np.float64)
    finite: NDArray[np.float64] = values[np.isfinite(values)]
    return finite if finite.size else np.zeros(1)


def _percentiles(values: NDArray[np.float64]) -> tuple[float, float]:
    low, high = np.percentile(values, (1, 99)).tolist()
    return (low, high) if high > low else (low, low + 1)

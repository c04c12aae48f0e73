"""Volumes opened as radiologists look at them: NIfTI, MetaImage, NRRD and DICOM; label maps with names and colours."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import napari
import numpy as np
from napari.utils.notifications import show_warning
from nibabel.nifti1 import Nifti1Pair
from numpy.typing import NDArray

from monai_unetfamily.volumes.dicom_folders import is_dicom, leads_to_dicom
from monai_unetfamily.volumes.label_table import Label, read_label_tables
from monai_unetfamily.volumes.sources import ITK
from napari_plugin.appearance import table_layer
from napari_plugin.geometry import placement, turn_of
from napari_plugin.opening import Opened, open_dicom, open_itk_file, open_nifti
from napari_plugin.plain import plain

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
    return turn_of(affine).view(voxels), placement(affine, voxels.shape) | {"name": opened.name, "metadata": metadata}


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

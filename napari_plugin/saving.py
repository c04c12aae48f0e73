"""Save results, and remember which corrections are not saved yet."""

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from napari.layers import Image, Labels, Layer
from qtpy.QtWidgets import QFileDialog, QMessageBox, QWidget

from monai_unetfamily.io import write_masks
from napari_plugin.layers import ShownResult, fingerprint
from napari_plugin.qt import plain
from napari_plugin.writer import save_labels

# Which labels are somebody's work, and not yet in a file.


_UNKNOWN = -1  # no fingerprint


class Corrections:
    """Layers held against the fingerprints of what their run made, or of what was saved of them last.

    >>> import numpy as np
    >>> layer, corrections = Labels(np.zeros((3, 3), np.uint8)), Corrections()
    >>> corrections.made([layer], [fingerprint(layer.data)])
    >>> layer.data[1, 1] = 1
    >>> corrections.any_in(layer)
    True
    """

    def __init__(self) -> None:
        self._known: dict[Hashable, int] = {}

    def made(self, layers: Sequence[Labels], fingerprints: Sequence[int]) -> None:
        """These are what a run made, unless something else is known of a layer."""
        for layer, found in zip(layers, fingerprints, strict=True):
            self._known.setdefault(layer.unique_id, found)

    def begun(self, layers: Sequence[Labels]) -> None:
        """Layers may be changed from now on: one of which it is not known what its run made counts as changed."""
        self.made(layers, [_UNKNOWN] * len(layers))

    def saved(self, layers: Sequence[Labels], fingerprints: Sequence[int]) -> None:
        """These are in a file."""
        self._known |= {layer.unique_id: found for layer, found in zip(layers, fingerprints, strict=True)}

    def any_in(self, layer: Labels, now: int | None = None) -> bool:
        """Whether a layer holds any; `now` is its present fingerprint, where it is known."""
        before = self._known.get(layer.unique_id)
        return before is not None and before != (fingerprint(layer.data) if now is None else now)


# Where a result is saved, and how: the labels that are shown, corrections included.

TABLE = (".csv",)
_NIFTI, _PNG = (".nii.gz", ".nii"), ".png"


def suggest(shown: ShownResult, suffix: str) -> Path:
    """`<image>_seg` beside the image; in the user's folder where the image has no file."""
    path = shown.image.metadata.get("path")
    folder = Path(path).parent if path else Path.home()
    return folder / f"{shown.case.replace('/', '_')}_seg{suffix}"


def ask_path(
    parent: QWidget, title: str, path: Path, suffixes: tuple[str, ...], layers: Iterable[Layer]
) -> Path | None:
    """The file that the user chooses, its suffix added; None where none is chosen, or it must not be replaced.

    Args:
        parent: of the dialogs.
        title: of the first.
        path: that is suggested.
        suffixes: that are allowed; the first is added where there is none.
        layers: of which the images' files are never replaced.
    """
    wanted = " ".join(f"*{suffix}" for suffix in suffixes)
    no_question = QFileDialog.Option.DontConfirmOverwrite  # of the name without its suffix
    text, _ = QFileDialog.getSaveFileName(parent, title, str(path), f"{title} ({wanted})", options=no_question)
    if not text:
        return None
    file = Path(text if text.lower().endswith(suffixes) else text + suffixes[0])
    if _is_source(file, layers):
        QMessageBox.warning(parent, title, plain(f"{file} is the file of an image that is open: choose another name."))
        return None
    return file if not file.exists() or _may_replace(parent, title, file) else None


@dataclass(frozen=True)
class Saved:
    """What became of saving labels: each layer's fingerprint, or why they could not be written."""

    shown: ShownResult
    path: Path
    fingerprints: list[int]
    problem: str = ""
    notes: str = ""  # what had to be assumed


def labels_saver(shown: ShownResult, path: Path) -> Callable[[], Saved]:
    """What writes the labels as they are now, on the image's own grid.

    To be called in the main thread; what it returns runs in any.
    """
    states = [layer.as_layer_data_tuple() for layer in shown.layers]

    def save() -> Saved:
        layers = [Labels(np.array(data), **state) for data, state, _ in states]  # no stroke comes in between
        try:
            notes = save_labels(layers[0], path) if len(layers) == 1 else _save_masks(shown, layers, path)
        except (ValueError, OSError) as error:
            return Saved(shown, path, [], f"{path} is not saved: {error}")
        return Saved(shown, path, [fingerprint(layer.data) for layer in layers], notes="; ".join(notes))

    return save


def suffixes_of(shown: ShownResult) -> tuple[str, ...]:
    """What labels may be saved as, the usual one first."""
    if shown.layers[0].ndim > 2:
        return _NIFTI
    return (*_NIFTI, _PNG) if shown.layers[0].metadata.get("affine") is not None else (_PNG, *_NIFTI)


def _save_masks(shown: ShownResult, layers: list[Labels], path: Path) -> tuple[str, ...]:
    if shown.grid is None:
        raise ValueError(
            "a picture's file holds one label map, and these classes may overlap; save one layer at a time"
        )
    masks = np.stack([shown.in_file_order(layer.data) > 0 for layer in layers], axis=-1)
    write_masks(masks.astype(np.uint8), shown.names, shown.grid.image, path)
    return shown.grid.notes


def _is_source(file: Path, layers: Iterable[Layer]) -> bool:
    sources = [layer.metadata.get("image") for layer in layers]
    sources += [
        p for layer in layers if isinstance(layer, Image) for p in (layer.metadata.get("path"), layer.source.path)
    ]
    return file.exists() and any(path and Path(path).exists() and file.samefile(path) for path in sources)


def _may_replace(parent: QWidget, title: str, file: Path) -> bool:
    answer = QMessageBox.question(parent, title, plain(f"{file} exists. Replace it?"))
    return bool(answer == QMessageBox.StandardButton.Yes)

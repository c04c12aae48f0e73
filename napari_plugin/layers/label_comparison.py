"""Two layers of labels held against each other: whether they can be, what differs, and the layer that shows it."""

from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass
from threading import Event
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Labels
from nibabel.affines import voxel_sizes
from numpy.typing import NDArray

from monai_unetfamily.io import GRID_TOLERANCE, Label, grid_shift
from napari_plugin.layers.class_layers import table_layer
from napari_plugin.layers.geometry import grid_of, world_points
from napari_plugin.layers.layer_image import labels_layer_data
from napari_plugin.layers.partial_labels import GROWING
from napari_plugin.layers.result_layers import fingerprint
from napari_plugin.session import FAILURES, Failed, one_line

if TYPE_CHECKING:
    from monai_unetfamily.evaluation import Comparison

DIFFERENCES = "differences"  # in the metadata of the layer that shows them
KINDS = {  # of difference; colours of Okabe and Ito that the colour-blind tell apart, from each other and from grey
    1: Label("only in A", (213, 94, 0)),
    2: Label("only in B", (86, 180, 233)),
    3: Label("another class in A than in B", (240, 228, 66)),
}
_OPACITY = 0.8

Steps = Generator[tuple[int, int], None, "Compared | Failed | None"]


@dataclass(frozen=True)
class Compared:
    """What came of it: the rows, what differs in the order of A's shown axes, and the layers as they were then."""

    comparison: "Comparison"
    fingerprints: list[int]
    differing: int  # voxels
    voxel_ml: float | None  # None of pictures


def refusal(a: Labels | None, b: Labels | None) -> str:
    """Why two layers cannot be compared, and what to do; empty where they can."""
    if a is None or b is None or a is b:
        return "Two layers of labels are needed: segment, draw or open another."
    for layer in (a, b):
        if layer.name.endswith(GROWING):
            return f"{layer.name}: is not finished yet."
        if layer.multiscale or layer.ndim not in (2, 3):
            got = "several resolutions" if layer.multiscale else f"{layer.ndim} axes"
            return f"{layer.name}: got {got}; 2 or 3 axes are allowed, take a part of it."
    return _unlike_grids(a, b)


def _unlike_grids(a: Labels, b: Labels) -> str:
    remedy = "Labels are never resampled: segment the same image."
    if a.data.shape != b.data.shape:
        return f"A has {_times(a.data.shape)} voxels, B {_times(b.data.shape)}; one grid is needed. {remedy}"
    if a.ndim == 3:
        try:
            shift = grid_shift(grid_of(b).image.affine, grid_of(a).image.affine)
        except (ValueError, np.linalg.LinAlgError) as error:
            return one_line(error)
        if shift > GRID_TOLERANCE:
            return f"The affines of A and B lie {shift:.3g} voxels apart; one grid is needed. {remedy}"
    if not np.allclose(world_points(a), world_points(b)):
        return "A and B lie apart in napari: undo the move of one of them."
    return ""


def _times(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))


def comparer(a: Labels, b: Labels, stop: Event) -> Callable[[], Steps]:
    """What compares two layers as they are, of which `refusal` has nothing to say; it ends with None after `stop`.

    To be called in the main thread; what it returns runs in any.
    """
    drawn = [np.asarray(layer.data) for layer in (a, b)]
    names = [dict(layer.metadata.get("classes", {})) for layer in (a, b)]
    grids = None if a.ndim == 2 else (grid_of(a), grid_of(b))
    edges = None if grids is None else voxel_sizes(grids[0].image.affine).tolist()

    def compare() -> Steps:
        try:
            from monai_unetfamily.evaluation import compare_steps

            marks = list(map(fingerprint, drawn))
            other = drawn[1] if grids is None else grids[0].reorientation.view(grids[1].reorientation.undo(drawn[1]))
            with closing(compare_steps(drawn[0], other, edges, *names)) as steps:
                while not stop.is_set():
                    try:
                        yield next(steps)
                    except StopIteration as done:
                        return _compared(done.value, marks, edges)
        except FAILURES as error:
            return Failed(one_line(error))
        return None

    return compare


def _compared(comparison: "Comparison", marks: list[int], edges: list[float] | None) -> Compared:
    ml = None if edges is None else float(np.prod(edges)) / 1000
    return Compared(comparison, marks, int(np.count_nonzero(comparison.kinds)), ml)


def differences_layer(kinds: NDArray[np.uint8], a: Labels, b: Labels) -> Labels:
    """The layer that shows where two layers differ, `kinds` in the order of A's shown axes; it names both.

    napari's File > Save writes it on the grid of A's file, with these names and colours.
    """
    stored = kinds if a.ndim == 2 else grid_of(a).reorientation.undo(kinds)
    data, lies = labels_layer_data(stored, a)
    names = {1: f"{KINDS[1].name}: {a.name}", 2: f"{KINDS[2].name}: {b.name}", 3: KINDS[3].name}
    table = {label: Label(name, KINDS[label].color) for label, name in names.items()}
    lies["metadata"] = lies["metadata"] | {"classes": {0: "background"} | names, DIFFERENCES: True}
    background: dict[int, Any] = {0: Label("background", (0, 0, 0))}
    return Labels(data, name=title_of(a, b), opacity=_OPACITY, **table_layer(background | table), **lies)


def title_of(a: Labels, b: Labels) -> str:
    """What the layer of their differences is called."""
    return f"differences: {a.name} | {b.name}"

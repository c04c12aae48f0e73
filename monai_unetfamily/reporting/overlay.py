"""Draw label maps over their image, in radiological orientation."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Any, NamedTuple

import nibabel as nib
import numpy as np
from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation
from numpy.typing import NDArray
from scipy.ndimage import binary_erosion

from monai_unetfamily.io import Labels, atomic_file, hex_color, palette

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.legend import Legend
    from matplotlib.text import Text

# What a reader wants to see: three slices of a labelled volume, turned the radiological way, or a picture as it is.


Image = NDArray[np.floating[Any]]
_PLANES = ("axial", "RLAP", "IS", 2), ("coronal", "RLSI", "PA", 1), ("sagittal", "APSI", "LR", 0)


class Plane(NamedTuple):
    """One slice as it is shown: rows run down, columns run right."""

    name: str
    letters: str  # patient directions at the left, right, top and bottom edge; a picture tells none
    position: str  # patient letter and mm from the origin, of the slice's point in the other planes
    spacing: tuple[float, float]  # between rows, between columns, mm (pixels)
    image: Image
    labels: Labels  # ids (row, column), or masks (row, column, C)
    reference: Labels | None


def radiological_planes(
    image: Image, labels: Labels, affine: NDArray[np.floating[Any]], reference: Labels | None = None
) -> list[Plane]:
    """Cut an axial, a coronal and a sagittal plane where most is labelled.

    Per plane it is the slice with the largest labelled area: of `labels`, or of `reference` where `labels` is
    empty, or the middle where both are; where masks overlap, each counts. Patient right is on the left, anterior
    and superior are up, in the sagittal plane anterior is on the left. Axes are permuted and flipped to the nearest
    patient axes (nibabel's `as_closest_canonical`), never resampled.

    Args:
        image: intensities (x, y, z).
        labels: label ids (x, y, z) on the image's grid, or masks (x, y, z, C).
        affine: (4, 4), voxel to patient RAS+ in mm.
        reference: of the same shape as the labels, on the same grid.

    Raises:
        ValueError: shapes differ, the image's is not 3-D, or the affine is not invertible.

    >>> labels = np.zeros((6, 7, 8), int)
    >>> labels[1:3, 3:5, 6] = 1
    >>> axial, *_ = radiological_planes(labels.astype(float), labels, np.diag([-1, 1, 2, 1]))
    >>> axial.name, axial.position, axial.spacing, axial.labels.shape
    ('axial', 'S 12 mm', (1.0, 1.0), (7, 6))
    """
    _check(image, labels, reference, affine)
    orientation = io_orientation(affine)
    ras: list[Any] = [None if v is None else apply_orientation(v, orientation) for v in (image, labels, reference)]
    ras_affine = affine @ inv_ornt_aff(orientation, image.shape)
    center = _busiest_voxel(ras[1] if labels.any() or ras[2] is None else ras[2])
    spacing, world = nib.affines.voxel_sizes(ras_affine), nib.affines.apply_affine(ras_affine, center)
    planes = []
    for name, letters, ends, axis in _PLANES:
        column, row = (other for other in range(3) if other != axis)
        # RAS axes grow to the patient's right, front and top; rows and columns of the picture against them
        cut: list[Any] = [None if v is None else v.take(center[axis], axis).swapaxes(0, 1)[::-1, ::-1] for v in ras]
        steps = float(spacing[row]), float(spacing[column])
        planes.append(Plane(name, letters, _position(world[axis], ends), steps, cut[0], cut[1], cut[2]))
    return planes


def image2d_plane(image: Image, labels: Labels, reference: Labels | None = None) -> Plane:
    """Show a picture as it is: row 0 at the top, column 0 on the left.

    Args:
        image: intensities (rows, columns).
        labels: label ids (rows, columns), or masks (rows, columns, C).
        reference: of the same shape as the labels.

    Raises:
        ValueError: shapes differ, or the image's is not 2-D.

    >>> image2d_plane(np.zeros((4, 6)), np.zeros((4, 6), int)).position
    '4 rows, 6 columns'
    """
    _check_shapes(image, labels, reference, axes=2)
    rows, columns = image.shape
    return Plane("picture", "    ", f"{rows} rows, {columns} columns", (1.0, 1.0), image, labels, reference)


def _busiest_voxel(marked: Labels) -> list[int]:
    """Per axis the slice with most labelled voxels, one for each mask; the middle where nothing is labelled."""
    if not marked.any():
        return [size // 2 for size in marked.shape[:3]]
    masks = tuple(range(3, marked.ndim))
    return [int(np.count_nonzero(marked, axis=(*others, *masks)).argmax()) for others in ((1, 2), (0, 2), (0, 1))]


def _position(mm: float, ends: str) -> str:
    rounded = round(mm)
    return f"{ends[rounded >= 0]} {abs(rounded)} mm"


def _check(image: Image, labels: Labels, reference: Labels | None, affine: NDArray[np.floating[Any]]) -> None:
    _check_shapes(image, labels, reference, axes=3)
    if affine.shape != (4, 4) or not abs(np.linalg.det(affine[:3, :3])) > 0:
        raise ValueError(f"got affine {affine.tolist()}; an invertible (4, 4) is allowed: repair the header")


def _check_shapes(image: Image, labels: Labels, reference: Labels | None, axes: int) -> None:
    shapes = [array.shape for array in (image, labels, reference) if array is not None]
    unlike = labels.shape[:axes] != image.shape or labels.ndim > axes + 1 or len(set(shapes[1:])) > 1
    if image.ndim != axes or unlike:
        names = "x, y, z" if axes == 3 else "rows, columns"
        raise ValueError(
            f"got arrays of shapes {shapes}; one shape ({names}), of masks ({names}, C), is allowed: bring all onto"
            " one grid"
        )


# Pictures of label maps over their image: what a reader looks at before trusting a number.

_GROUND, _FRAME, _FAINT, _INK = "#0b0d10", "#3c4043", "#9aa0a6", "#e8eaed"
_OPACITY = 0.35
_LINE, _RIM = 1.4, 2.0  # points: an outline's width, and what one is wider than another above it
_DASHED = (0, (2.5, 1.5))  # offset, (on, off) in line widths
_NEAR_EDGES = -0.49, 0.49  # voxels from the centre
_DPI = 120
_PANEL, _GAP, _EDGE = 4.0, 0.6, 0.45  # inches: panel height, space between things, space around all
_LETTER = 0.18  # inches, the widest letter of the title
_SPACING = 0.28  # inches between columns of the legend
_SMALL, _LARGE = 10, 13  # points
_NARROWEST, _WIDEST = 0.5, 1.7  # panel width over height; a flatter or slimmer slice is centred in it
_PLACES = (0, 0.5), (1, 0.5), (0.5, 1), (0.5, 0)  # left, right, top, bottom in fractions of the slice
_OFFSETS = (-12, 0), (12, 0), (0, 12), (0, -12)  # points
_NAMED = 40  # classes in a legend: more would swamp the slices
_CT_WINDOW = -160.0, 240.0  # HU, soft tissue


def save_overlay(
    image: Image,
    labels: Labels,
    affine: NDArray[np.floating[Any]] | None,
    path: Path,
    names: Mapping[int, str],
    reference: Labels | None = None,
    window: tuple[float, float] | None = None,
    title: str = "",
) -> None:
    """Write a PNG of an axial, a coronal and a sagittal slice, or of a picture, with the labels over the image.

    A picture is shown as it is. Of a volume each plane is the slice with most labelled area (the middle one where
    nothing is labelled), shown the radiological way: patient right on the left, anterior and superior up, the
    sagittal nose to the left. Axes are permuted and flipped to the nearest patient axes, never resampled. Labels are
    filled and outlined along voxel edges; the reference is a dashed line in its class's colour. The legend names the
    classes in view, of more than forty the largest. Masks that overlap are laid over each other, the smallest
    uppermost; an outline that runs together with one above it is wider, so that both are seen. The file appears whole
    or not at all.

    Args:
        image: intensities (x, y, z), or (rows, columns) of a picture.
        labels: label ids on the image's grid, or masks with a last axis of classes, channel c of label id c + 1.
        affine: (4, 4), voxel to patient RAS+ in mm; None for a picture.
        path: the PNG to write.
        names: label id -> name for the legend; an id without a name shows its number.
        reference: of the same shape as the labels, on the same grid.
        window: the intensities shown black and white. Without it a soft tissue window, -160 to 240 HU, where
            the slices hold values below -500, else their 0.5 and 99.5 percentiles.
        title: a line above the slices.

    Raises:
        ValueError: shapes differ or do not fit the affine, the affine is not invertible, the window is reversed, or the
            slices hold no finite value.

    >>> import tempfile
    >>> ct, liver = np.zeros((9, 9, 5)), np.zeros((9, 9, 5), int)
    >>> liver[5:8, 3:7, 1:4] = 1
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "case.png"
    ...     save_overlay(ct, liver, np.diag([1, 1, 5, 1]), path, {1: "liver"})
    ...     path.read_bytes()[1:4]
    b'PNG'
    """
    if affine is None:
        planes = [image2d_plane(image, labels, reference)]
    else:
        planes = radiological_planes(image, labels, affine, reference)
    window = window or _guess_window(np.concatenate([plane.image.ravel() for plane in planes]))
    if not window[0] <= window[1]:
        raise ValueError(f"got window {window}; low before high is allowed: swap the two")
    canvas = _draw(planes, window, names, title)
    with atomic_file(path) as stream:
        canvas.print_png(stream, pil_kwargs={"compress_level": 1})  # level 6 takes as long as the drawing


def _guess_window(values: Image) -> tuple[float, float]:
    finite = values[np.isfinite(values)]
    if not finite.size:
        raise ValueError("got slices without a finite value; intensities are needed: repair or replace the volume")
    if finite.min() < -500:
        return _CT_WINDOW
    low, high = np.percentile(finite, (0.5, 99.5))
    return float(low), float(high)


def _draw(planes: list[Plane], window: tuple[float, float], names: Mapping[int, str], title: str) -> "FigureCanvasAgg":
    """All lengths are inches from the lower left corner; the height follows from the legend and the title."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    widths = [_panel_width(plane) for plane in planes]
    total = sum(widths) + (len(planes) - 1) * _GAP + 2 * _EDGE
    figure = Figure(figsize=(total, _PANEL), dpi=_DPI, facecolor=_GROUND)
    canvas = FigureCanvasAgg(figure)
    bottom = _EDGE + _height(_add_legend(figure, planes, names)) + _GAP
    top = bottom + _PANEL + _GAP
    heading = _write(figure, total / 2, top, fill(title, int((total - 2 * _EDGE) / _LETTER)), _LARGE)
    height = top + _height(heading) + _EDGE
    figure.set_size_inches(total, height)
    left = _EDGE
    for plane, width in zip(planes, widths, strict=True):
        axes = figure.add_axes((left / total, bottom / height, width / total, _PANEL / height))
        _draw_plane(axes, plane, window)
        caption = f"{plane.name}   {plane.position}"
        _write(figure, left + width / 2, bottom + _PANEL + _GAP / 2, caption, _SMALL)
        left += width + _GAP
    return canvas


def _panel_width(plane: Plane) -> float:
    rows, columns = plane.image.shape
    ratio = columns * plane.spacing[1] / (rows * plane.spacing[0])
    return float(_PANEL * min(max(ratio, _NARROWEST), _WIDEST))


def _draw_plane(axes: "Axes", plane: Plane, window: tuple[float, float]) -> None:
    aspect = plane.spacing[0] / plane.spacing[1]
    axes.set(facecolor="black", xticks=[], yticks=[])  # black also where the image is not finite
    axes.spines[:].set_color(_FRAME)
    low, high = window
    axes.imshow(plane.image, "gray", vmin=low, vmax=high, aspect=aspect, interpolation="bilinear")
    axes.imshow(_tint(plane.labels), aspect=aspect, interpolation="nearest")
    axes.set_autoscale_on(False)
    _outline(axes, plane.labels, "solid")
    if plane.reference is not None:
        _outline(axes, plane.reference, _DASHED)
    for letter, place, offset in zip(plane.letters, _PLACES, _OFFSETS, strict=True):
        mark = axes.annotate(letter, place, offset, "axes fraction", "offset points", color=_FAINT, fontsize=_SMALL)
        mark.set(ha="center", va="center")


def _tint(labels: Labels) -> NDArray[np.float64]:
    """(row, column, RGBA), transparent where nothing is labelled; each mask is laid over those before it."""
    colors = np.zeros((*labels.shape[:2], 4))
    for label, mask in _masks(labels):
        below = colors[mask]
        beneath = below[:, 3:] * (1 - _OPACITY)
        opacity = beneath + _OPACITY
        mixed = (below[:, :3] * beneath + np.array(palette(label)) / 255 * _OPACITY) / opacity
        colors[mask] = np.concatenate([mixed, opacity], axis=1)
    return colors


def _outline(axes: "Axes", labels: Labels, style: Any) -> None:
    """Lines along voxel edges: contours run halfway between samples, so a voxel has one near each edge."""
    rows, columns = (np.repeat(np.arange(-1, size + 1), 2) for size in labels.shape[:2])
    y, x = rows + np.resize(_NEAR_EDGES, rows.size), columns + np.resize(_NEAR_EDGES, columns.size)
    masks = _masks(labels)
    widths = _widths([mask for _, mask in masks])
    for (label, mask), width in zip(masks, widths, strict=True):
        fine = np.pad(mask, 1).repeat(2, 0).repeat(2, 1)
        axes.contour(x, y, fine, levels=[0.5], colors=[hex_color(label)], linewidths=width, linestyles=[style])


def _widths(masks: list[NDArray[np.bool_]]) -> list[float]:
    """Points, of outlines drawn one over the other: a line is wider than any above it that it runs together with."""
    edges = [mask & ~binary_erosion(mask) for mask in masks]
    widths: list[float] = []  # from the uppermost down
    for edge in reversed(edges):
        shared = [width for width, other in zip(widths, reversed(edges), strict=False) if (edge & other).any()]
        widths.append(max(shared) + _RIM if shared else _LINE)
    return widths[::-1]


def _masks(labels: Labels) -> list[tuple[int, NDArray[np.bool_]]]:
    """Label id and mask (row, column) of every class in a slice: by id, overlapping ones by size, the largest first."""
    if labels.ndim == 2:
        return [(label, labels == label) for label in np.unique(labels).tolist() if label]
    masks = [(channel + 1, labels[..., channel] > 0) for channel in range(labels.shape[2])]
    return sorted(((label, mask) for label, mask in masks if mask.any()), key=lambda item: -int(item[1].sum()))


def _areas(*slices: Labels | None) -> Counter[int]:
    """Pixels of each label in the slices."""
    marked = (item for s in slices if s is not None for item in _masks(s))
    areas: Counter[int] = Counter()
    for label, mask in marked:
        areas[label] += int(mask.sum())
    return areas


def _add_legend(figure: "Figure", planes: list[Plane], names: Mapping[int, str]) -> "Legend":
    """As many columns as fit."""
    entries = _entries(planes, names)
    narrow = _legend(figure, entries, columns=1)
    columns = int((figure.get_figwidth() - 2 * _EDGE + _SPACING) / (_width(narrow) + _SPACING))
    narrow.remove()
    return _legend(figure, entries, max(1, min(columns, len(entries))))


def _entries(planes: list[Plane], names: Mapping[int, str]) -> "list[tuple[Artist, str]]":
    """One handle and name for each of the largest labels in view, then what the lines mean."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    predicted, true = _areas(*(plane.labels for plane in planes)), _areas(*(plane.reference for plane in planes))
    areas = predicted + true
    largest = sorted(label for label, _ in areas.most_common(_NAMED))
    entries: list[tuple[Artist, str]] = [
        (Patch(facecolor=(hex_color(label), _OPACITY), edgecolor=hex_color(label)), names.get(label, str(label)))
        for label in largest
    ]
    if len(areas) > _NAMED:
        entries.append((Line2D([], [], linestyle="none"), f"and {len(areas) - _NAMED} smaller ones"))
    if planes[0].reference is not None:
        solid, dashed = Line2D([], [], color=_INK), Line2D([], [], color=_INK, linestyle=_DASHED)
        for line, name, ids in ((solid, "prediction", predicted), (dashed, "reference", true)):
            entries.append((line, name if ids else f"{name}: none in view"))
    return entries or [(Line2D([], [], linestyle="none"), "no label in view")]


def _legend(figure: "Figure", entries: "list[tuple[Artist, str]]", columns: int) -> "Legend":
    handles, names = zip(*entries, strict=True)
    legend = figure.legend(
        handles,
        ["x"] * len(names),
        ncols=columns,
        loc="lower center",
        bbox_to_anchor=(figure.get_figwidth() / 2, _EDGE),
        bbox_transform=figure.dpi_scale_trans,
        columnspacing=_SPACING * 72 / _SMALL,
        borderaxespad=0,
        borderpad=0,
        frameon=False,
        fontsize=_SMALL,
        labelcolor=_INK,
    )
    for text, name in zip(legend.get_texts(), names, strict=True):
        text.set(text=fill(name, width=40), parse_math=False)  # a name may begin with "_" or hold "$"
    return legend


def _write(figure: "Figure", x: float, bottom: float, text: str, size: float) -> "Text":
    style: dict[str, Any] = {"color": _INK, "size": size, "ha": "center", "va": "bottom", "parse_math": False}
    return figure.text(x, bottom, text, transform=figure.dpi_scale_trans, **style)


def _height(artist: "Artist") -> float:
    return float(artist.get_window_extent().height / _DPI)


def _width(artist: "Artist") -> float:
    return float(artist.get_window_extent().width / _DPI)

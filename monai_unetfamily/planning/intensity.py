"""Rules for what the network gets to see: intensities, sampling of patches, augmentation, mirroring."""

from collections.abc import Iterator, Sequence
from math import inf

from monai_unetfamily.planning.decisions import Decision
from monai_unetfamily.planning.fingerprint import Fingerprint
from monai_unetfamily.planning.patch_size import Patches
from monai_unetfamily.planning.plan import Augmentation, Scaling
from monai_unetfamily.planning.target_grid import THICK, Grid

_ROTATION = 0.26  # radians: 15 degrees
_SCALE = 0.2
_NARROW = 10  # HU: no tissue is so alike
_OPPOSITES = (  # words that mirroring along an axis (RAS) exchanges
    *(("anterior", "posterior", 1), ("ventral", "dorsal", 1)),
    *(("superior", "inferior", 2), ("upper", "lower", 2), ("cranial", "caudal", 2)),
)


def choose_scaling(fingerprint: Fingerprint, hu: tuple[float, float] | None) -> tuple[Scaling, Decision]:
    """How intensities are brought to the network; `hu` are limits that were asked for.

    Raises:
        ValueError: CT without any foreground, or of one value there; limits the wrong way round.
    """
    if hu is not None:
        low, high = hu
        if not -inf < low < high < inf:
            raise ValueError(
                f"hu is {low:g} to {high:g}; a lower and then an upper limit are allowed: turn them round."
            )
        return Scaling("range", low, high), Decision("intensity", _clipped(low, high), "asked for.")
    if _is_ct(fingerprint):
        pooled = [fingerprint.intensity(channel) for channel in range(len(fingerprint.channels))]
        low, high = _limits(min(p.p00_5 for p in pooled), max(p.p99_5 for p in pooled))
        reason = "CT has one scale for all images; these are the 0.5 and 99.5 percentiles of the labelled voxels."
        return Scaling("range", low, high), Decision("intensity", _clipped(low, high), reason)
    if all(case.dtype == "uint8" and len(case.size) == 2 for case in fingerprint.cases):
        reason = "all pictures have 8 bits, one scale for all."
        return Scaling("range", 0.0, 255.0), Decision("intensity", "0..255 to 0..1", reason)
    kind = fingerprint.modality or "images of no stated modality"
    medians = [each.intensity[0].p50 for each in fingerprint.cases if each.intensity]
    spread = f"; the foreground's median goes from {min(medians):.4g} to {max(medians):.4g}" if medians else ""
    value = "clip to the image's own 0.5 and 99.5 percentiles, then z-score" + ", channel by channel" * (
        len(fingerprint.channels) > 1
    )
    return Scaling("z-score"), Decision("intensity", value, f"values of {kind} have no common scale{spread}.")


def choose_sampling(patches: Patches, grid: Grid, fingerprint: Fingerprint) -> tuple[bool, Decision]:
    """Whether patches are centred on classes, half of the time."""
    classes = len(fingerprint.classes)
    if fingerprint.overlapping:
        return False, Decision(
            "sampling", "anywhere", "classes that overlap have no background to take the other half from."
        )
    if all(n >= size for n, size in zip(patches.size, grid.size, strict=True)) and grid.slice_axis is None:
        return False, Decision("sampling", "anywhere", "the patch covers the median image.")
    share = f"each of {classes} classes alike" if classes > 1 else "the class"
    reason = "the same halves as in nnU-Net's batches of two; the others may hold no class, as most windows do."
    return True, Decision("sampling", f"half of the patches centred on {share}, half elsewhere", reason)


def choose_augmentation(grid: Grid, scaling: Scaling) -> tuple[Augmentation, Decision]:
    """Random changes while training."""
    mm = grid.spacing or grid.mm
    across = grid.slice_axis if grid.slice_axis is not None else _thick_axis(mm)
    axes = range(len(mm))
    about = tuple(_ROTATION if across is None or axis == across else 0.0 for axis in axes)
    scale = tuple(0.0 if axis == across else _SCALE for axis in axes)
    contrast = not (scaling.kind == "range" and grid.spacing)  # CT
    augmentation = Augmentation(about, scale, 0.1 if contrast else 0.05, contrast)
    value = "rotation by up to 15 degrees, scale by 20 %, noise" + ", brightness and contrast" * contrast
    where = "the spacings are alike." if across is None else f"in the slice alone (axis {across} is across)."
    more = "" if contrast else " Brightness and contrast stay: HU are measured."
    return augmentation, Decision("augmentation", value, f"{where}{more}")


def choose_mirror_axes(fingerprint: Fingerprint, grid: Grid) -> tuple[tuple[int, ...], Decision]:
    """The image's axes along which training mirrors."""
    if pairs := fingerprint.paired_sides:
        reason = f"a mirrored image would exchange {pairs[0][0]!r} and {pairs[0][1]!r}, {len(pairs)} pairs in all."
        return (), Decision("mirroring", "none", reason)
    opposed = {axis: pair for pair, axis in _opposed(fingerprint.classes)}
    kept = set(opposed) if grid.spacing or not opposed else {0, 1}  # nobody knows how a picture lies
    axes = tuple(axis for axis in range(fingerprint.spatial_dims) if axis not in {grid.slice_axis, *kept})
    value = f"axes {', '.join(map(str, axes))}" if axes else "none"
    if not opposed:
        return axes, Decision("mirroring", value, "no two classes differ by their side alone.")
    one, other = next(iter(opposed.values()))
    return axes, Decision(
        "mirroring", value, f"along the others a mirrored image would exchange {one!r} and {other!r}."
    )


def _limits(low: float, high: float) -> tuple[float, float]:
    """Whole HU; of CT that is scaled already, whatever its values are.

    >>> _limits(-42.4, 210.6), _limits(0.21, 0.4567891)
    ((-42.0, 211.0), (0.21, 0.4568))
    """
    if low == high:
        raise ValueError(f"all labelled voxels of the CT hold {low:g}; give limits (--hu), or export the images again.")
    if high - low < _NARROW:
        return float(f"{low:.4g}"), float(f"{high:.4g}")
    return float(round(low)), float(round(high))


def _clipped(low: float, high: float) -> str:
    return f"clip to {low:g}..{high:g} HU, scale to 0..1"


def _is_ct(fingerprint: Fingerprint) -> bool:
    channels = {channel.casefold() for channel in fingerprint.channels}
    return fingerprint.modality.casefold() == "ct" or channels == {"ct"}


def _thick_axis(mm: Sequence[float]) -> int | None:
    """The axis of slices so thick that no rotation should leave them."""
    return max(range(len(mm)), key=lambda axis: mm[axis]) if max(mm) > THICK * min(mm) else None


def _opposed(names: Sequence[str]) -> Iterator[tuple[tuple[str, str], int]]:
    """Pairs of classes that lie opposite each other, and the axis along which they do."""
    known = {name.casefold(): name for name in names}
    for one, other, axis in _OPPOSITES:
        for name in known:
            if one in name and (opposite := name.replace(one, other)) in known:
                yield (known[name], known[opposite]), axis

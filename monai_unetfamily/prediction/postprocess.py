"""Postprocess labels: the bundle's postprocessing, classes to keep, largest component, smallest volume."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

import cc3d
import numpy as np
from monai.transforms import AsDiscreted, Compose, Invertd
from numpy.typing import NDArray

from monai_unetfamily.bundles import Bundle
from monai_unetfamily.inferers import WindowInferer
from monai_unetfamily.io import Affine, Labels, may_overlap
from monai_unetfamily.prediction.resample import NotSeparable, Rule

# What a bundle's postprocessing makes of scores, where it is MONAI's usual: `Invertd`, then `AsDiscreted`.


def steps_of(postprocess: Any) -> list[Any]:
    """The transforms of a postprocessing, in order."""
    return list(postprocess.flatten().transforms) if isinstance(postprocess, Compose) else [postprocess]


def inverts(bundle: Bundle) -> bool:
    """Whether scores are brought back through the preprocessing; otherwise labels stay on the bundle's grid."""
    return len(steps_of(bundle.postprocess)) > 1


def rule_of(bundle: Bundle) -> Rule:
    """How scores become labels, if by nothing but `Invertd` (or not even that) and `AsDiscreted`.

    Raises:
        NotSeparable: another postprocessing, or one that this bundle's names of classes do not fit.
    """
    *before, last = steps_of(bundle.postprocess) or [None]
    if len(before) > 1 or not all(_brings_back(step, bundle) for step in before) or not _is_plain(last):
        raise NotSeparable("its postprocessing is not Invertd (nearest_interp: false), then AsDiscreted of pred alone")
    threshold = last.threshold[0]
    if last.argmax[0] == (may_overlap(bundle.names) or len(bundle.names) == 1):
        raise NotSeparable("its AsDiscreted does not fit its channel_def")
    return Rule(threshold, _least(bundle, threshold))


def _brings_back(step: Any, bundle: Bundle) -> bool:
    if not isinstance(step, Invertd) or step.transform is not bundle.preprocess:
        return False
    settings = (step.keys, step.orig_keys, step.nearest_interp, step.device, step.post_func)
    return settings == (("pred",), ("image",), (False,), (None,), (None,))


def _is_plain(step: Any) -> bool:
    if not isinstance(step, AsDiscreted) or step.keys != ("pred",) or step.converter.kwargs:
        return False
    either = bool(step.argmax[0]) != (step.threshold[0] is not None)
    return either and (step.to_onehot[0], step.rounding[0]) == (None, None)


def _least(bundle: Bundle, threshold: float | None) -> float:
    """What a class needs somewhere to label a voxel: interpolation makes nothing higher than what it is made of."""
    if threshold is not None:
        return threshold if threshold > 0 else -float("inf")
    inferer = bundle.inferer
    sums_to_one = isinstance(inferer, WindowInferer) and inferer.background and str(inferer.dtype) == "torch.float32"
    return (
        0.5 / len(bundle.names) if sums_to_one else -float("inf")
    )  # the best of n has 1 / n; half of it is for rounding


# What is kept of a label map: the classes that are wanted, the largest part of one, its parts above a volume.
#
# Parts of a class are connected over faces, edges and corners (26 neighbours, 8 in a picture), as in MONAI's
# KeepLargestConnectedComponent and nnU-Net: with faces alone a thin oblique structure would fall apart, and more
# would be taken away. What is taken away becomes background; nothing grows.

_NEIGHBOURS: dict[int, Literal[8, 26]] = {2: 8, 3: 26}  # by axes
_Sizes = NDArray[np.int64]
_Rule = Callable[[_Sizes], NDArray[np.bool_]]  # sizes of the parts of one class -> which stay


def find_ids(names: Mapping[int, str], wanted: Iterable[str]) -> list[int]:
    """The label ids of classes, in the order of `names`; case does not count, the background is no class.

    Raises:
        ValueError: a name that is not there; all of them are listed.

    >>> find_ids({0: "background", 1: "liver", 2: "spleen"}, ["Spleen"])
    [2]
    >>> find_ids({1: "liver", 2: "spleen"}, ["aorta", "liver"])
    Traceback (most recent call last):
    ValueError: got classes ['aorta']; ['liver', 'spleen'] are allowed, name some of them
    """
    asked = {name.casefold(): name for name in wanted}
    known = {label: name for label, name in names.items() if label}
    unknown = asked.keys() - {name.casefold() for name in known.values()}
    if unknown:
        got, allowed = sorted(asked[name] for name in unknown), list(known.values())
        raise ValueError(f"got classes {got}; {allowed} are allowed, name some of them")
    return [label for label, name in known.items() if name.casefold() in asked]


def select(labels: Labels, ids: Iterable[int], axes: int = 3) -> Labels:
    """The same labels with no other class than `ids`, which stay as they are; masks keep every channel.

    Args:
        labels: ids (*spatial), or masks (*spatial, C), channel c of id c + 1.
        ids: what stays, as `find_ids` gives it.
        axes: of the grid: 3, or 2 of a picture.

    >>> select(np.array([[0, 1, 2, 3]]), [1, 3], axes=2).tolist()
    [[0, 1, 0, 3]]
    """
    if labels.ndim > axes:
        channels = np.isin(np.arange(labels.shape[-1]) + 1, list(ids))
        return labels * channels.astype(labels.dtype)
    table = np.zeros(int(labels.max(initial=0)) + 1, labels.dtype)
    kept = [label for label in ids if label < len(table)]
    table[kept] = kept
    return table[labels]


def keep_largest(labels: Labels, ids: Iterable[int], axes: int = 3) -> tuple[Labels, dict[int, int]]:
    """Keep the largest part of each class, of equals the first that is found.

    Args:
        labels: ids (*spatial), or masks (*spatial, C), channel c of id c + 1; they are not changed.
        ids: of the classes; the others stay whole.
        axes: of the grid: 3, or 2 of a picture.

    Returns:
        The labels, and the voxels that were taken away of each class where any were.

    >>> keep_largest(np.array([[1, 0, 1, 1, 0, 2]]), [1, 2], axes=2)[1]
    {1: 1}
    """
    return _keep(labels, dict.fromkeys(ids, _is_largest), axes)


def min_volume(labels: Labels, least: Mapping[int, float], affine: Affine) -> tuple[Labels, dict[int, int]]:
    """Take away the parts of a class that are smaller than a volume.

    Args:
        labels: ids (*spatial), or masks (*spatial, C), channel c of id c + 1; they are not changed.
        least: label id -> ml, or pixels in a picture; a part of exactly so much stays.
        affine: (4, 4) to mm; of a picture (3, 3).

    Returns:
        The labels, and the voxels that were taken away of each class where any were.

    >>> min_volume(np.array([[1, 0, 1, 1, 0, 2]]), {1: 2}, np.eye(3))[0].tolist()
    [[0, 0, 1, 1, 0, 2]]
    """
    axes = len(affine) - 1
    unit = abs(float(np.linalg.det(affine[:axes, :axes]))) / (1000 if axes == 3 else 1)  # ml or pixels
    voxels = {label: ml / unit * (1 - 1e-9) for label, ml in least.items()}  # no part is lost to rounding
    return _keep(labels, {label: _at_least(count) for label, count in voxels.items()}, axes)


def _is_largest(sizes: _Sizes) -> NDArray[np.bool_]:
    return np.arange(sizes.size) == sizes.argmax()


def _at_least(voxels: float) -> _Rule:
    return lambda sizes: sizes >= voxels


def _keep(labels: Labels, rules: Mapping[int, _Rule], axes: int) -> tuple[Labels, dict[int, int]]:
    """Keep the parts that a class's rule, given the sizes of all its parts, says yes to."""
    kept = labels.copy(order="K")
    if labels.ndim == axes:
        return kept, _drop(kept, rules)
    removed = {label: _drop(kept[..., label - 1], {1: rule}) for label, rule in rules.items()}
    return kept, {label: lost[1] for label, lost in removed.items() if lost}


def _drop(volume: Labels, rules: Mapping[int, _Rule]) -> dict[int, int]:
    """Take parts away in place; all classes at once, since a few stray voxels make a class as wide as the volume."""
    number_of = np.zeros(int(volume.max(initial=0)) + 1, np.uint16)
    present = [label for label in rules if label < len(number_of)]
    number_of[present] = np.arange(len(present)) + 1
    numbers = number_of[volume]
    parts, count = cc3d.connected_components(numbers, connectivity=_NEIGHBOURS[volume.ndim], return_N=True)
    slow = int(np.argmax(np.abs(parts.strides)))  # layers lie whole in memory
    layers = [np.moveaxis(array, slow, 0) for array in (parts, numbers, volume)]
    sizes, owners = np.zeros(count + 1, np.int64), np.zeros(count + 1, np.uint16)
    for part, number, _ in zip(*layers, strict=True):
        sizes += np.bincount(part.ravel(), minlength=count + 1)
        owners[part] = number
    small, removed = np.zeros(count + 1, bool), dict[int, int]()
    for number, label in enumerate(present, start=1):
        if (mine := np.flatnonzero(owners == number)).size:
            lost = mine[~rules[label](sizes[mine])]
            small[lost] = True
            removed |= {label: int(sizes[lost].sum())} if lost.size else {}
    for part, _, layer in zip(*layers, strict=True):
        layer[small[part]] = 0
    return removed

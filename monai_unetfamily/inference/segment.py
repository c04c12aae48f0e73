"""A bundle, or several, and one image: labels on the image's own grid, slab by slab.

What every door runs: the command's cohort, napari, Python. A generator, so that a caller may show how far the run is,
show labels as they come, and stop between two batches of windows by closing it.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from monai.data.meta_tensor import MetaTensor
from torch import Tensor

from monai_unetfamily.bundles.bundle import Bundle
from monai_unetfamily.inference.box import Box, slices_of
from monai_unetfamily.inference.inferer import WindowInferer
from monai_unetfamily.inference.inversion import Inversion, NotSeparable, inversion, unchanged
from monai_unetfamily.inference.memory import make_room
from monai_unetfamily.inference.postprocessing import inverts, rule_of
from monai_unetfamily.inference.preprocessing import run_preprocessing
from monai_unetfamily.inference.restore import Restoration, Rule, Sink, Where
from monai_unetfamily.inference.slabs import Slab
from monai_unetfamily.inference.whole import labels_of, require_shape
from monai_unetfamily.volumes.headers import length_unit
from monai_unetfamily.volumes.masks import may_overlap
from monai_unetfamily.volumes.nifti import Labels
from monai_unetfamily.volumes.studies import Image

_LOGGER = logging.getLogger(__name__)
Log = Callable[[str], None]


@dataclass(frozen=True)
class Case:
    """An image as a bundle's network takes it.

    Attributes:
        image: (C, *spatial) on the bundle's grid, with MONAI's trace of the way there.
        shape: voxels of the source per axis.
        notes: what is odd about the image after preprocessing.
    """

    image: MetaTensor
    shape: tuple[int, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Progress:
    """How far a segmentation is.

    Attributes:
        labels: of the whole source, 0 where there are none yet; one array, which is filled as the run goes on. Label
            ids (*spatial) of the smallest unsigned type, or where classes may overlap masks (*spatial, classes).
        done, total: windows run or skipped so far, and in all. After a shortage of memory they begin again.
        where: the part of the labels, one slice per axis, that this step completed; None: windows were run, no more.
    """

    labels: Labels
    done: int
    total: int
    where: Where | None = None


def prepare(bundle: Bundle, image: Image | MetaTensor) -> Case:
    """Run a bundle's preprocessing after its reader (the first step) on an image that has been read.

    Args:
        bundle: of an ensemble any; all have the same preprocessing.
        image: as read, or a tensor (C, *spatial) with its affine.

    Raises:
        ValueError: an image of which preprocessing leaves nothing to see, or makes absurdly many voxels.
        ValueError, RuntimeError: what the bundle's transforms raise.
    """
    tensor = image if isinstance(image, MetaTensor) else _as_tensor(image)
    unit = "" if isinstance(image, MetaTensor) or image.grid is None else length_unit(image.grid.header)[0]
    prepared, notes = run_preprocessing(bundle.preprocess, tensor, unit)
    return Case(prepared, tuple(tensor.shape[1:]), notes)


def segment(
    bundles: Bundle | Sequence[Bundle],
    case: Case,
    *,
    box: Box | None = None,
    log: Log = _LOGGER.info,
    sink: Sink | None = None,
) -> Iterator[Progress]:
    """Labels of a case, as they come; the last step has them all.

    Scores are class probabilities on the bundle's grid, of several bundles (`ensemble.check_ensemble`) their mean, over
    the windows of the first. Slab by slab they are interpolated linearly to the source's grid, where the best class, or
    each above its threshold, is kept: what the bundle's `Invertd` and `AsDiscreted` do, up to rounding. Where these do
    not act axis by axis, or the inferer is no `WindowInferer`, all scores take the bundle's own way, and `log` says so.

    Inside a box labels are those of a run without it, to the last bit, and outside 0: the whole image is preprocessed,
    and all windows that the box hangs on are run. Other batches of windows are not, unless all scores take the bundle's
    own way.

    When a GPU's memory is short, the windows of a batch are halved, down to one, then scores are summed on the CPU.
    `log` says each, and the bundle keeps it for the cases to come. The device of the network is never changed.

    Args:
        bundles: one, or an ensemble.
        case: from `prepare`.
        box: the part of the source that is wanted, (first, stop) along each axis, in voxels; None: all.
        log: is given a line for each thing done otherwise than usual.
        sink: is given all scores on the source grid, of a box those in it, in parts, as `scores.score_file`; a part
            again where a shortage of memory makes the run begin anew.

    Raises:
        ValueError: a box that is empty or beyond the image; scores that are not finite, or not as many as the bundle
            names classes; labels off the source grid.
        MemoryError: a GPU that one window is too large for.
    """
    members = [bundles] if isinstance(bundles, Bundle) else list(bundles)
    attempt = _attempt(members, case, box, log, sink)
    while True:
        try:
            yield from attempt
            return
        except torch.OutOfMemoryError as error:
            make_room(members[0], error, log)
        attempt = _attempt(members, case, box, lambda line: None, sink)


def predict_image(
    bundles: Bundle | Sequence[Bundle],
    image: Image | MetaTensor,
    *,
    box: Box | None = None,
    log: Log = _LOGGER.info,
    progress: Callable[[Progress], None] = lambda step: None,
    sink: Sink | None = None,
) -> Labels:
    """Labels of an image, on its own grid; `segment` in one call.

    Raises what `prepare` and `segment` raise.
    """
    case = prepare(bundles if isinstance(bundles, Bundle) else bundles[0], image)
    del image  # whose memory is not needed any more
    for step in segment(bundles, case, box=box, log=log, sink=sink):
        progress(step)
    return step.labels


def _as_tensor(image: Image) -> MetaTensor:
    axes = image.voxels.ndim - 1
    affine = np.eye(axes + 1) if image.grid is None else np.asarray(image.grid.affine, np.float64)
    meta = {"original_channel_dim": 0}  # an EnsureChannelFirstd leaves it as it is
    return MetaTensor(torch.from_numpy(image.voxels), affine=torch.from_numpy(affine), meta=meta)


def _attempt(members: list[Bundle], case: Case, box: Box | None, log: Log, sink: Sink | None) -> Iterator[Progress]:
    bundle, where = members[0], slices_of(box, case.shape)
    try:
        rule, back = _plan(bundle, case)
    except NotSeparable as reason:
        all_run = "; for the box, too, all windows are run" if box else ""
        log(f"{bundle.root.name}: {reason}: scores of the whole volume are kept, which takes more memory{all_run}.")
        return _whole(members, case, where, sink)
    require_shape(back.shape, case.shape)
    return _by_slabs(members, case, where, rule, back, sink)


def _plan(bundle: Bundle, case: Case) -> tuple[Rule, Inversion]:
    if not isinstance(bundle.inferer, WindowInferer):
        raise NotSeparable(f"its inferer is {type(bundle.inferer).__name__}, no WindowInferer")
    if not isinstance(case.image, MetaTensor):
        raise NotSeparable("its preprocessing keeps no trace")
    rule = rule_of(bundle)
    return rule, inversion(case.image) if inverts(bundle) else unchanged(case.image)


def _by_slabs(
    members: list[Bundle], case: Case, box: Where, rule: Rule, back: Inversion, sink: Sink | None
) -> Iterator[Progress]:
    restoration = None
    for slab in _slabs(members, case.image, back.touched(box)):
        if restoration is None:
            classes = len(members[0].names)
            restoration = Restoration(back, slab.axis, classes, rule, sink, slab.scores.device, box)
            one = rule.threshold is not None and not may_overlap(members[0].names)
            labels = restoration.labels[..., 0] if one else restoration.labels
        for where in restoration.add(slab):
            yield Progress(labels, slab.done, slab.total, where)
        yield Progress(labels, slab.done, slab.total)


def _whole(members: list[Bundle], case: Case, box: Where, sink: Sink | None) -> Iterator[Progress]:
    bundle, done, total = members[0], 1, 1
    scores = torch.empty(len(bundle.names), *case.image.shape[1:])
    if isinstance(bundle.inferer, WindowInferer):
        masks = (len(bundle.names),) if may_overlap(bundle.names) else ()
        none_yet = np.zeros((*case.shape, *masks), np.uint8)
        for slab in _slabs(members, case.image):
            scores[:, *slab.where] = slab.scores[0].float()
            done, total = slab.done, slab.total
            yield Progress(none_yet, done, total)
    else:
        with torch.no_grad():
            scores = bundle.inferer(_on_device(bundle, case.image), _network(bundle))[0].float().cpu()
        _require_classes(scores.shape[0], bundle)
    labels = labels_of(bundle, case.image, scores, case.shape, box, sink)
    yield Progress(labels, done, total, box)


def _slabs(members: list[Bundle], image: Tensor, part: Where | None = None) -> Iterator[Slab]:
    first, inferer = members[0], cast(WindowInferer, members[0].inferer)
    for slab in inferer.slabs(_on_device(first, image), [_network(bundle) for bundle in members], part=part):
        _require_classes(slab.scores.shape[1], first)
        yield slab


def _on_device(bundle: Bundle, image: Tensor) -> Tensor:
    """The image (1, C, *spatial) where the inferer wants it: on the CPU, if it brings the windows to `sw_device`."""
    there = getattr(bundle.inferer, "sw_device", None) is None
    return image[None].to(bundle.device if there else "cpu")


def _network(bundle: Bundle) -> Callable[..., Any]:
    """The network; on a GPU under autocast."""

    def run(x: Tensor) -> Any:
        with torch.no_grad(), torch.autocast(bundle.device.type, enabled=bundle.device.type == "cuda"):
            return bundle.network(x)

    return run


def _require_classes(channels: int, bundle: Bundle) -> None:
    if channels != len(bundle.names):
        raise ValueError(
            f"{bundle.root}: the network gives {channels} channels, channel_def in metadata.json names "
            f"{len(bundle.names)}: {list(bundle.names.values())}; make the two agree."
        )

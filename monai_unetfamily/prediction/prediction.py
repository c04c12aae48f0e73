"""Predict one image: read, preprocess, run the network, resample the scores, slab by slab."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from monai.data.meta_tensor import MetaTensor
from monai.transforms import AsDiscreted
from torch import Tensor, nn

from monai_unetfamily.bundles import Bundle, check_kind, check_values, image_channels, reason_of
from monai_unetfamily.data import find_studies
from monai_unetfamily.inferers import Slab, WindowInferer
from monai_unetfamily.io import (
    MAX_VOXELS,
    Box,
    Gaps,
    Image,
    Labels,
    Study,
    length_unit,
    may_overlap,
    read_study,
    slices_of,
)
from monai_unetfamily.nets import ClassificationGuide
from monai_unetfamily.prediction.postprocess import inverts, rule_of, steps_of
from monai_unetfamily.prediction.preprocessing import run_preprocessing
from monai_unetfamily.prediction.resample import (
    Inversion,
    NotSeparable,
    Restoration,
    Rule,
    Sink,
    Where,
    inversion,
    require_finite,
    unchanged,
)

# A GPU's memory that does not suffice: what gives way, and in what order.


def make_room(bundle: Bundle, error: RuntimeError, log: Callable[[str], None]) -> None:
    """Change a bundle's inferer, for this and all further volumes, so that it needs less of the GPU's memory.

    First the windows of a batch are halved, down to one; then the image stays and scores are summed on the CPU, where
    the network still runs on its device. Labels do not change, but for rounding.

    Raises:
        MemoryError: nothing is left to give way.
    """
    inferer = bundle.inferer
    if not isinstance(inferer, WindowInferer):
        raise MemoryError(f"{bundle.device} is out of memory; choose a smaller window, or --device cpu.") from error
    if inferer.sw_batch_size > 1:
        inferer.sw_batch_size //= 2
        log(f"{bundle.device} is out of memory: from now on windows are run {inferer.sw_batch_size} at once.")
    elif inferer.device is None:
        inferer.device, inferer.sw_device = "cpu", bundle.device
        log(f"{bundle.device} is out of memory: from now on scores are summed on the CPU, windows run as before.")
    else:
        raise MemoryError(
            f"{bundle.device} is out of memory with one window of {inferer.roi_size} voxels; choose a smaller "
            "roi_size, or --device cpu."
        ) from error


# A whole volume's scores through the bundle's own postprocessing: what is done where slabs cannot be.


def labels_of(
    bundle: Bundle, image: MetaTensor, scores: torch.Tensor, shape: tuple[int, ...], box: Where, sink: Sink | None
) -> Labels:
    """Labels (*shape), or masks (*shape, classes), of scores (classes, *spatial) on the grid of a preprocessed image.

    Outside the box labels are 0, and the sink is told no scores.

    Raises:
        ValueError: scores that are not finite, or a postprocessing that does not end with labels on the source grid.
    """
    require_finite(scores)
    case: dict[str, Any] = {"image": image, "pred": MetaTensor(scores)}  # Invertd passes plain tensors over
    for step in steps_of(bundle.postprocess):
        if sink is not None and isinstance(step, AsDiscreted):
            _tell(case["pred"], shape, bundle, box, sink)
        case = step(case)
    labels = _checked(case["pred"], shape, bundle)
    inside = np.zeros_like(labels)
    inside[box] = labels[box]
    return inside


def _tell(scores: torch.Tensor, shape: tuple[int, ...], bundle: Bundle, box: Where, sink: Sink) -> None:
    """Give the scores on the source grid to the sink, class by class."""
    if scores.shape != (len(bundle.names), *shape):
        raise ValueError(f"{bundle.root}: its scores before AsDiscreted are not on the source grid; save labels alone.")
    for c, score in enumerate(scores):
        sink(box, c, np.asarray(score[box]))


def _checked(labels: torch.Tensor, shape: tuple[int, ...], bundle: Bundle) -> Labels:
    """(1, *spatial) as label ids (*spatial), or (classes, *spatial) as masks (*spatial, classes)."""
    overlap = may_overlap(bundle.names)
    if overlap and labels.shape[0] != len(bundle.names):
        raise ValueError(
            f"{bundle.root}: gives {labels.shape[0]} maps for the {len(bundle.names)} classes that channel_def names; "
            "its postprocessing must keep one map for each (AsDiscreted with a threshold)."
        )
    if not overlap and labels.shape[0] != 1:
        raise ValueError(
            f"{bundle.root}: gives {labels.shape[0]} overlapping maps, which one label map cannot hold; use a bundle "
            "whose postprocessing takes the best class (AsDiscreted with argmax), or whose channel_def names no "
            "background."
        )
    require_shape(tuple(labels.shape[1:]), shape)
    largest = 1 if overlap else max(bundle.names)
    _require_ids(labels, largest, bundle)
    voxels = labels.numpy().astype(np.min_scalar_type(largest))
    return np.moveaxis(voxels, 0, -1) if overlap else voxels[0]


def require_shape(got: tuple[int, ...], shape: tuple[int, ...]) -> None:
    """Refuse labels of another shape than the image's.

    >>> require_shape((3, 2), (3, 2))
    """
    if got != shape:
        raise ValueError(
            f"labels have {got} voxels, the image {shape}: the bundle's postprocessing must end on the source grid "
            "(Invertd)."
        )


def _require_ids(labels: torch.Tensor, largest: int, bundle: Bundle) -> None:
    if labels.min() < 0 or labels.max() > largest or not torch.equal(labels, labels.round()):
        raise ValueError(
            f"{bundle.root}: postprocessing gives values between {float(labels.min()):g} and {float(labels.max()):g}; "
            f"whole numbers from 0 to {largest} are labels here: end it with AsDiscreted, after Invertd."
        )


# What a guided network says of a whole case: the probability that each class is somewhere in it.


class Presence:
    """Gathers the guides' logits (N, classes) of a case's windows."""

    def __init__(self) -> None:
        self._most: dict[nn.Module, Tensor] = {}

    def add(self, guide: nn.Module, logits: Tensor) -> None:
        """Take the logits of some windows."""
        most = logits.detach().float().amax(0).cpu()
        self._most[guide] = torch.maximum(self._most.get(guide, most), most)

    def probabilities(self) -> dict[int, float]:
        """Foreground class, counted from 1 -> the largest of its windows; of several networks the mean."""
        if not self._most:
            return {}
        mean = torch.stack([most.sigmoid() for most in self._most.values()]).mean(0)
        return {label: round(p, 6) for label, p in enumerate(mean.tolist(), start=1)}


@contextmanager
def watch_guides(networks: Sequence[nn.Module]) -> Iterator[Presence]:
    """Gather what the guides of these networks say while they run; nothing, where there are none.

    >>> guide = ClassificationGuide(2, 4, 3).eval()
    >>> with watch_guides([guide]) as presence:
    ...     _ = guide(torch.zeros(1, 4, 2, 2)), guide(torch.zeros(1, 4, 2, 2))
    >>> sorted(presence.probabilities())
    [1, 2]
    """
    presence = Presence()
    with ExitStack() as stack:
        for guide in (m for network in networks for m in network.modules() if isinstance(m, ClassificationGuide)):
            hook = guide.register_forward_hook(lambda module, _, logits: presence.add(module, logits))
            stack.callback(hook.remove)
        yield presence


# A bundle, or several, and one image: labels on the image's own grid, slab by slab.
#
# What every door runs: the command's cohort, napari, Python. A generator, so that a caller may show how far the run is,
# show labels as they come, and stop between two batches of windows by closing it.

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
        sink: is given all scores on the source grid, of a box those in it, in parts, as `io.score_file`; a part
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


# A bundle and one file in, labels on its own grid out: what a cohort does to each of its cases.


@torch.inference_mode()
def predict_volume(bundle: Bundle, path: Path) -> Labels:
    """Labels of a volume (x, y, z), a DICOM series, or a picture (rows, columns), on its own grid.

    Where classes may overlap they are masks, 0 or 1, with a last axis of classes.

    Args:
        bundle: opened for prediction.
        path: a file or folder that is one image (`data.find_studies`).

    Raises:
        FileNotFoundError, ValueError: the file cannot be segmented; the message names it and says why.
        MemoryError: a GPU that one window is too large for.
    """
    studies = find_studies([path]).studies
    if len(studies) != 1:
        raise ValueError(f"{path}: holds {len(studies)} images; one is meant here, name it, or take predict_cohort.")
    _, case = load_case(bundle, studies[0])
    try:
        *_, last = segment(bundle, case)
    except (RuntimeError, ValueError) as error:
        raise ValueError(f"{path}: {reason_of(error)}") from error
    return last.labels


def load_case(
    bundle: Bundle, study: Study, *, nan: str = "refuse", gaps: Gaps = "refuse", max_voxels: int = MAX_VOXELS
) -> tuple[Image, Case]:
    """Read a study that the bundle can take, and preprocess it; the options are those of `read_study`.

    Raises:
        FileNotFoundError, ValueError: the study cannot be used; the message names it and says why.
    """
    picture, where = study.kind == "picture", study.files[0]
    check_kind(bundle.root, where, picture)
    channels = None if picture else image_channels(bundle.root)
    image = read_study(study, nan=nan, gaps=gaps, max_voxels=max_voxels, channels=channels)
    return image, prepare_image(bundle, image, where)


def prepare_image(bundle: Bundle, image: Image, where: Path) -> Case:
    """Preprocess an image that has been read, a picture once its values are seen to be the bundle's.

    Args:
        bundle: opened for prediction.
        image: as read.
        where: its file or name, for the message.

    Raises:
        ValueError: the image cannot be used; the message names it and says why.
    """
    if image.grid is None:
        check_values(bundle.root, where, image.voxels)
    try:
        return prepare(bundle, image)
    except (RuntimeError, ValueError) as error:
        raise ValueError(f"{where}: {reason_of(error)}") from error

"""Calibrate the presence thresholds of a guided network on the windows of validation cases."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_DOWN, Context
from math import ceil, exp, log
from pathlib import Path

import torch
from monai.utils import convert_to_tensor
from torch import Tensor

from monai_unetfamily.bundles import INSTALLED, Bundle, open_bundle, redefine_network, training_part
from monai_unetfamily.data import load_cases
from monai_unetfamily.evaluation import align
from monai_unetfamily.losses import GuidedLoss
from monai_unetfamily.nets import ClassificationGuide, UNet3Plus
from monai_unetfamily.prediction import choices, choose_device
from monai_unetfamily.training.training_checks import check_dataset, kept_settings

# The windows of prediction over labelled cases: what the guide says of each, and what its reference holds.


Presence = Callable[[Tensor], Tensor]
Load = Callable[[Mapping[str, str]], Mapping[str, Tensor]]


@dataclass(frozen=True)
class WindowPresence:
    """Of W windows and C foreground classes, each (W, C): presence logits, which are held, which surely absent."""

    presence: Tensor
    held: Tensor
    absent: Tensor


class GuideWatch:
    """Stands in for a guided network in an inferer, and remembers the windows that it is given.

    An input has the image's channels, then the label's, for each slice of a 2.5-D window in turn; the label's are
    split off, the middle slice's are the reference. What it gives back is as large as logits, and all zeros.

    Args:
        presence: maps images (N, channels, *window) to presence logits (N, classes).
        loss: says which classes a window holds.
        image_channels, label_channels: of the volume.
        out_channels: of what it gives back.
    """

    def __init__(
        self, presence: Presence, loss: GuidedLoss, image_channels: int, label_channels: int, out_channels: int
    ) -> None:
        self.presence = presence
        self.loss = loss
        self.channels = (image_channels, label_channels)
        self.out_channels = out_channels
        self.seen: list[WindowPresence] = []

    def __call__(self, x: Tensor) -> Tensor:
        """Zeros (N, out_channels, *window) of windows (N, slices * channels, *window)."""
        images, labels = x.unflatten(1, (-1, sum(self.channels))).split(self.channels, dim=2)
        presence = self.presence(images.flatten(1, 2)).float()
        reference = labels[:, labels.shape[1] // 2].clamp(min=0)  # below is what an inferer pads with
        held, absent = self.loss.present_and_absent(reference, presence.shape[1])
        self.seen.append(WindowPresence(presence.cpu(), held.cpu(), absent.cpu()))
        return x.new_zeros(len(x), self.out_channels, *x.shape[2:])


@torch.inference_mode()
def watch_windows(
    bundle: Bundle,
    presence: Presence,
    loss: GuidedLoss,
    load: Load,
    cases: Sequence[Mapping[str, str]],
    log: Callable[[str], None],
) -> WindowPresence:
    """All windows that the bundle's inferer sees of the cases, `{"image": path, "label": path}`.

    Args:
        presence: as `GuideWatch` takes it.
        load: maps a case to its image and its label (C, *spatial), as validation does.

    Raises:
        ValueError: where prediction's preprocessing brings an image elsewhere than `load` does.
    """
    seen: list[WindowPresence] = []
    for case in cases:
        image, label = _load(bundle, load, case)
        watch = GuideWatch(presence, loss, len(image), len(label), len(bundle.names))
        with torch.autocast(bundle.device.type, enabled=bundle.device.type == "cuda"):
            bundle.inferer(torch.cat([image, label])[None].to(bundle.device), watch)
        log(f"{sum(len(each.held) for each in watch.seen)} windows of {case['image']}")
        seen += watch.seen
    return WindowPresence(
        *(torch.cat([getattr(each, part) for each in seen]) for part in ("presence", "held", "absent"))
    )


def _load(bundle: Bundle, load: Load, case: Mapping[str, str]) -> tuple[Tensor, Tensor]:
    image, validated = bundle.preprocess({"image": case["image"]})["image"], load(case)
    if image.shape != validated["image"].shape or not torch.allclose(image, validated["image"], atol=1e-4):
        raise ValueError(
            f"{case['image']}: prediction and validation see other images of it ({tuple(image.shape)} and "
            f"{tuple(validated['image'].shape)}): make the preprocessing of {bundle.root.name}'s inference and train "
            "configs agree."
        )
    label = validated["label"].to(image.dtype)
    return convert_to_tensor(image), convert_to_tensor(label)  # without the maps to the patient


# Presence thresholds of a guided network, set from the windows of the validation cases.
#
# A class whose presence is below its threshold in a window is absent there: its map is emptied, and where no class is
# present the decoder does not run (`nets/cgm.py`). The threshold therefore trades time against organs that are missed.
# It is set for a wanted recall: the share of the windows which hold the class that pass.

ENOUGH = 1000  # windows that hold a class, under which a share of 99.9 % cannot be counted
RECALL = 0.999
LEARNED_BY = ("loss", "validate#preprocessing")  # of the train config: what holds a class, and on which grid
_LARGEST = 0.9999  # above it a float32 sigmoid no longer tells scores apart
_HEADER = ["class", "windows with it", "without", "threshold", "recall", "empty rejected"]
_LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True)
class ClassThreshold:
    """What was set for a class, and what it does on the windows that it was set on; NaN where there were none."""

    name: str
    held: int  # windows that hold the class
    empty: int  # windows that do not; slivers are in neither
    threshold: float  # a probability
    recall: float  # share of the held ones that pass
    rejected: float  # share of the empty ones that do not


@dataclass(frozen=True)
class Calibration:
    """The thresholds, the windows that were seen, and the share of them in which no class passes."""

    classes: tuple[ClassThreshold, ...]
    windows: int
    exits: float


def calibrate(
    root: Path,
    dataset: Path,
    *,
    recall: float = RECALL,
    device: str = "auto",
    trust: bool = False,
    log: Callable[[str], None] = _LOGGER.info,
) -> Calibration:
    """Set a bundle's presence thresholds on the validation cases of a data set, and store them in its metadata.

    The fold is the one that its training held out, where its logs say which.

    Raises:
        FileNotFoundError: the bundle's files, its weights or the data set's are missing.
        ValueError: a bundle without guide, a data set that does not fit, a recall outside 0..1; all as
            `calibrate_on` says.
    """
    chosen = choose_device(device)
    if root.is_relative_to(INSTALLED):
        raise ValueError(f"{root.name}: ships with the installed package, which stays as it is; calibrate a copy.")
    fold = kept_settings(root / "logs").get("fold")
    check_dataset(root, dataset, log, ["validation"], fold)
    return calibrate_on(root, load_cases(dataset, "validation", fold), chosen, recall=recall, trust=trust, log=log)


def calibrate_on(
    root: Path,
    cases: Sequence[Mapping[str, str]],
    device: torch.device,
    *,
    recall: float = RECALL,
    trust: bool = False,
    log: Callable[[str], None] = _LOGGER.info,
) -> Calibration:
    """Set a bundle's presence thresholds on these cases, and store them in its metadata.

    The bundle's inferer slides over its preprocessed images, so that the windows are those of prediction, and the
    encoder and the guide alone run on them. What holds a class and what does not is what the bundle's `GuidedLoss`
    says, slivers and unlabelled voxels included. A class that no window holds keeps its threshold.

    Raises:
        ValueError: a network without guide, a loss that is no `GuidedLoss`, a recall outside 0..1, configs that bring
            a case to different grids, scores that are not finite, code of the bundle's own that is not trusted.
    """
    if not 0 < recall <= 1:
        raise ValueError(f"recall is {recall}; more than 0 and at most 1 is allowed: 0.999 is usual.")
    bundle = open_bundle(root, device, trust=trust)
    encode, guide = _parts(bundle)
    loss, load = (training_part(root, part, trust=trust) for part in LEARNED_BY)
    if not isinstance(loss, GuidedLoss):
        raise ValueError(f"{root}: its loss is {type(loss).__name__}; a GuidedLoss says which windows hold a class.")
    windows = watch_windows(bundle, lambda images: guide(encode(images)[-1]), loss, load, cases, log)
    if not windows.presence.isfinite().all():
        raise ValueError(f"{root}: its guide gives scores that are not finite: its weights are damaged; train anew.")
    found = _calibration(bundle, windows, list(choices(bundle).presence.values()), recall)
    redefine_network(root, {"presence_threshold": [each.threshold for each in found.classes]}, trust=trust)
    for line in describe(found, recall):
        log(line)
    return found


def choose_threshold(scores: Tensor, recall: float) -> float:
    """The threshold, a probability, for the presence logits (n,) of the windows that hold a class.

    From 1000 windows on: the largest for which the share that passes is at least `recall`. Below: the least score,
    less ln(1000 / n) logits. For were the logits those of true probabilities, then among all windows of a score z far
    below 0 a share e^z would hold the class: the lower tail of `scores` would fall by e for each logit, so that the
    window which is one in 1000 lies ln(1000 / n) below the one in n. Rounded down to four digits, and 0.9999 at most,
    so that float32 and another batch cannot turn the last window that was to pass.

    >>> choose_threshold(torch.tensor([0.0, 3.0]), recall=0.999)  # odds of 1 / 500
    0.001996
    """
    n, ordered = len(scores), scores.double().sort().values
    logit = float(ordered[n - ceil(recall * n - 1e-9)] if n >= ENOUGH else ordered[0] - log(ENOUGH / n))
    probability = min(_sigmoid(logit), _LARGEST)
    return float(Context(prec=4, rounding=ROUND_DOWN).create_decimal_from_float(probability))


def describe(found: Calibration, recall: float) -> list[str]:
    """Lines that tell what was set, on how much, and what was not."""
    rows = [
        [c.name, str(c.held), str(c.empty), f"{c.threshold:.4g}", f"{c.recall:.2%}", f"{c.rejected:.1%}"]
        for c in found.classes
    ]
    few = [f"{c.name} ({c.held})" for c in found.classes if 0 < c.held < ENOUGH]
    none = [c.name for c in found.classes if not c.held]
    lines = align([_HEADER, *rows]).replace("nan%", "   -").splitlines()
    lines.append(f"{found.windows} windows, of which {found.exits:.1%} hold no class by these thresholds")
    if few:
        lines.append(f"fewer than {ENOUGH} windows, so the least score less a margin: {', '.join(few)}")
    if none:
        lines.append(f"in no window, so the threshold stays: {', '.join(none)}")
    return [*lines, f"wanted recall: {recall:.4g}"]


def _parts(bundle: Bundle) -> tuple[Callable[[Tensor], list[Tensor]], ClassificationGuide]:
    """The encoder and the guide of a bundle's network."""
    network = bundle.network
    if not isinstance(network, UNet3Plus) or network.cgm is None:
        raise ValueError(
            f"{bundle.root}: its network is {type(network).__name__} without a classification-guided module, so that "
            "it has no thresholds; choose unet3plus with cgm: true, and train it."
        )
    return network.encode, network.cgm


def _calibration(bundle: Bundle, windows: WindowPresence, before: Sequence[float], recall: float) -> Calibration:
    names = [name for label, name in sorted(bundle.names.items()) if label]
    classes = tuple(
        _class_threshold(name, scores, held, absent, threshold, recall)
        for name, scores, held, absent, threshold in zip(
            names, windows.presence.T, windows.held.T, windows.absent.T, before, strict=True
        )
    )
    passes = windows.presence.sigmoid() >= torch.tensor([each.threshold for each in classes])
    return Calibration(classes, len(passes), float((~passes).all(dim=1).double().mean()))


def _class_threshold(
    name: str, scores: Tensor, held: Tensor, absent: Tensor, before: float, recall: float
) -> ClassThreshold:
    threshold = choose_threshold(scores[held], recall) if held.any() else before
    passes = (scores.sigmoid() >= threshold).double()
    shares = float(passes[held].mean()), float(1 - passes[absent].mean())
    return ClassThreshold(name, int(held.sum()), int(absent.sum()), threshold, *shares)


def _sigmoid(logit: float) -> float:
    return 1 / (1 + exp(-logit)) if logit > -700 else 0.0  # e^700 is the end of float64

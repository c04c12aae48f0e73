"""Presence thresholds of a guided network, set from the windows of the validation cases.

A class whose presence is below its threshold in a window is absent there: its map is emptied, and where no class is
present the decoder does not run (`nets/cgm.py`). The threshold therefore trades time against organs that are missed.
It is set for a wanted recall: the share of the windows which hold the class that pass.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_DOWN, Context
from math import ceil, exp, log
from pathlib import Path

import torch
from torch import Tensor

from monai_unetfamily.bundles.bundle import Bundle, open_bundle, training_part
from monai_unetfamily.bundles.metadata import INSTALLED
from monai_unetfamily.bundles.networks import redefine_network
from monai_unetfamily.evaluation.tables import align
from monai_unetfamily.inference.choices import choices
from monai_unetfamily.inference.device import choose_device
from monai_unetfamily.losses import GuidedLoss
from monai_unetfamily.nets import UNet3Plus
from monai_unetfamily.nets.cgm import ClassificationGuide
from monai_unetfamily.training.checks import check_dataset
from monai_unetfamily.training.presence import WindowPresence, watch_windows
from monai_unetfamily.training.split import kept_settings
from monai_unetfamily.volumes.cases import load_cases

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

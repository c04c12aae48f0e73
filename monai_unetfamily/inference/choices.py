"""What a bundle lets its user choose: what the command line takes, what a window shows."""

from dataclasses import dataclass

from monai.utils import ensure_tuple
from torch import nn

from monai_unetfamily.bundles.bundle import Bundle
from monai_unetfamily.bundles.metadata import read_metadata
from monai_unetfamily.inference.inferer import WindowInferer
from monai_unetfamily.nets import UNetPlusPlus
from monai_unetfamily.nets.cgm import ClassificationGuide


@dataclass(frozen=True)
class Choices:
    """What may be chosen, and what holds where nothing is.

    Attributes:
        overlap: of neighbouring windows, a fraction, the largest of its axes; None where it cannot be changed.
        mirror_axes: spatial axes of the preprocessed image along which mirroring is allowed; () where it is not.
        levels: of a UNet++, each an earlier head than the next, the last the bundle's own; () where there is no choice.
        presence: name of a class -> probability under which a guided network takes it for absent; {} without a guide.
    """

    overlap: float | None
    mirror_axes: tuple[int, ...]
    levels: tuple[int, ...]
    presence: dict[str, float]


def choices(bundle: Bundle) -> Choices:
    """What a bundle, opened for prediction, lets its user choose.

    Raises:
        ValueError: a guide of other classes than the bundle names.
    """
    inferer = bundle.inferer if isinstance(bundle.inferer, WindowInferer) else None
    mirrored = read_metadata(bundle.root).get("mirror_axes") or () if inferer else ()
    overlap = max(ensure_tuple(inferer.overlap)) if inferer else None
    return Choices(overlap, tuple(mirrored), _levels(bundle.network), _presence(bundle))


def guide_of(network: nn.Module) -> ClassificationGuide | None:
    """The classification-guided module of a network, where it has one."""
    return next((m for m in network.modules() if isinstance(m, ClassificationGuide)), None)


def _levels(network: nn.Module) -> tuple[int, ...]:
    if not isinstance(network, UNetPlusPlus) or not network.deep_supervision or network.levels == 1:
        return ()
    return tuple(range(1, network.levels + 1))


def _presence(bundle: Bundle) -> dict[str, float]:
    guide = guide_of(bundle.network)
    if guide is None:
        return {}
    names = [name for label, name in sorted(bundle.names.items()) if label]
    thresholds = [float(f"{threshold:.7g}") for threshold in guide.threshold.tolist()]  # float32, as it was written
    if len(names) != len(thresholds):
        raise ValueError(
            f"{bundle.root}: its network has presence thresholds for {len(thresholds)} classes, channel_def in "
            f"metadata.json names {names}; make the two agree."
        )
    return dict(zip(names, thresholds, strict=True))

"""Options of a prediction: devices, what a bundle allows, what a user requests."""

from collections.abc import Mapping, Sequence
from copy import copy, deepcopy
from dataclasses import asdict, dataclass, field, replace
from itertools import chain
from typing import Any, cast

import torch
from monai.utils import ensure_tuple
from torch import nn

from monai_unetfamily.bundles import Bundle, hash_bundle, read_metadata
from monai_unetfamily.inferers import WindowInferer
from monai_unetfamily.io import MAX_VOXELS, Box, Gaps
from monai_unetfamily.nets import ClassificationGuide, UNetPlusPlus
from monai_unetfamily.prediction.postprocess import find_ids

# Which device to run on.


def choose_device(name: str) -> torch.device:
    """The torch device for "auto", "cpu", "cuda", "cuda:1" or "mps"; "auto" takes the best one there is.

    >>> choose_device("cpu")
    device(type='cpu')

    Raises:
        ValueError: for a name that is none of these, or a device that this machine does not have.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    kind, _, index = name.partition(":")
    if kind not in ("cpu", "cuda", "mps") or (index and not (kind == "cuda" and index.isdecimal())):
        raise ValueError(f"device is {name!r}; allowed are auto, cpu, cuda, cuda:0, cuda:1, ..., mps.")
    devices = torch.cuda.device_count()
    if kind == "cuda" and int(index or 0) >= devices:
        raise ValueError(f"device is {name!r}; this machine has {devices} CUDA devices: use auto or cpu.")
    if kind == "mps" and not torch.backends.mps.is_available():
        raise ValueError("device is 'mps'; this machine has none: use auto or cpu.")
    return torch.device(name)


def list_devices() -> tuple[str, ...]:
    """The names of this machine's devices, as `choose_device` takes them.

    >>> list_devices()[0]
    'cpu'
    """
    mps = ("mps",) if torch.backends.mps.is_available() else ()
    return ("cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count())), *mps)


# What a bundle lets its user choose: what the command line takes, what a window shows.


@dataclass(frozen=True)
class BundleOptions:
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


def choices(bundle: Bundle) -> BundleOptions:
    """What a bundle, opened for prediction, lets its user choose.

    Raises:
        ValueError: a guide of other classes than the bundle names.
    """
    inferer = bundle.inferer if isinstance(bundle.inferer, WindowInferer) else None
    mirrored = read_metadata(bundle.root).get("mirror_axes") or () if inferer else ()
    overlap = max(ensure_tuple(inferer.overlap)) if inferer else None
    return BundleOptions(overlap, tuple(mirrored), _levels(bundle.network), _presence(bundle))


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


# What a user may ask of a run, and a bundle that does it.

_BESIDE = ("previews", "max_voxels")  # no label hangs on them


@dataclass(frozen=True)
class Settings:
    """How cases are read, predicted and written.

    Attributes:
        overlap: of neighbouring windows, as a fraction; None: the bundle's.
        mirror: the mean over the flips along the axes that the bundle's metadata allows ("mirror_axes").
        level: of a UNet++, UNet+ or UNet^e: its head d, computed alone; None: the bundle's.
        presence: class -> probability under which a guided network takes it for absent, in place of the bundle's; 0:
            never absent.
        box: the part of each image that is segmented, (first, stop) along each axis of the file's array, in voxels;
            None: all.
        roi: names of the classes that are written; none: all.
        keep_largest: names of the classes of which the largest connected part alone is kept.
        min_volume: class -> ml (pixels in a picture); connected parts that are smaller are taken away.
        split: write one mask a class.
        save_scores: write the class scores of volumes too.
        dicom_seg: write a DICOM Segmentation too, which refers to the slices; all cases must be DICOM.
        previews: draw a picture of each case.
        nan, gaps, max_voxels: as `io.read_study` takes them.
    """

    overlap: float | None = None
    mirror: bool = False
    level: int | None = None
    presence: Mapping[str, float] = field(default_factory=dict)
    box: Box | None = None
    roi: tuple[str, ...] = ()
    keep_largest: tuple[str, ...] = ()
    min_volume: Mapping[str, float] = field(default_factory=dict)
    split: bool = False
    save_scores: bool = False
    dicom_seg: bool = False
    previews: bool = True
    nan: str = "refuse"
    gaps: Gaps = "refuse"
    max_voxels: int = MAX_VOXELS

    def wanted(self, names: Mapping[int, str]) -> dict[int, str]:
        """The classes that are written, label id -> name, with the background.

        Raises:
            ValueError: a class that is not there, here or in another setting.
        """
        for asked in (self.keep_largest, self.min_volume):
            find_ids(names, asked)
        ids = find_ids(names, self.roi) if self.roi else [label for label in names if label]
        return {label: name for label, name in names.items() if label in ids or not label}


DEFAULTS: Settings = Settings()


@dataclass(frozen=True)
class Request:
    """What a run is asked for, as far as it decides what comes out: bundles, name and hash of each, and settings."""

    bundles: Sequence[tuple[str, str]]
    settings: Mapping[str, Any]


def request_of(bundles: Sequence[Bundle], settings: Settings) -> Request:
    """What a run with these bundles and settings is asked for."""
    hashes = [(bundle.root.absolute().name, hash_bundle(bundle.root)) for bundle in bundles]
    return Request(hashes, {name: value for name, value in asdict(settings).items() if name not in _BESIDE})


def adapt(bundle: Bundle, settings: Settings) -> Bundle:
    """The bundle with the level, the presence thresholds, the overlap and the mirroring that are asked for.

    Itself stays as it is; weights are shared.

    Raises:
        ValueError: what this bundle cannot do.
    """
    settings.wanted(bundle.names)
    if settings.level is not None:
        bundle = replace(bundle, network=_at_level(bundle, settings.level))
    if settings.presence:
        bundle = replace(bundle, network=_with_presence(bundle, settings.presence))
    if settings.overlap is None and not settings.mirror:
        return bundle
    return replace(bundle, inferer=_changed(bundle, settings))


def adapt_all(bundles: Sequence[Bundle], settings: Settings) -> list[Bundle]:
    """Each bundle of an ensemble as `adapt` gives it; presence thresholds are those of its guided networks.

    Raises:
        ValueError: what one of them cannot do; thresholds where no network is guided.
    """
    guided = [guide_of(bundle.network) is not None for bundle in bundles]
    others = replace(settings, presence={}) if any(guided) else settings
    return [adapt(bundle, settings if has else others) for bundle, has in zip(bundles, guided, strict=True)]


def _at_level(bundle: Bundle, level: int) -> nn.Module:
    network, levels = bundle.network, choices(bundle).levels
    if not isinstance(network, UNetPlusPlus) or not levels:
        raise ValueError(
            f"level is {level}; {bundle.root.name}, a {type(network).__name__}, has none to choose: only UNet++ has "
            "levels, with deep_supervision."
        )
    if level not in levels:
        raise ValueError(f"level is {level}; {bundle.root.name} allows 1 to {levels[-1]}.")
    return network.pruned(level).eval()


def _with_presence(bundle: Bundle, presence: Mapping[str, float]) -> nn.Module:
    """The network with these thresholds in place of some of its own; all other tensors are shared."""
    held = choices(bundle).presence
    if not held:
        raise ValueError(
            f"presence is {dict(presence)}; {bundle.root.name}, a {type(bundle.network).__name__} without a "
            "classification-guided module, has no thresholds: leave --presence out, or choose a guided bundle."
        )
    find_ids(bundle.names, presence)
    wrong = {name: p for name, p in presence.items() if not 0 <= p <= 1}
    if wrong:
        raise ValueError(f"presence is {wrong}; probabilities from 0 to 1 are allowed.")
    tensors = chain(bundle.network.parameters(), bundle.network.buffers())
    network = deepcopy(bundle.network, {id(tensor): tensor for tensor in tensors})
    guide = cast(ClassificationGuide, guide_of(network))
    guide.threshold = guide.threshold.new_tensor(list((held | dict(presence)).values()))
    return network


def _changed(bundle: Bundle, settings: Settings) -> WindowInferer:
    if not isinstance(bundle.inferer, WindowInferer):
        raise ValueError(
            f"{bundle.root.name} slides by {type(bundle.inferer).__name__}; overlap and mirroring are changed of "
            "monai_unetfamily.inferers.WindowInferer alone."
        )
    inferer = copy(bundle.inferer)
    if settings.overlap is not None:
        inferer.overlap = settings.overlap
    if settings.mirror:
        inferer.mirror_axes = _mirror_axes(bundle)
    inferer.check()
    return inferer


def _mirror_axes(bundle: Bundle) -> tuple[int, ...]:
    axes = choices(bundle).mirror_axes
    if not axes:
        raise ValueError(
            f"{bundle.root.name} allows no mirroring: left and right organs would change sides. Leave --mirror out, or "
            'state "mirror_axes" in its metadata.json where the training mirrored along them.'
        )
    return axes

"""What a user may ask of a run, and a bundle that does it."""

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from monai_unetfamily.bundles.bundle import Bundle
from monai_unetfamily.bundles.metadata import read_metadata
from monai_unetfamily.inference.components import find_ids
from monai_unetfamily.inference.inferer import WindowInferer
from monai_unetfamily.inference.records import Request, hash_bundle
from monai_unetfamily.nets import UNetPlusPlus
from monai_unetfamily.volumes.headers import MAX_VOXELS
from monai_unetfamily.volumes.reading import Gaps

_BESIDE = ("previews", "max_voxels")  # no label hangs on them


@dataclass(frozen=True)
class Settings:
    """How cases are read, predicted and written.

    Attributes:
        overlap: of neighbouring windows, as a fraction; None: the bundle's.
        mirror: the mean over the flips along the axes that the bundle's metadata allows ("mirror_axes").
        level: of a UNet++, UNet+ or UNet^e: its head d, computed alone; None: the bundle's.
        roi: names of the classes that are written; none: all.
        keep_largest: names of the classes of which the largest connected part alone is kept.
        min_volume: class -> ml (pixels in a picture); connected parts that are smaller are taken away.
        split: write one mask a class.
        save_scores: write the class scores of volumes too.
        previews: draw a picture of each case.
        nan, gaps, max_voxels: as `reading.read_study` takes them.
    """

    overlap: float | None = None
    mirror: bool = False
    level: int | None = None
    roi: tuple[str, ...] = ()
    keep_largest: tuple[str, ...] = ()
    min_volume: Mapping[str, float] = field(default_factory=dict)
    split: bool = False
    save_scores: bool = False
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


DEFAULTS = Settings()


def request_of(bundles: Sequence[Bundle], settings: Settings) -> Request:
    """What a run with these bundles and settings is asked for."""
    hashes = [(bundle.root.absolute().name, hash_bundle(bundle.root)) for bundle in bundles]
    return Request(hashes, {name: value for name, value in asdict(settings).items() if name not in _BESIDE})


def adapt(bundle: Bundle, settings: Settings) -> Bundle:
    """The bundle with the overlap, the mirroring and the level that are asked for; itself stays as it is.

    Raises:
        ValueError: what this bundle cannot do.
    """
    settings.wanted(bundle.names)
    if settings.level is not None:
        bundle = replace(bundle, network=_at_level(bundle, settings.level))
    changes: dict[str, Any] = {} if settings.overlap is None else {"overlap": settings.overlap}
    if settings.mirror:
        changes["mirror_axes"] = _mirror_axes(bundle)
    return replace(bundle, inferer=_changed(bundle, changes)) if changes else bundle


def _at_level(bundle: Bundle, level: int) -> UNetPlusPlus:
    network = bundle.network
    if not isinstance(network, UNetPlusPlus):
        raise ValueError(f"level is {level}; {bundle.root.name} is a {type(network).__name__}, only UNet++ has levels.")
    if not 1 <= level <= network.levels or (level < network.levels and not network.deep_supervision):
        allowed = f"1 to {network.levels}" if network.deep_supervision else f"{network.levels}, its only head"
        raise ValueError(f"level is {level}; {bundle.root.name} allows {allowed}.")
    return network.pruned(level).eval()


def _mirror_axes(bundle: Bundle) -> tuple[int, ...]:
    axes = read_metadata(bundle.root).get("mirror_axes") or ()
    if not axes:
        raise ValueError(
            f"{bundle.root.name} allows no mirroring: left and right organs would change sides. Leave --mirror out, or "
            'state "mirror_axes" in its metadata.json where the training mirrored along them.'
        )
    return tuple(axes)


def _changed(bundle: Bundle, changes: Mapping[str, Any]) -> WindowInferer:
    if not isinstance(bundle.inferer, WindowInferer):
        raise ValueError(
            f"{bundle.root.name} slides by {type(bundle.inferer).__name__}; overlap and mirroring are changed of "
            "monai_unetfamily.inference.inferer.WindowInferer alone."
        )
    inferer = copy(bundle.inferer)
    for name, value in changes.items():
        setattr(inferer, name, value)
    inferer.check()
    return inferer

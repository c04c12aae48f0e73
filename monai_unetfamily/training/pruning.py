"""A smaller bundle of a nested network: UNet++ and its relatives cut at a level, which is given or chosen by Dice.

Zhou et al., IEEE TMI 2020 (arXiv 1912.05074), section III-D: under deep supervision each level d of the grid is a whole
network, the nodes X[i, j] with i + j <= d and head d; what lies beyond may be cut away.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from textwrap import fill
from typing import Any

from monai.utils import ensure_tuple_rep

from monai_unetfamily.bundles.bundle import Bundle, copy_bundle, open_bundle
from monai_unetfamily.bundles.checkpoint import save_whole
from monai_unetfamily.bundles.metadata import WEIGHTS, image_shape
from monai_unetfamily.bundles.networks import network_definition, redefine_network
from monai_unetfamily.inference.device import choose_device
from monai_unetfamily.nets import UNetPlusPlus
from monai_unetfamily.training.checks import check_dataset
from monai_unetfamily.training.levels import Level, choose_level, format_levels, measure_levels, profile_levels
from monai_unetfamily.training.split import kept_settings
from monai_unetfamily.volumes.cases import load_cases
from monai_unetfamily.volumes.files import atomic_file, atomic_folder, make_folder, require_free

_LOGGER = logging.getLogger(__name__)
_NAMES = {"all": "UNet++", "neighbours": "UNet+", "none": "UNet^e"}

_CARD = """# {name}

The bundle `{source}` with its {network} of {levels} levels cut at level {level}: the nodes X[i, j] with i + j <=
{level} and head {level}, whose scores are bit for bit those of the whole network's head {level}.

{table}

{notes}

What the weights learned from is in the card of `{source}`. Research use, not diagnosis.
"""
_COUNTED = "GMAC: billions of multiply-accumulate operations in one window of {window} voxels."
_MEASURED = (
    "Dice: the mean over classes on the {cases} validation cases of `{dataset}`. Time: of the network alone on the "
    "windows of a case, the median of the cases, each predicted at all levels before the next, on {device}; reading, "
    "resampling and blending cost the same at all levels and are not counted."
)
_CHOSEN = "Kept is the smallest level whose Dice is at most {tolerance:g} below that of level {deepest}."


def prune(
    bundle: Path,
    output: Path,
    *,
    level: int | None = None,
    dataset: Path | None = None,
    tolerance: float = 0.01,
    device: str = "auto",
    trust: bool = False,
    log: Callable[[str], None] = _LOGGER.info,
) -> list[Level]:
    """Write a smaller bundle, whose network is this one's UNet++, UNet+ or UNet^e cut at a level; return all levels.

    Only the network's definition, the weights and the card differ. Heads below the level stay, so that the new bundle
    can be trained on (a copy of it, started from its weights) and cut again.

    Args:
        bundle: the trained bundle's folder.
        output: new folder for the smaller bundle.
        level: from 1 to the network's last. Without it `choose_level` chooses by the Dice on the data set.
        dataset: every level is timed and evaluated on its validation cases, by the steps of `predict` and `evaluate`;
            those that the bundle's training held out, where its logs say which.
        tolerance: mean Dice that may be lost to the last level, from 0 to 1.
        device: "auto", "cpu", "cuda", "cuda:1", "mps".
        trust: whether the bundle may run code of its own.
        log: is given a line for each case and level.

    Raises:
        FileNotFoundError, FileExistsError: no weights or data set; an output that holds something.
        ValueError: a network that is not nested, or without deep supervision; a level that it lacks; neither level nor
            data set; a data set that does not fit the bundle; a bundle with code of its own that is not trusted.
    """
    _check_request(output, level, dataset, tolerance)
    opened = open_bundle(bundle, choose_device(device), trust=trust)
    networks, definition = _cut(opened, level), network_definition(bundle)
    window = _window(opened, axes=len(networks[1].strides[0]))
    levels, notes = profile_levels(networks, window), [_COUNTED.format(window=" x ".join(map(str, window)))]
    with atomic_folder(output) as room:
        if dataset:
            fold = kept_settings(bundle / "logs").get("fold")
            names = check_dataset(bundle, dataset, log, ["validation"], fold)
            cases = load_cases(dataset, "validation", fold)
            levels = measure_levels(opened, networks, levels, cases, names, log)
            notes.append(_MEASURED.format(cases=len(cases), dataset=dataset.absolute().name, device=opened.device))
        if level is None:
            level = choose_level({each.level: each.dice for each in levels}, tolerance)
            notes.append(_CHOSEN.format(tolerance=tolerance, deepest=len(levels)))
        levels = [replace(each, kept=each.level == level) for each in levels]
        _write_bundle(room, bundle, networks[level], definition, trust=trust)
        _write_card(room, output.name, bundle.absolute().name, networks[level], levels, notes)
    return levels


def _check_request(output: Path, level: int | None, dataset: Path | None, tolerance: float) -> None:
    if level is None and dataset is None:
        raise ValueError("a level is chosen on the validation cases of a data set: name one (--dataset), or the level.")
    if not 0 <= tolerance <= 1:
        raise ValueError(f"tolerance is {tolerance}; a difference of Dice, from 0 to 1, is allowed.")
    require_free(output)


def _cut(bundle: Bundle, level: int | None) -> dict[int, UNetPlusPlus]:
    """The bundle's network at each of its levels, all on its device."""
    network = bundle.network
    if not isinstance(network, UNetPlusPlus):
        raise ValueError(
            f"{bundle.root}: its network is {type(network).__name__}; only the nested ones have levels to cut at: "
            f"{', '.join(_NAMES.values())}."
        )
    if not network.deep_supervision:
        raise ValueError(
            f"{bundle.root}: its network was trained without deep supervision, so that it has no heads at the levels "
            "below its last; train it with deep_supervision: true in metadata.json."
        )
    if level is not None and not 1 <= level <= network.levels:
        raise ValueError(f"level is {level}; {bundle.root} has levels 1 to {network.levels}: choose one of them.")
    return {d: network.pruned(d, inner_heads=True) for d in range(1, network.levels + 1)}


def _window(bundle: Bundle, axes: int) -> tuple[int, ...]:
    """Voxels of the window that slides, or of the image that the metadata states where none does."""
    window = ensure_tuple_rep(getattr(bundle.inferer, "roi_size", 0), axes)
    return window if min(window) > 0 else image_shape(bundle.root)


def _write_bundle(
    room: Path, source: Path, network: UNetPlusPlus, definition: Mapping[str, Any], *, trust: bool
) -> None:
    """The source with this network in place of its own; strides or kernels that all stages share stay as they are."""
    copy_bundle(source, room)
    stages = {"strides": network.strides, "kernel_size": network.kernel_size}
    changed = {key: value for key, value in stages.items() if not isinstance(definition.get(key, 0), int)}
    redefine_network(room, {"features": network.features, **changed, "mode": "fast"}, trust=trust)
    make_folder(room / "models")
    save_whole(network.state_dict(), room / "models" / WEIGHTS)


def _write_card(
    room: Path, name: str, source: str, network: UNetPlusPlus, levels: Sequence[Level], notes: Sequence[str]
) -> None:
    card = _CARD.format(
        name=name,
        source=source,
        network=_NAMES[network.joined],
        level=network.levels,
        levels=len(levels),
        table=format_levels(levels),
        notes=fill(" ".join(notes), width=120),
    )
    with atomic_file(room / "docs" / "README.md") as stream:
        stream.write(card.encode())

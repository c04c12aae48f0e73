"""A MONAI bundle, opened for prediction or training, and copied."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser
from torch import nn

from monai_unetfamily.bundles.agreement import check_background, check_postprocessing
from monai_unetfamily.bundles.metadata import class_names, config_file, weights_file
from monai_unetfamily.bundles.reading import require_inside
from monai_unetfamily.bundles.reasons import reason_of
from monai_unetfamily.bundles.references import read_config
from monai_unetfamily.bundles.trust import PREDICTION, reviewed_parser
from monai_unetfamily.bundles.weights import load_weights
from monai_unetfamily.volumes.cases import IGNORE
from monai_unetfamily.volumes.files import atomic_file, make_folder, require_free

_LEFT_BEHIND = (
    "models",
    "logs",
    "eval",
    "docs",
    "cache",
    "__pycache__",
)  # what belongs to the weights that a copy lacks

_CARD = """# {name}

A copy of the bundle `{source}`, for weights of its own: what they learned, and when, is in `logs/`. Say here what they
were trained and tested on. Research use, not diagnosis.

## Result

<!-- result -->
It has no weights yet: train it first.
<!-- /result -->
"""


@dataclass(frozen=True)
class Bundle:
    """The parts of a bundle that prediction needs, on a device.

    `preprocess` maps {"image": path} to {"image": (C, *spatial)}; `inferer(x, network)` maps (N, C, *spatial) to scores
    (N, classes, *spatial); `postprocess` maps {"image", "pred"} to labels (1, *spatial) on the image's own grid, or to
    masks (classes, *spatial) where classes may overlap. `names` is label id -> name, with 0 for a background alone.
    """

    root: Path
    names: dict[int, str]
    device: torch.device
    network: nn.Module
    preprocess: Callable[..., Any]
    inferer: Callable[..., Any]
    postprocess: Callable[..., Any]


def label_names(root: Path) -> dict[int, str]:
    """Label -> name in the data sets that a bundle trains on: its classes, and "ignore" for voxels without a label.

    The latter is the `ignore_label` of its train config, where it has one.

    Raises:
        FileNotFoundError: no train config.
        ValueError: a config or metadata that cannot be used.

    >>> from monai_unetfamily.bundles.metadata import find_bundle
    >>> label_names(find_bundle("hippocampus_mr"))
    {0: 'background', 1: 'anterior', 2: 'posterior', 255: 'ignore'}
    """
    names, ignored = class_names(root), read_config(root, "train").get("ignore_label")
    if ignored is None:
        return names
    if not isinstance(ignored, int) or ignored in names:
        file = config_file(root, "train")
        raise ValueError(f"{file}: ignore_label is {ignored!r}; null, or a number that is no class, is allowed.")
    return names | {ignored: IGNORE}


def open_bundle(root: Path, device: torch.device, *, trust: bool = False) -> Bundle:
    """Open a bundle for prediction; of its config only the four parts above are resolved, without their savers.

    Args:
        root: its folder.
        device: where its network goes.
        trust: whether it may run code of its own (`trust.review` tells which); ordinary bundles need none.

    Raises:
        FileNotFoundError: a config or the weights are missing.
        UntrustedBundleError: it would run code of its own, and is not trusted; nothing of it has been run.
        ValueError: the config or the weights cannot be used.
    """
    names, file = class_names(root), config_file(root, "inference")
    parser = reviewed_parser(root, "inference", PREDICTION, device, trust=trust)
    preprocess = _resolve(parser, "preprocessing", file)  # first: postprocessing inverts it, and would be blamed
    postprocess = _resolve(parser, "postprocessing", file)
    check_postprocessing(names, postprocess, file)
    network = _resolve(parser, "network_def", file)
    if not isinstance(network, nn.Module):
        raise ValueError(f"{file}: network_def is {type(network).__name__}; a network is needed: name one by _target_.")
    load_weights(network, weights_file(root))
    inferer = _resolve(parser, "inferer", file)
    check_background(names, network, inferer)
    return Bundle(
        root=root,
        names=names,
        device=device,
        network=network.to(device).eval(),
        preprocess=preprocess,
        inferer=inferer,
        postprocess=postprocess,
    )


def training_part(root: Path, part: str, *, trust: bool = False) -> Any:
    """One part of a bundle's train config, such as "loss", as an object.

    Raises:
        FileNotFoundError: no train config.
        UntrustedBundleError: it would run code of its own, and is not trusted.
        ValueError: a config that cannot be used.

    >>> from monai_unetfamily.bundles.metadata import find_bundle
    >>> type(training_part(find_bundle("hippocampus_mr"), "loss")).__name__
    'GuidedLoss'
    """
    parser = reviewed_parser(root, "train", [part], torch.device("cpu"), trust=trust)
    return _resolve(parser, part, config_file(root, "train"))


def copy_bundle(source: Path, target: Path) -> None:
    """Copy a bundle without its weights and logs, and with a card of its own: no figure of the source's holds for it.

    Raises:
        FileExistsError: where the target is there already and not empty.
        ValueError: a link in the source leads out of it; its copy would hold what it leads to.
    """
    require_free(target)
    require_inside(source)
    shutil.copytree(source, target, ignore=shutil.ignore_patterns(*_LEFT_BEHIND), dirs_exist_ok=True)
    make_folder(target / "docs")
    with atomic_file(target / "docs" / "README.md") as stream:
        stream.write(_CARD.format(name=target.name, source=source.name).encode())


def _resolve(parser: ConfigParser, part: str, file: Path) -> Any:
    try:
        return parser.get_parsed_content(part)
    except (RuntimeError, ValueError, TypeError, KeyError, ImportError, SyntaxError) as error:
        raise ValueError(f"{file}: {part} cannot be built: {reason_of(error)}") from error

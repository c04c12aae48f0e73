"""Open a MONAI bundle for prediction or training, verify it, and copy it."""

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.bundle import ConfigParser
from monai.transforms import Compose
from numpy.typing import NDArray
from torch import nn

from monai_unetfamily.bundles.config import IMAGE2D_READER, read_config, takes_only_2d_images
from monai_unetfamily.bundles.config_files import require_inside
from monai_unetfamily.bundles.errors import reason_of
from monai_unetfamily.bundles.metadata import class_names, config_file, image_format, weights_file
from monai_unetfamily.bundles.trust import PREDICTION, reviewed_parser
from monai_unetfamily.bundles.weights import load_weights
from monai_unetfamily.data import IGNORE
from monai_unetfamily.io import atomic_file, is_image2d, make_directory, open_volume, read_channels, require_free

# Whether the parts of a bundle agree with the names of its classes (label id -> name) on what a background is.


def check_background(names: Mapping[int, str], *parts: Any) -> None:
    """Refuse a part (a network, an inferer, a loss) whose `background` says otherwise than the classes' names.

    Softmax where classes overlap would let one class take the other's voxels, without a word. A part that says nothing,
    or None, is passed.

    Raises:
        ValueError: names the part.

    >>> check_background({1: "tumour", 2: "core"}, nn.ReLU())
    """
    has = 0 in names
    modules = [m for part in parts for m in (part.modules() if isinstance(part, nn.Module) else [part])]
    wrong = [type(module).__name__ for module in modules if getattr(module, "background", None) not in (None, has)]
    if wrong:
        raise ValueError(
            f"{wrong[0]} has background={not has}, where channel_def names {list(names.values())}; set it to {has}, or "
            "correct the names."
        )


def check_postprocessing(names: Mapping[int, str], postprocess: Any, file: Path) -> None:
    """Refuse a postprocessing that takes the best class where there is no background.

    It would give every voxel to a class; and of one channel the best is always channel 0, so that the mask is empty.

    Raises:
        ValueError: names `file`.

    >>> check_postprocessing({1: "tumour", 2: "core"}, Compose([]), Path("inference.yaml"))
    """
    steps = postprocess.flatten().transforms if isinstance(postprocess, Compose) else [postprocess]
    if 0 not in names and any(np.any(getattr(step, "argmax", False)) for step in steps):
        raise ValueError(
            f"{file}: postprocessing takes the best class (argmax), though channel_def names no background but "
            f"{list(names.values())}; end with AsDiscreted, threshold: 0.5, or name channel 0 background."
        )


# What a bundle takes: volumes or pictures, and pictures of how many channels and which values.


def check_source(root: Path, paths: Sequence[Path]) -> None:
    """Refuse an image, whose channels may be files of their own, as `check_kind` and, of pictures, `check_values` do.

    Raises:
        FileNotFoundError, ValueError: what they raise, what `open_volume` raises of volumes and `read_channels` of
            pictures, and another number of channels than the bundle takes.

    >>> from monai_unetfamily.bundles import find_bundle
    >>> check_source(find_bundle("hippocampus_mr"), [Path("xray.png")])
    Traceback (most recent call last):
    ValueError: xray.png: is a picture, and hippocampus_mr is for volumes; ...
    """
    for path in paths:
        check_kind(root, path, is_image2d(path))
    if is_image2d(paths[0]):
        values, _ = read_channels(paths)
        check_values(root, paths[0], values)
        return
    got, needed = sum(prod(open_volume(path, channels=True).shape[3:]) for path in paths), image_format(root).channels
    if got != needed:
        ways = "a file a channel, or a 4-D file"
        raise ValueError(f"{paths[0]}: has {got} channels, and {root.name} takes {needed}; give {ways} of as many.")


def check_kind(root: Path, path: Path, picture: bool) -> None:
    """Refuse a picture or a volume where the bundle is for the other, and pictures that its own reader would turn.

    Raises:
        ValueError: says what to do; the metadata does not say.
        FileNotFoundError: the bundle has no inference config.
    """
    ours = takes_only_2d_images(root)
    if picture and image_format(root).axes != 2:
        raise ValueError(
            f"{path}: is a picture, and {root.name} is for volumes; give NIfTI files, or choose a 2-D bundle."
        )
    if picture and not ours:
        raise ValueError(
            f"{path}: {root.name} learned from pictures that its reader turned; name monai_unetfamily.transforms."
            f"{IMAGE2D_READER} in its LoadImaged, and train it anew."
        )
    if ours and not picture:
        raise ValueError(
            f"{path}: is no PNG or TIFF, and {root.name} takes these alone; convert it, or choose a bundle for volumes."
        )


def check_values(root: Path, path: Path, values: NDArray[np.float32]) -> None:
    """Refuse a picture (C, rows, columns) unlike what the bundle's metadata states.

    Its `network_data_format` has `num_channels`, and the `value_range` of values as stored; an empty one is no limit.

    Raises:
        ValueError: says what to do.
    """
    stated = image_format(root)
    if len(values) != stated.channels:
        raise ValueError(
            f"{path}: has {len(values)} channels, and {root.name} takes {stated.channels} (1 is greyscale, 3 RGB); "
            "convert it, or choose another bundle."
        )
    if values.min() < stated.low or values.max() > stated.high:
        raise ValueError(
            f"{path}: has values from {values.min():g} to {values.max():g}, and {root.name} takes {stated.low:g} to "
            f"{stated.high:g}; scale it as the bundle's own pictures were, or choose another bundle."
        )


# A MONAI bundle, opened for prediction or training, and copied.

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

    >>> from monai_unetfamily.bundles import find_bundle
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
        trust: allow the bundle to run code (`trust.review` lists what it would run); most bundles need none.

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

    >>> from monai_unetfamily.bundles import find_bundle
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
    make_directory(target / "docs")
    with atomic_file(target / "docs" / "README.md") as stream:
        stream.write(_CARD.format(name=target.name, source=source.name).encode())


def _resolve(parser: ConfigParser, part: str, file: Path) -> Any:
    try:
        return parser.get_parsed_content(part)
    except (RuntimeError, ValueError, TypeError, KeyError, ImportError, SyntaxError) as error:
        raise ValueError(f"{file}: {part} cannot be built: {reason_of(error)}") from error

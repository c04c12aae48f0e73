"""Whether the parts of a bundle agree with the names of its classes (label id -> name) on what a background is."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from monai.transforms import Compose
from torch import nn


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

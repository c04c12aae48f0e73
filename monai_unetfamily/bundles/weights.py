"""Weights from a file into a network, held against it first: names, shapes, kinds of numbers; and all are finite."""

from collections.abc import Mapping
from pathlib import Path
from textwrap import shorten

import torch
from torch import Tensor, nn

from monai_unetfamily.bundles.states import listed, read_weights
from monai_unetfamily.nets import SkipFCN  # loads them all, so that a short _target_ resolves in a bundle

_WRAPPERS = ("module.", "_orig_mod.")  # what DataParallel and torch.compile put before every name
_REAL = {torch.float64, torch.float32, torch.float16, torch.bfloat16}  # 8-bit floats mean nothing without their scales


def load_weights(network: nn.Module, file: Path) -> None:
    """Load a file of weights (tensors alone, never code) into a network.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a file of weights, weights of another network or that are not finite; the message names them.
    """
    weights = _by_its_names(network, file)
    if differences := _differences(weights, network.state_dict()):
        raise _unfit(network, file, differences)
    network.load_state_dict(weights)
    _require_finite(network, file)


def start_from(network: nn.Module, file: Path) -> None:
    """Load a file of weights to train on from: those of the network, or for an FCN those of one with fewer skips.

    Raises:
        FileNotFoundError, ValueError: as `load_weights`.
    """
    if not isinstance(network, SkipFCN):
        return load_weights(network, file)
    try:
        network.start_from(_by_its_names(network, file))
    except RuntimeError as error:
        raise _unfit(network, file, shorten(str(error), width=300, placeholder=" ...")) from error
    _require_finite(network, file)


def _by_its_names(network: nn.Module, file: Path) -> dict[str, Tensor]:
    """The weights by the network's own names, whatever it was wrapped in when they were saved."""
    weights, own = read_weights(file), network.state_dict()
    for wrapper in _WRAPPERS:
        if all(key.startswith(wrapper) for key in weights) and not any(key.startswith(wrapper) for key in own):
            weights = {key.removeprefix(wrapper): weight for key, weight in weights.items()}
    return weights


def _require_finite(network: nn.Module, file: Path) -> None:
    """Refuse what was loaded where it is NaN or infinite."""
    loaded = network.state_dict().items()
    if bad := [key for key, weight in loaded if weight.is_floating_point() and not weight.isfinite().all()]:
        raise ValueError(
            f"{file}: holds numbers that are not finite, in {listed(bad, 3)}: what such a network says means nothing; "
            "take weights from before the training failed, such as model_best.pt, or train anew."
        )


def _differences(weights: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> str:
    """What there is in one and not in the other, and what has another shape or other numbers; empty if they agree."""
    shared = [key for key in own if key in weights]
    shapes = [key for key in shared if weights[key].shape != own[key].shape]
    kinds = [key for key in shared if not _can_become(weights[key], own[key])]
    found = {
        "lacks": [key for key in own if key not in weights],
        "has besides": [key for key in weights if key not in own],
        "other shapes:": [f"{k} {tuple(weights[k].shape)} for {tuple(own[k].shape)}" for k in shapes],
        "other numbers:": [f"{k} {_kind(weights[k])} for {_kind(own[k])}" for k in kinds],
    }
    return "; ".join(f"{what} {listed(names, 3)}" for what, names in found.items() if names)


def _can_become(weight: Tensor, own: Tensor) -> bool:
    same = weight.dtype == own.dtype or {weight.dtype, own.dtype} <= _REAL
    return same and weight.layout == own.layout and not weight.is_meta


def _kind(weight: Tensor) -> str:
    """Such as "int8", or "float32 (sparse_coo)"."""
    dtype, layout = (str(each).removeprefix("torch.") for each in (weight.dtype, weight.layout))
    return dtype if layout == "strided" else f"{dtype} ({layout})"


def _unfit(network: nn.Module, file: Path, differences: str) -> ValueError:
    return ValueError(
        f"{file}: these weights do not fit {type(network).__name__}: {differences}. Give those of the same network, or "
        "choose the network that they were trained as."
    )

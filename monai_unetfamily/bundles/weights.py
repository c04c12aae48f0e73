"""Weights from a file into a network: tensors alone, never code."""

from collections.abc import Callable
from pathlib import Path
from pickle import UnpicklingError
from textwrap import shorten
from typing import Any

import torch
from torch import nn

from monai_unetfamily.nets import SkipFCN  # loads them all, so that a short _target_ resolves in a bundle


def load_weights(network: nn.Module, file: Path) -> None:
    """Load a file of weights (tensors alone, never code) into a network.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a file of weights, or weights of another network; the message names what differs.
    """
    _load(network.load_state_dict, network, file)


def start_from(network: nn.Module, file: Path) -> None:
    """Load a file of weights to train on from: those of the network, or for an FCN those of one with fewer skips.

    Raises:
        FileNotFoundError, ValueError: as `load_weights`.
    """
    _load(network.start_from if isinstance(network, SkipFCN) else network.load_state_dict, network, file)


def _load(load: Callable[[dict[str, Any]], object], network: nn.Module, file: Path) -> None:
    if not file.is_file():
        raise FileNotFoundError(
            f"{file}: no weights there; train the bundle first: unetfamily train BUNDLE --dataset DIR."
        )
    weights = _read_weights(file)
    try:
        load(weights)
    except RuntimeError as error:
        reason = shorten(str(error), width=300, placeholder=" ...")
        raise ValueError(
            f"{file}: these weights do not fit {type(network).__name__}: {reason} Give those of the same network, or "
            "choose the network that they were trained as."
        ) from error


def _read_weights(file: Path) -> dict[str, Any]:
    try:
        weights = torch.load(file, map_location="cpu", weights_only=True)
    except (RuntimeError, UnpicklingError, OSError, EOFError, ValueError, KeyError) as error:
        raise ValueError(f"{file}: not a file of weights, or a damaged one; give what torch.save wrote.") from error
    if not isinstance(weights, dict):
        raise ValueError(f"{file}: holds {type(weights).__name__}; a state_dict is needed, by its keys.")
    return dict(weights.get("network", weights))

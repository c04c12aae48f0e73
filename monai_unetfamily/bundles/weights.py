"""Load weights and checkpoints safely, and verify that they fit a network."""

import re
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path
from pickle import UnpicklingError
from textwrap import shorten
from typing import Any
from warnings import catch_warnings

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from monai_unetfamily.nets import SkipFCN

# Files of weights and checkpoints, read as tensors, numbers and texts alone: what would have to be run is refused.


_WRAPPED_AS = ("network", "model", "state_dict")  # by this package and by MONAI, by MONAI's zoo, by many others
_UNREADABLE = (  # torch's unpickler takes damaged bytes at their word
    *(UnpicklingError, struct.error, OSError, EOFError, RuntimeError, MemoryError, ValueError, TypeError),
    *(LookupError, AttributeError, ArithmeticError, AssertionError),
)
_GLOBAL = re.compile(r"GLOBAL (\S+)")


def read_states(file: Path) -> dict[str, Any]:
    """What `torch.save` or safetensors wrote, without running anything of it.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a file of another kind, a damaged file, or a file that would run code when it is read.
    """
    if not file.is_file():
        raise FileNotFoundError(
            f"{file}: no weights there; train the bundle first: unetfamily train BUNDLE --dataset DIR."
        )
    states = _read_safetensors(file) if file.suffix.lower() == ".safetensors" else _read_torch(file)
    if not isinstance(states, dict):
        raise ValueError(f"{file}: holds {type(states).__name__}; a state_dict is needed, by its keys.")
    return states


def read_weights(file: Path) -> dict[str, Tensor]:
    """A state_dict, which stands alone in its file or under "network", "model" or "state_dict" beside other things.

    Raises:
        FileNotFoundError, ValueError: as `read_states`; no state_dict, or several of which any might be meant.
    """
    states = read_states(file)
    if _is_state_dict(states):
        return dict(states)
    found = [name for name in _WRAPPED_AS if _is_state_dict(states.get(name))]
    if len(found) != 1:
        holds = f"state_dicts under {' and '.join(found)}" if found else f"{listed(map(str, states)) or 'nothing'}"
        raise ValueError(
            f"{file}: holds {holds}; one state_dict is needed, alone or under one of {', '.join(_WRAPPED_AS)}: save "
            "the network's alone."
        )
    return dict(states[found[0]])


def _is_state_dict(thing: Any) -> bool:
    return isinstance(thing, dict) and bool(thing) and all(isinstance(each, Tensor) for each in thing.values())


def listed(names: Iterable[str], most: int = 5) -> str:
    """Names in a row, and how many more there are.

    >>> listed("abcdefg")
    'a, b, c, d, e and 2 more'
    """
    names = list(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _read_safetensors(file: Path) -> Any:
    try:
        return load_file(file)
    except (SafetensorError, OSError, ValueError, RuntimeError, MemoryError) as error:
        raise ValueError(f"{file}: cannot be read as safetensors ({_in_a_line(error)}); get the file anew.") from error


def _read_torch(file: Path) -> Any:
    try:
        with catch_warnings(action="ignore"):  # of pickles in a form that torch does not write
            return torch.load(file, map_location="cpu", weights_only=True)
    except _UNREADABLE as error:
        raise ValueError(
            f"{file}: {_wrong_with(error)}, and nothing of it was run; give weights alone, as safetensors or "
            "torch.save(network.state_dict(), FILE) write them."
        ) from error


def _wrong_with(error: Exception) -> str:
    """Why torch did not read a file.

    >>> _wrong_with(ValueError("Unsupported global: GLOBAL posix.system was not an allowed global by default."))
    'is a pickle that needs posix.system, which is no tensor'
    """
    if isinstance(error, MemoryError):
        return "claims more than fits in memory"
    if needed := _GLOBAL.search(str(error)):
        return f"is a pickle that needs {needed[1]}, which is no tensor"
    return "is a program (TorchScript)" if "TorchScript" in str(error) else "is not a file of weights, or a damaged one"


def _in_a_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


# Load weights into a network after names, shapes and types are compared, and all values are finite.

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

"""Files of weights and checkpoints, read as tensors, numbers and texts alone: what would have to be run is refused."""

import re
import struct
from collections.abc import Iterable
from pathlib import Path
from pickle import UnpicklingError
from typing import Any
from warnings import catch_warnings

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

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
        ValueError: something else, a damaged file, or one that runs code when it is read.
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

"""Which device to run on."""

import torch


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

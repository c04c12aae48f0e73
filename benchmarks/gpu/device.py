"""Whether there is a CUDA device that torch can use, and what to do where there is none."""

import subprocess
from functools import cache
from pathlib import Path

import torch

from benchmarks.machine import machine
from benchmarks.measure import reason


def problem() -> str | None:
    """One line that says why torch cannot use a CUDA device, with the fix; None where it can."""
    if torch.cuda.is_available():
        return None
    devices = listed_devices()
    if not devices:
        return "no CUDA device: torch finds none and nvidia-smi lists none; run this on a machine with an NVIDIA GPU."
    if torch.version.cuda is None:
        number = torch.__version__.partition("+")[0]
        return (
            f"nvidia-smi lists {devices[0]}, but torch {torch.__version__} is built without CUDA: replace it with "
            f".venv/bin/python -m pip install -c constraints.txt 'torch==={number}', which leaves out local CPU builds."
        )
    return (
        f"nvidia-smi lists {devices[0]}, but torch {torch.__version__} (CUDA {torch.version.cuda}) cannot use it "
        f"({_refusal()}): update the NVIDIA driver, or install the torch build for the CUDA version that nvidia-smi "
        "shows."
    )


def listed_devices() -> list[str]:
    """The devices that the driver's own program lists, one line each; empty where there is no driver."""
    try:
        answer = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return [line.partition(" (UUID")[0] for line in answer.stdout.splitlines() if line.startswith("GPU")]


@cache
def gpu_machine() -> dict[str, str | int]:
    """The header of every table: the machine, and what else decides a GPU's speed."""
    if not torch.cuda.is_available():
        return machine()
    return {
        **machine(),
        "devices": torch.cuda.device_count(),
        "cuda": str(torch.version.cuda),
        "cudnn": str(torch.backends.cudnn.version()),
        "driver": _driver(),
    }


def _driver() -> str:
    """The version of the NVIDIA kernel driver, where Linux tells it."""
    file = Path("/sys/module/nvidia/version")
    return file.read_text("utf-8").strip() if file.is_file() else "unknown"


def _refusal() -> str:
    try:
        torch.cuda.init()
    except (RuntimeError, AssertionError) as error:
        return reason(error)
    return "torch gives no reason"

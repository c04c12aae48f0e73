"""What the figures were measured on."""

import platform
from datetime import date
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import torch

PACKAGES = ("torch", "monai", "monai_unetfamily", "nnunetv2")


def machine() -> dict[str, str | int]:
    """Processor, threads, instruction sets, versions and the day: the header of every table."""
    return {
        "processor": _processor(),
        "threads": torch.get_num_threads(),
        "instructions": _instructions(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
        "python": platform.python_version(),
        **{package: version(package) for package in PACKAGES if find_spec(package)},
        "onednn": "on" if torch.backends.mkldnn.is_available() and torch.backends.mkldnn.enabled else "off",
        "date": date.today().isoformat(),
    }


def in_one_line(header: dict[str, str | int]) -> str:
    """The header as a sentence's worth of words.

    >>> in_one_line({"threads": 2, "torch": "2.13.0"})
    'threads 2, torch 2.13.0'
    """
    return ", ".join(f"{name} {value}" for name, value in header.items())


def _processor() -> str:
    """The name that Linux gives the processor."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.machine())


def _instructions() -> str:
    """The widest that torch uses, and whether the processor has matrix tiles (which float32 does not use)."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    flags = next((line.split() for line in lines if line.startswith("flags")), [])
    return " ".join([torch.backends.cpu.get_cpu_capability(), *sorted(f for f in flags if f.startswith("amx"))])

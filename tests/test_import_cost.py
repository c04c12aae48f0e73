"""Opening the package or asking the command for help loads no heavy library."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = {"torch", "monai", "numpy"}


def loaded_packages(*arguments: str) -> set[str]:
    """Return the top-level packages that a fresh interpreter imports, as its own import log names them."""
    command = [sys.executable, "-X", "importtime", *arguments]
    done = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True, check=True)
    return set(re.findall(r"^import time:.*\| +([^\s.]+)", done.stderr, re.MULTILINE))


@pytest.mark.parametrize(
    "arguments",
    [("-c", "import monai_unetfamily"), ("-m", "monai_unetfamily.cli", "--help")],
    ids=["import", "help"],
)
def test_loads_nothing_heavy(arguments: tuple[str, ...]) -> None:
    loaded = loaded_packages(*arguments)
    assert "monai_unetfamily" in loaded
    assert not loaded & HEAVY


@pytest.mark.slow
def test_a_bundle_is_described_without_torch_and_monai() -> None:
    describe = "from monai_unetfamily.bundles import card, metadata; card.read_card(metadata.find_bundle('phantom_2d'))"
    loaded = loaded_packages("-c", describe)
    assert {"numpy", "yaml"} <= loaded
    assert not loaded & {"torch", "monai"}


def test_a_heavy_import_would_be_seen() -> None:
    assert "numpy" in loaded_packages("-c", "import numpy.linalg")

"""What importing the package, asking the command for help, resolving a bundle's names and predicting load.

torch's default wheel for Linux brings triton, whose LLVM and that of Mesa's software OpenGL end the process together:
in napari nothing may load it. A stand-in for triton makes an import of it visible where torch is a CPU build.
"""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
HEAVY = {"torch", "monai", "numpy"}
TRITON = ("triton", "torch.utils.flop_counter", "torch._dynamo", "torch._inductor")
OPTIONAL = (*TRITON, "ray", "napari", "matplotlib")  # no module of monai_unetfamily loads them at import

BEGIN = """
import json, sys
sys.path.insert(0, sys.argv[1])  # the stand-in
arguments = sys.argv[2:]

def loaded(names):
    return [name for name in names if sys.modules.get(name)]
"""
# MONAI loads matplotlib where it finds it, and works without it; so does each module of ours until it draws.
WITHOUT_MATPLOTLIB = "sys.modules['matplotlib'] = None"

SEARCH = """
from monai.bundle import ConfigParser
size = {"spatial_dims": 3, "in_channels": 1, "out_channels": 2, "features": [4, 8]}
parser = ConfigParser({"imports": ["$import monai_unetfamily.nets"], "net": {"_target_": "UNet3Plus", **size}})
parser.get_parsed_content("imports")
before = set(sys.modules)
net = parser.get_parsed_content("net")
ours = sorted(name for name in set(sys.modules) - before if name.startswith("monai_unetfamily"))
answer = [type(net).__module__, ours]
"""

EACH_MODULE = """
from importlib import import_module
from monai.bundle.config_item import ComponentLocator
answer = {}
for module in arguments:
    before = loaded(OPTIONAL)
    import_module(module)
    if more := [name for name in loaded(OPTIONAL) if name not in before]:
        answer[module] = more
ComponentLocator().get_component_module_name("UNet3Plus")
"""

PREDICTION = """
from pathlib import Path
from threading import Event
from monai_unetfamily.prediction import Settings
from monai_unetfamily.io import read_study
from monai_unetfamily.data import find_studies
from napari_plugin.session import Ask, Opened, Result, open_chosen, run

bundle, image = map(Path, arguments)
opened = open_chosen(bundle, "cpu", ())
assert isinstance(opened, Opened), opened
[study] = find_studies([image]).studies
steps = run(Ask(opened.bundle, lambda: read_study(study), image.name, Settings()), Event())
while True:
    try:
        next(steps)
    except StopIteration as end:
        answer = type(end.value).__name__
        break
"""


def loaded_packages(*arguments: str) -> set[str]:
    """Return the top-level packages that a fresh interpreter imports, as its own import log names them."""
    command = [sys.executable, "-X", "importtime", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
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


def fresh(code: str, folder: Path, names: tuple[str, ...], *arguments: str | Path) -> Any:
    """Run code that leaves an `answer` in a fresh interpreter, with a stand-in for triton.

    Returns the answer and those of the names that are loaded at the end.
    """
    (folder / "triton").mkdir()
    (folder / "triton/__init__.py").write_text("__version__ = '3.0.0'\n")
    begin = [BEGIN, WITHOUT_MATPLOTLIB] if "matplotlib" in names else [BEGIN]
    script = "\n".join([*begin, f"OPTIONAL = {names}", code, "print(json.dumps([answer, loaded(OPTIONAL)]))"])
    command = [sys.executable, "-W", "ignore", "-c", script, folder, *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
def test_a_class_search_imports_nothing(tmp_path: Path) -> None:
    answer, loaded = fresh(SEARCH, tmp_path, OPTIONAL)
    assert answer == ["monai_unetfamily.nets.unet3plus", []]
    assert loaded == []


@pytest.mark.slow
def test_no_module_loads_an_optional_library_at_import(tmp_path: Path) -> None:
    """All of them in one interpreter, then MONAI's class search over all: module -> what it was the first to load."""
    files = [file.relative_to(ROOT).with_suffix("") for file in ROOT.glob("monai_unetfamily/**/*.py")]
    parts = [file.parts for file in files if "templates" not in file.parts and file.name != "__main__"]
    modules = sorted(".".join(names).removesuffix(".__init__") for names in parts)
    assert {"monai_unetfamily", "monai_unetfamily.nets.profiling"} <= set(modules)
    assert fresh(EACH_MODULE, tmp_path, OPTIONAL, *modules, "napari_plugin") == [{}, []]


@pytest.mark.slow
def test_choosing_a_bundle_and_predicting_load_no_triton(tmp_path: Path, bundle: Path, image: Path) -> None:
    """What the widget runs in its worker's thread."""
    assert fresh(PREDICTION, tmp_path, TRITON, bundle, image) == ["Result", []]


def test_a_stand_in_would_be_seen(tmp_path: Path) -> None:
    assert fresh("import triton; answer = None", tmp_path, TRITON) == [None, ["triton"]]

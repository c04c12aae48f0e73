"""The floors of the package and the rooms that must not exist, proved on the syntax trees.

Each check takes one source file and yields its offences as (line, what). It is tried first on a small bad
example, which it must report, and on a good one, which it must pass; then on every file of the packages.
"""

import ast
import re
import tomllib
from collections.abc import Callable, Iterator
from functools import cache
from importlib.util import resolve_name
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
FRONT_DOOR = "__init__"  # monai_unetfamily/__init__.py shows floors 0 to 3; only floor 4 walks in through it
FLOORS = {
    "nets": 0,
    "losses": 0,
    "volumes": 0,
    "bundles": 1,
    "inference": 2,
    "evaluation": 2,
    "training": 3,
    "demo": 3,
    FRONT_DOOR: 3.5,
    "cli": 4,
    "napari_plugin": 4,
}
# inside nets: what every member may import
BUILDING_BLOCKS = {"blocks", "checks", "convolution", "norms", "small_grids", "upsampling"}
OVERVIEWS = {"__init__", "registry", "profiling", "diagram"}  # inside nets: what may import every member
MEMBERS_KNOWN = {("unet3plus", "cgm")}  # every other file of nets is a member, and knows no other member
GUI = {"napari", "qtpy", "magicgui", "superqt"}
HEAVY = {"torch", "monai"}  # seconds, which opening the plugin's widget must not cost
NO_ROOMS = {"utils", "helpers", "common"}
MOST_LINES = 600


@cache
def parsed(text: str) -> ast.Module:
    return ast.parse(text)


class Source(NamedTuple):
    """One file: its dotted name (monai_unetfamily.nets.unet, monai_unetfamily.nets.__init__) and its text."""

    module: str
    text: str

    @property
    def nodes(self) -> Iterator[ast.AST]:
        return ast.walk(parsed(self.text))

    @property
    def imports(self) -> Iterator[tuple[int, str]]:
        """Absolute dotted names with their lines; `from a import b` is a.b, whether b is a module or not."""
        package = self.module.rpartition(".")[0]
        for node in self.nodes:
            if isinstance(node, ast.Import):
                yield from ((node.lineno, alias.name) for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                base = resolve_name("." * node.level + (node.module or ""), package)
                yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)


Offences = Iterator[tuple[int, str]]


def room(dotted: str) -> str:
    """Name the room of the floor plan: "nets" for monai_unetfamily.nets.unet.PlainUNet."""
    head, *rest = dotted.split(".")
    return head if head == "napari_plugin" or not rest else rest[0]


def imports_point_down(source: Source) -> Offences:
    own = room(source.module)
    if own not in FLOORS:
        yield 1, f"the room {own!r} is on no floor"
        return
    for line, name in source.imports:
        ours = name.split(".")[0] in {"monai_unetfamily", "napari_plugin"}
        target = room(name) if room(name) in FLOORS else FRONT_DOOR
        if ours and target != own and FLOORS[target] >= FLOORS[own] and not name.endswith(".__version__"):
            yield line, f"{own} imports {name}, which is not below it"


def members_do_not_know_each_other(source: Source) -> Offences:
    nets, _, own = source.module.rpartition(".")
    if nets != "monai_unetfamily.nets" or own in OVERVIEWS:
        return
    for line, name in source.imports:
        target = name.removeprefix(f"{nets}.").split(".")[0]
        known = target in BUILDING_BLOCKS or (own, target) in MEMBERS_KNOWN
        if (name == nets or name.startswith(f"{nets}.")) and not known:
            yield line, f"{own} imports {name}"


def only_the_plugin_imports_a_gui(source: Source) -> Offences:
    if room(source.module) != "napari_plugin":
        yield from ((line, f"imports {name}") for line, name in source.imports if name.split(".")[0] in GUI)


def the_plugin_opens_without_torch(source: Source) -> Offences:
    tree = parsed(source.text)
    for node in tree.body if room(source.module) == "napari_plugin" else []:
        names = (
            Source(source.module, ast.unparse(node)).imports if isinstance(node, ast.Import | ast.ImportFrom) else ()
        )
        yield from ((node.lineno, f"imports {name}") for _, name in names if name.split(".")[0] in HEAVY)


def no_nameless_rooms(source: Source) -> Offences:
    yield from ((1, f"a room named {part}") for part in source.module.split(".") if part in NO_ROOMS)


def files_stay_short(source: Source) -> Offences:
    lines = source.text.count("\n")
    if lines > MOST_LINES:
        yield lines, f"{lines} lines, at most {MOST_LINES}"


def no_assert(source: Source) -> Offences:
    yield from ((node.lineno, "assert") for node in source.nodes if isinstance(node, ast.Assert))


def no_print(source: Source) -> Offences:
    if room(source.module) == "cli":
        return
    calls = (node for node in source.nodes if isinstance(node, ast.Call))
    yield from ((call.lineno, "print") for call in calls if ast.unparse(call.func) == "print")


def raises_others_first(handler: ast.ExceptHandler) -> bool:
    """Whether its first statement is `if ...: raise`."""
    first = handler.body[0]
    last = first.body[-1] if isinstance(first, ast.If) else None
    return isinstance(last, ast.Raise) and last.exc is None


def no_guessing_except(source: Source) -> Offences:
    for node in source.nodes:
        if isinstance(node, ast.ExceptHandler):
            caught = {ast.unparse(part) for part in ast.walk(node.type)} if node.type else {"Exception"}
            if caught & {"Exception", "BaseException"} and not raises_others_first(node):
                yield node.lineno, "catches every exception"


def no_pickle(source: Source) -> Offences:
    pickles = (item for item in source.imports if item[1].split(".")[0] == "pickle")
    yield from (
        (line, f"imports {name}") for line, name in pickles if name != "pickle.UnpicklingError"
    )  # torch raises it
    opens_pickles = {"weights_only=False", "allow_pickle=True"}
    for node in source.nodes:
        if isinstance(node, ast.keyword) and ast.unparse(node) in opens_pickles:
            yield node.lineno, ast.unparse(node)


def text_names_its_encoding(source: Source) -> Offences:
    """Windows and bare machines have others than UTF-8; some libraries change it on the way (GDCM's writer)."""
    place = {"read_text": 0, "write_text": 1}  # of the encoding among the arguments
    for node in source.nodes:
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute | ast.Name):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else node.func.id
        said = {keyword.arg for keyword in node.keywords}
        texts = name in place or (name in {"open", "fdopen"} and ("newline" in said or _opens_text(node)))
        by_place = name in place and len(node.args) > place[name]
        if texts and not by_place and "encoding" not in said:
            yield node.lineno, ast.unparse(node)


def _opens_text(node: ast.Call) -> bool:
    """Whether a file's mode stands among the arguments, without a b."""
    modes = [part.value for part in [*node.args, *(k.value for k in node.keywords)] if isinstance(part, ast.Constant)]
    return any(isinstance(mode, str) and re.fullmatch(r"[rwxa]t?\+?", mode) is not None for mode in modes)


Example = tuple[Callable[[Source], Offences], str, str]
# check, file, what it must report there
BAD: list[Example] = [
    (imports_point_down, "attic", ""),
    (imports_point_down, "nets.unet", "from ..losses import GuidedLoss"),
    (imports_point_down, "volumes.nifti", "from monai_unetfamily import nets"),
    (imports_point_down, "bundles.export", "def f():\n    import monai_unetfamily.training.run"),
    (imports_point_down, "evaluation", "from .inference.report import table"),
    (imports_point_down, "training.run", "import monai_unetfamily as uf"),
    (imports_point_down, "training.run", "from .. import UNet3Plus"),
    (imports_point_down, "cli", "from napari_plugin import widget"),
    (members_do_not_know_each_other, "nets.unet", "from .cgm import Head"),
    (members_do_not_know_each_other, "nets.cgm", "from .unet3plus import UNet3Plus"),
    (members_do_not_know_each_other, "nets.unet3plus", "from . import registry"),
    (members_do_not_know_each_other, "nets.blocks", "from monai_unetfamily.nets import UNet3Plus"),
    (members_do_not_know_each_other, "nets.fcn", "from monai_unetfamily import nets"),
    (only_the_plugin_imports_a_gui, "volumes.nifti", "from napari.layers import Image"),
    (only_the_plugin_imports_a_gui, "cli", "def f():\n    import qtpy.QtCore"),
    (no_nameless_rooms, "nets.utils", ""),
    (no_nameless_rooms, "common.files", ""),
    (files_stay_short, "losses", "\n" * 601),
    (no_assert, "losses", "assert ok, 'no'"),
    (no_print, "losses", "def f():\n    print('hi')"),
    (no_guessing_except, "losses", "try: f()\nexcept: pass"),
    (no_guessing_except, "losses", "try: f()\nexcept (OSError, Exception): pass"),
    (no_guessing_except, "losses", "try: f()\nexcept Exception:\n    g()\n    if bad: raise"),
    (no_pickle, "losses", "from pickle import load"),
    (no_pickle, "losses", "torch.load(path, weights_only=False)"),
    (no_pickle, "losses", "numpy.load(path, allow_pickle=True)"),
    (text_names_its_encoding, "losses", "path.read_text()"),
    (text_names_its_encoding, "losses", "path.write_text('a', newline='')"),
    (text_names_its_encoding, "losses", "path.open(newline='')"),
    (text_names_its_encoding, "losses", "open(path, 'w')"),
    (text_names_its_encoding, "losses", "os.fdopen(number, mode='a')"),
]
# check, file, what it must pass there
GOOD: list[Example] = [
    (imports_point_down, "cli", "import monai_unetfamily as uf"),
    (imports_point_down, "training.run", "from .. import __version__\nfrom ..evaluation import evaluate"),
    (imports_point_down, "nets.unet", "import torch\nfrom .blocks import ConvBlock"),
    (members_do_not_know_each_other, "nets.unet3plus", "from .cgm import Head\nfrom . import blocks"),
    (members_do_not_know_each_other, "nets.registry", "from . import unet, unet3plus"),
    (only_the_plugin_imports_a_gui, "volumes.nifti", "import nibabel"),
    (no_nameless_rooms, "volumes.nifti", "from monai import utils"),
    (files_stay_short, "losses", "\n" * 600),
    (no_assert, "losses", "if not ok:\n    raise ValueError"),
    (no_guessing_except, "losses", "try: f()\nexcept Exception as error:\n    if type(error) is not Exception: raise"),
    (no_print, "cli", "print('done')"),
    (no_print, "cli.networks", "print('done')"),
    (no_print, "losses", "'>>> print(1)'"),
    (no_guessing_except, "losses", "try: f()\nexcept ValueError: raise Exception"),
    (no_pickle, "losses", "from pickle import UnpicklingError\ntorch.load(path, weights_only=True)"),
    (text_names_its_encoding, "losses", "path.read_text('utf-8'), path.write_text('a', encoding='utf-8')"),
    (text_names_its_encoding, "losses", "path.open('wb'), Image.open(path), open(path, 'a', encoding='utf-8')"),
]
CHECKS = [*dict.fromkeys(check for check, *_ in BAD), the_plugin_opens_without_torch]
FILES = sorted(path for name in ("monai_unetfamily", "napari_plugin") for path in (ROOT / name).rglob("*.py"))


def names(examples: list[Example]) -> list[str]:
    return [f"{check.__name__}-{file}" for check, file, _ in examples]


def test_files_are_found() -> None:
    assert ROOT / "monai_unetfamily" / "__init__.py" in FILES


@pytest.mark.parametrize(("check", "file", "text"), BAD, ids=names(BAD))
def test_check_reports_a_bad_example(check: Callable[[Source], Offences], file: str, text: str) -> None:
    assert len(list(check(Source(f"monai_unetfamily.{file}", text)))) == 1


@pytest.mark.parametrize(("check", "file", "text"), GOOD, ids=names(GOOD))
def test_check_passes_a_good_example(check: Callable[[Source], Offences], file: str, text: str) -> None:
    assert list(check(Source(f"monai_unetfamily.{file}", text))) == []


def test_the_plugin_may_import_a_gui_and_the_package() -> None:
    widget = Source("napari_plugin.widget", "import napari\nfrom monai_unetfamily.inference import predictor")
    assert not [offence for check in CHECKS for offence in check(widget)]


def test_the_plugin_imports_torch_inside_functions_alone() -> None:
    inside = Source("napari_plugin.session", "def f():\n    import torch")
    outside = Source("napari_plugin.session", "from torch import nn\nimport monai.data")
    assert not list(the_plugin_opens_without_torch(inside))
    assert [line for line, _ in the_plugin_opens_without_torch(outside)] == [1, 2]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_every_file(check: Callable[[Source], Offences]) -> None:
    offences = [
        f"{path.relative_to(ROOT)}:{line}: {what}"
        for path in FILES
        for line, what in check(Source(".".join(path.relative_to(ROOT).with_suffix("").parts), path.read_text("utf-8")))
    ]
    assert offences == []


def test_every_package_is_in_the_wheel() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    found = {".".join(file.parent.relative_to(ROOT).parts) for file in ROOT.glob("monai_unetfamily/**/__init__.py")}
    assert set(settings["packages"]) == found | {"monai_unetfamily.configs", "napari_plugin"}

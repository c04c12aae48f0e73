"""The layers of the package, the interfaces of its packages and what no file may hold, by the syntax trees.

Each check takes one source file and yields its offences as (line, what). It is tried first on a small bad
example, which it must report, and on a good one, which it must pass; then on every file of the packages.
"""

import ast
import re
import tomllib
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache
from importlib import import_module
from importlib.util import resolve_name
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
ROOT_INTERFACE = "__init__"  # monai_unetfamily/__init__.py offers names of all layers below; only cli and napari use it
LAYERS = {  # a package imports from packages with a lower number
    "io": 0,
    "nets": 0,
    "losses": 1,
    "transforms": 1,
    "inferers": 1,
    "data": 2,
    "bundles": 3,
    "handlers": 4,
    "prediction": 4,
    "evaluation": 4,
    "reporting": 5,
    "cohort": 6,
    "planning": 7,
    "training": 8,
    "comparison": 9,
    "integrations": 10,
    "demo": 10,
    ROOT_INTERFACE: 11,
    "cli": 12,
    "napari_plugin": 12,
}
NETWORK_SUPPORT = {"arguments", "layers"}  # inside nets: what every network may import
NETWORK_OVERVIEWS = {"__init__", "registry", "profiling"}  # inside nets: what may import every network
NETWORKS_COMBINED = {("unet3plus", "cgm")}  # any other file of nets is one network, and imports no other
GUI = {"napari", "qtpy", "magicgui", "superqt"}
HEAVY = {"torch", "monai"}  # seconds, which opening the plugin's widget must not cost
FORBIDDEN_NAMES = {"utils", "helpers", "common", "misc"}
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


def layer_of(dotted: str) -> str:
    """Name the package that has a layer: "nets" for monai_unetfamily.nets.unet.PlainUNet."""
    head, *rest = dotted.split(".")
    return head if head == "napari_plugin" or not rest else rest[0]


def imports_point_down(source: Source) -> Offences:
    own = layer_of(source.module)
    if own not in LAYERS:
        yield 1, f"the package {own!r} has no layer"
        return
    for line, name in source.imports:
        ours = name.split(".")[0] in {"monai_unetfamily", "napari_plugin"}
        target = layer_of(name) if layer_of(name) in LAYERS else ROOT_INTERFACE
        if ours and target != own and LAYERS[target] >= LAYERS[own] and not name.endswith(".__version__"):
            yield line, f"{own} imports {name}, which is not in a lower layer"


def imports_use_interfaces(source: Source) -> Offences:
    """Names of another package come from its interface; only a package and those below it import its modules."""
    own = source.module.rpartition(".")[0]
    for line, name in source.imports:
        module = name.rpartition(".")[0]
        package = module.rpartition(".")[0]
        inner = (ROOT / module.replace(".", "/")).with_suffix(".py").is_file() and package.count(".") > 0
        if inner and not f"{own}.".startswith(f"{package}."):
            yield line, f"imports {name} from inside {package}"


def networks_do_not_import_each_other(source: Source) -> Offences:
    nets, _, own = source.module.rpartition(".")
    if nets != "monai_unetfamily.nets" or own in NETWORK_OVERVIEWS:
        return
    for line, name in source.imports:
        target = name.removeprefix(f"{nets}.").split(".")[0]
        allowed = target in NETWORK_SUPPORT or (own, target) in NETWORKS_COMBINED
        if (name == nets or name.startswith(f"{nets}.")) and not allowed:
            yield line, f"{own} imports {name}"


def only_the_plugin_imports_a_gui(source: Source) -> Offences:
    if layer_of(source.module) != "napari_plugin":
        yield from ((line, f"imports {name}") for line, name in source.imports if name.split(".")[0] in GUI)


def the_plugin_opens_without_torch(source: Source) -> Offences:
    tree = parsed(source.text)
    for node in tree.body if layer_of(source.module) == "napari_plugin" else []:
        names = (
            Source(source.module, ast.unparse(node)).imports if isinstance(node, ast.Import | ast.ImportFrom) else ()
        )
        yield from ((node.lineno, f"imports {name}") for _, name in names if name.split(".")[0] in HEAVY)


def names_say_what_is_inside(source: Source) -> Offences:
    yield from ((1, f"named {part}") for part in source.module.split(".") if part in FORBIDDEN_NAMES)


def files_stay_short(source: Source) -> Offences:
    lines = source.text.count("\n")
    if lines > MOST_LINES:
        yield lines, f"{lines} lines, at most {MOST_LINES}"


def no_assert(source: Source) -> Offences:
    yield from ((node.lineno, "assert") for node in source.nodes if isinstance(node, ast.Assert))


def no_print(source: Source) -> Offences:
    if layer_of(source.module) == "cli":
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
    (imports_point_down, "io.nifti", "from monai_unetfamily import nets"),
    (imports_point_down, "bundles.export", "def f():\n    import monai_unetfamily.training.budget"),
    (imports_point_down, "evaluation.metrics", "from monai_unetfamily.reporting import save_overlay"),
    (imports_point_down, "training.budget", "import monai_unetfamily as uf"),
    (imports_point_down, "training.budget", "from .. import UNet3Plus"),
    (imports_point_down, "cli", "from napari_plugin import widget"),
    (imports_use_interfaces, "bundles.bundle", "from monai_unetfamily.io.nifti import read_volume"),
    (imports_use_interfaces, "io.image", "from monai_unetfamily.io.dicom.series import list_series"),
    (imports_use_interfaces, "cli.train", "def f():\n    from ..training.budget import stop_in_time"),
    (networks_do_not_import_each_other, "nets.unet", "from .cgm import Head"),
    (networks_do_not_import_each_other, "nets.cgm", "from .unet3plus import UNet3Plus"),
    (networks_do_not_import_each_other, "nets.unet3plus", "from . import registry"),
    (networks_do_not_import_each_other, "nets.arguments", "from monai_unetfamily.nets import UNet3Plus"),
    (networks_do_not_import_each_other, "nets.fcn", "from monai_unetfamily import nets"),
    (only_the_plugin_imports_a_gui, "io.nifti", "from napari.layers import Image"),
    (only_the_plugin_imports_a_gui, "cli", "def f():\n    import qtpy.QtCore"),
    (names_say_what_is_inside, "nets.utils", ""),
    (names_say_what_is_inside, "common.files", ""),
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
    (imports_point_down, "training.budget", "from .. import __version__\nfrom ..evaluation import evaluate_case"),
    (imports_point_down, "nets.unet", "import torch\nfrom .layers import ConvBlock"),
    (imports_use_interfaces, "bundles.bundle", "from ..io import read_volume\nfrom .metadata import read_metadata"),
    (imports_use_interfaces, "io.dicom.series", "from monai_unetfamily.io.header_checks import MAX_VOXELS"),
    (networks_do_not_import_each_other, "nets.unet3plus", "from .cgm import Head\nfrom . import layers"),
    (networks_do_not_import_each_other, "nets.registry", "from . import unet, unet3plus"),
    (only_the_plugin_imports_a_gui, "io.nifti", "import nibabel"),
    (names_say_what_is_inside, "io.nifti", "from monai import utils"),
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

STUBS = sorted(path for name in ("monai_unetfamily", "napari_plugin") for path in (ROOT / name).rglob("__init__.pyi"))


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
    widget = Source("napari_plugin.widget", "import napari\nfrom monai_unetfamily.prediction import segment")
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


def test_no_two_modules_have_one_name() -> None:
    """So that a name in a traceback or a sentence is one file; a command's file is named as the command."""
    modules = [path for path in FILES if path.stem != "__init__" and not {"cli", "templates"} & set(path.parts)]
    counted = Counter(path.stem for path in modules)
    assert [name for name, count in counted.items() if count > 1] == []


@pytest.mark.parametrize("stub", STUBS, ids=lambda stub: ".".join(stub.parent.relative_to(ROOT).parts))
def test_interfaces_offer_what_their_stubs_list(stub: Path) -> None:
    """Every name can be imported, and is no module; what mypy is shown and what is there are one list."""
    package = import_module(".".join(stub.parent.relative_to(ROOT).parts))
    listed = {alias.name for node in parsed(stub.read_text("utf-8")).body for alias in getattr(node, "names", [])}
    assert set(package.__all__) == listed
    assert [name for name in package.__all__ if isinstance(getattr(package, name), ModuleType)] == []


def test_every_package_is_in_the_wheel() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    found = {".".join(file.parent.relative_to(ROOT).parts) for file in FILES if file.stem == "__init__"}
    assert set(settings["packages"]) == found | {"monai_unetfamily.configs"}

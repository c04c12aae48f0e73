"""Nothing of a bundle runs before it is reviewed: every way round the list that we know, with a canary to show it."""

import ast
import gc
import inspect
import json
import shutil
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from pydoc import locate
from types import ModuleType
from typing import Any, NamedTuple

import pytest
import torch
import yaml

from monai_unetfamily.bundles import (
    METADATA,
    SHIPPED,
    copy_bundle,
    open_bundle,
    redefine_network,
    shipped_bundles,
    training_part,
)
from monai_unetfamily.bundles.trust import allow_list
from monai_unetfamily.bundles.trust.config_review import (
    Finding,
    UntrustedBundleError,
    restricted_parser,
    review,
)
from monai_unetfamily.nets import MEMBERS, create_network
from monai_unetfamily.training import LEARNED_BY
from tests.support.zoo_bundle import write_zoo_bundle

CPU = torch.device("cpu")
Config = dict[str, Any]


class Attack(NamedTuple):
    """Something that a config can do, with CANARY for a file that it writes.

    `change` is merged into the config; "step" becomes its first preprocessing step. `runs`: MONAI itself would do it.
    """

    change: Config
    where: str
    what: str
    runs: bool = True


STEP = "configs/inference.json: preprocessing#transforms#0"
SPACING = "configs/inference.json: spacing"
SHELL = "touch 'CANARY'"
WRITE = "$open('CANARY', 'w')"
TOUCH = {"_target_": "torch.os.system", "command": SHELL}


def load(reader: Any, **options: Any) -> Config:
    return {"step": {"_target_": "LoadImaged", "keys": "image", "reader": reader, **options}}


ATTACKS = {
    # a target that is a function, reached through modules, by its short name, in disguise
    "shell": Attack({"step": TOUCH}, STEP, "_target_ torch.os.system"),
    "shell of monai": Attack(
        {"step": {"_target_": "monai.utils.run_cmd", "cmd_list": ["touch", "CANARY"]}},
        STEP,
        "_target_ monai.utils.run_cmd",
    ),
    "shell by its short name": Attack(
        {"step": {"_target_": "run_cmd", "cmd_list": ["touch", "CANARY"]}}, STEP, "_target_ run_cmd"
    ),
    "shell through monai's modules": Attack(
        {"step": {"_target_": "monai.utils.module.os.system", "command": SHELL}}, STEP, "_target_ monai.utils.module.os"
    ),
    "another config": Attack(
        {"step": {"_target_": "monai.bundle.run", "config_file": "CANARY.json", "run_id": "run"}},
        STEP,
        "_target_ monai.bundle",
    ),
    "download": Attack(
        {"step": {"_target_": "monai.apps.utils.download_url", "url": "https://localhost/", "filepath": "CANARY"}},
        STEP,
        "_target_ monai.apps.utils.download_url",
        runs=False,
    ),
    "a module that is imported": Attack(
        {"step": {"_target_": "canary_module.Net"}}, STEP, "_target_ canary_module.Net"
    ),
    "a module by one word": Attack({"step": {"_target_": "canary_module"}}, STEP, "_target_ canary_module"),
    "our own command": Attack(
        {"step": {"_target_": "monai_unetfamily.cli.__main__"}},
        STEP,
        "_target_ monai_unetfamily.cli.__main__",
        runs=False,
    ),
    "a method": Attack(
        {"step": {"_target_": "monai.networks.nets.UNet.load_state_dict"}}, STEP, "_target_ monai.networks", runs=False
    ),
    "a target that is an expression": Attack({"step": {"_target_": WRITE}}, STEP, "_target_ $open("),
    "a target that is a reference": Attack(
        {"step": {"_target_": "@shell", "command": SHELL}, "shell": "$torch.os.system"}, STEP, "_target_ @shell"
    ),
    "a target that is repeated": Attack(
        {"step": {"_target_": "%shell", "command": SHELL}, "shell": "torch.os.system"}, STEP, "_target_ torch.os.system"
    ),
    # transforms that run what they are given, or what they find by name
    "lambda": Attack(
        {"step": {"_target_": "Lambdad", "keys": "image", "func": WRITE.replace("$", "$lambda x: ")}},
        STEP,
        "_target_ Lambdad",
        runs=False,
    ),
    "lambda's function": Attack(
        {"step": {"_target_": "Lambda", "func": {"_target_": "torch.os.system", "_mode_": "callable"}}},
        STEP,
        "_target_ Lambda",
        runs=False,
    ),
    "a random lambda": Attack(
        {"step": {"_target_": "RandLambdad", "keys": "image"}}, STEP, "_target_ RandL", runs=False
    ),
    "cucim": Attack(
        {"step": {"_target_": "CuCIMd", "keys": "image", "name": "x"}}, STEP, "_target_ CuCIMd", runs=False
    ),
    "torchvision": Attack(
        {"step": {"_target_": "TorchVisiond", "keys": "image", "name": "x"}}, STEP, "_target_ TorchVisiond", runs=False
    ),
    "a filter": Attack(
        {"step": {"_target_": "RandImageFilterd", "keys": "image", "kernel": "mean"}},
        STEP,
        "_target_ RandI",
        runs=False,
    ),
    "pickled transforms": Attack(
        {"step": {"_target_": "torch.load", "f": "CANARY.json", "weights_only": False}},
        STEP,
        "_target_ torch.load",
        runs=False,
    ),
    "a saver before the network": Attack(
        {"step": {"_target_": "SaveImaged", "keys": "image", "writer": "torch.os.system"}},
        STEP,
        "_target_ SaveImaged",
        runs=False,
    ),
    # readers by name
    "a reader": Attack(load("torch.os.system", command=SHELL), STEP, "reader torch.os.system of LoadImaged"),
    "one of several readers": Attack(
        load(["NibabelReader", "torch.os.system"], command=SHELL), STEP, "reader ['NibabelReader', 'torch.os.system']"
    ),
    "a reader by reference": Attack(
        load("@r", command=SHELL) | {"r": "torch.os.system"}, STEP, "reader @r of LoadImaged"
    ),
    "a reader of parts": Attack(load("$'torch.os.' + 'system'", command=SHELL), STEP, "reader $'torch.os.' + 'system'"),
    "a reader that is an object": Attack(load(TOUCH), f"{STEP}#reader", "_target_ torch.os.system"),
    # MONAI's other keys
    "mode": Attack(
        {"step": {"_target_": "EnsureTyped", "keys": "image", "_mode_": "callable"}},
        STEP,
        "_mode_ callable of EnsureTyped",
        runs=False,
    ),
    "mode debug": Attack(
        {"step": {"_target_": "EnsureTyped", "keys": "image", "_mode_": "debug"}}, STEP, "_mode_ debug", runs=False
    ),
    "mode by reference": Attack(
        {"step": {"_target_": "EnsureTyped", "keys": "image", "_mode_": "@mode"}, "mode": "debug"},
        STEP,
        "_mode_ @mode",
        runs=False,
    ),
    "a breakpoint": Attack(
        {"step": {"_target_": "EnsureTyped", "keys": "image", "_debug_": True}},
        STEP,
        "_debug_ of EnsureTyped",
        runs=False,
    ),
    "requires": Attack(
        {"step": {"_target_": "ToTensord", "keys": "image", "_requires_": [WRITE]}}, f"{STEP}#_requires_#0", WRITE
    ),
    "disabled": Attack(
        {"step": {"_target_": "ToTensord", "keys": "image", "_disabled_": WRITE}}, f"{STEP}#_disabled_", WRITE
    ),
    "description": Attack(
        {"step": {"_target_": "ToTensord", "keys": "image", "_desc_": WRITE}}, f"{STEP}#_desc_", WRITE
    ),
    # expressions
    "call": Attack({"spacing": WRITE}, SPACING, WRITE),
    "attribute": Attack({"spacing": "$torch.os"}, SPACING, "$torch.os", runs=False),
    "comprehension": Attack({"spacing": "$[open('CANARY', 'w') for _ in (1,)]"}, SPACING, "$[open("),
    "lambda that is called": Attack({"spacing": "$(lambda: open('CANARY', 'w'))()"}, SPACING, "$(lambda"),
    "a text with code in it": Attack({"spacing": "$f\"{open('CANARY', 'w')}\""}, SPACING, '$f"{open('),
    "a name": Attack({"spacing": "$quit"}, SPACING, "$quit", runs=False),
    "what MONAI writes for a reference": Attack(
        {"spacing": "$__local_refs['run']"}, SPACING, "$__local_refs", runs=False
    ),
    "a condition": Attack({"spacing": "$open('CANARY', 'w') if 1 else 2"}, SPACING, "$open("),
    "a power that takes for ever": Attack({"spacing": "$9**9**9**9"}, SPACING, "$9**9**9**9", runs=False),
    "an import": Attack({"spacing": "$import canary_module"}, SPACING, "$import canary_module"),
    "an import from": Attack({"spacing": "$from canary_module import x"}, SPACING, "$from canary_module import x"),
    "two lines": Attack({"spacing": "$import canary_module\n1"}, SPACING, "$import canary_module\\n1"),
    "no expression at all": Attack({"spacing": "$)"}, SPACING, "$)", runs=False),
    # references
    "a chain of references": Attack(
        {"spacing": "@a", "a": "@b::0", "b": ["$@c + 1"], "c": WRITE}, "configs/inference.json: c", WRITE
    ),
    "a relative reference": Attack({"step": {"_target_": "ToTensord", "keys": "@#k", "k": WRITE}}, f"{STEP}#k", WRITE),
    "a reference into a part": Attack(
        {"spacing": "@evaluator::x", "evaluator": {"_target_": "X", "x": WRITE}},
        "configs/inference.json: evaluator#x",
        WRITE,
    ),
    "a sum of lists": Attack(
        {"preprocessing": {"_target_": "Compose", "transforms": "$@a + @b"}, "a": [TOUCH], "b": []},
        "configs/inference.json: a#0",
        "_target_ torch.os.system",
    ),
    "what is repeated from elsewhere": Attack({"spacing": "%a::b", "a": {"b": WRITE}}, SPACING, WRITE),
    "another file": Attack({"spacing": "%CANARY.json::run"}, SPACING, "%CANARY.json::run, the content of another file"),
    "another file's part": Attack({"step": "%CANARY.json::run::0"}, STEP, "%CANARY.json::run::0, the content"),
    "the metadata": Attack(
        {"network_def": "@_meta_#network", "_meta_": {"network": TOUCH}},
        "configs/metadata.json: network",
        "_target_ torch.os",
    ),
    "postprocessing": Attack(
        {"postprocessing": {"_target_": "Compose", "transforms": "@p"}, "p": [TOUCH]},
        "configs/inference.json: p#0",
        "_target_ torch.os.system",
    ),
    "inferer": Attack({"inferer": TOUCH}, "configs/inference.json: inferer", "_target_ torch.os.system"),
    "the whole config as a target": Attack(
        {"spacing": "@_target_", **TOUCH}, "configs/inference.json: ", "_target_ torch.os.system", runs=False
    ),
    "network": Attack({"network_def": TOUCH}, "configs/inference.json: network_def", "_target_ torch.os.system"),
}


@pytest.fixture
def zoo(tmp_path: Path, canary: Path) -> Path:
    return write_zoo_bundle(tmp_path / "spleen")


@pytest.fixture
def canary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A file that is not there, a module that writes it when it is imported, and a config that writes it."""
    file = tmp_path / "canary"
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules/canary_module.py").write_text(f"open({str(file)!r}, 'w').close()\n")
    (tmp_path / "canary.json").write_text(json.dumps({"run": [f"$open({str(file)!r}, 'w')"]}))
    monkeypatch.syspath_prepend(tmp_path / "modules")
    sys.modules.pop("canary_module", None)  # of a test of another file
    yield file
    sys.modules.pop("canary_module", None)


def attack(root: Path, change: Config, canary: Path) -> None:
    """Merge a change into the configs."""
    change = json.loads(json.dumps(change).replace("CANARY", str(canary)))
    for file, more in ((METADATA, change.pop("_meta_", {})), ("inference.json", change)):
        config = json.loads((root / "configs" / file).read_text())
        step = more.pop("step", None)
        config |= more
        if step:
            config["preprocessing"]["transforms"][0] = step
        (root / "configs" / file).write_text(json.dumps(config))


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_is_told_and_nothing_of_it_runs(name: str, zoo: Path, canary: Path) -> None:
    change, where, what, _ = ATTACKS[name]
    attack(zoo, change, canary)
    told = review(zoo)
    assert [f for f in told if f.where == where and f.what.startswith(what.replace("CANARY", str(canary)))], told
    with pytest.raises(UntrustedBundleError) as raised:
        open_bundle(zoo, CPU)
    assert raised.value.findings == told
    assert all(str(finding) in str(raised.value) for finding in told)
    assert "\n" not in str(raised.value)
    assert not canary.exists()
    assert "canary_module" not in sys.modules


@pytest.mark.filterwarnings(  # what MONAI and Python say of what the attacks leave
    "ignore:Component .* is not callable",
    "ignore:Preferably the reader should inherit",
    "ignore::pytest.PytestUnraisableExceptionWarning",
)
@pytest.mark.parametrize("name", [name for name, attack in ATTACKS.items() if attack.runs])
def test_the_attack_is_real_where_a_bundle_is_trusted(name: str, zoo: Path, canary: Path) -> None:
    attack(zoo, ATTACKS[name].change, canary)
    with suppress(ValueError):
        open_bundle(zoo, CPU, trust=True)
    assert canary.exists()
    gc.collect()  # closes what the attack opened, while the warning of it is filtered


def test_what_prediction_does_not_need_is_no_matter_and_does_not_run(zoo: Path, canary: Path) -> None:
    """Where MONAI would import a module named anywhere in a config, as soon as it resolves anything of it."""
    idle = {"imports": ["$import canary_module"], "run": [WRITE], "handlers": [TOUCH], "other": "%CANARY.json::run"}
    attack(zoo, idle | {"_meta_": {"description": "$import canary_module", "name": WRITE}}, canary)
    assert review(zoo) == ()
    open_bundle(zoo, CPU)
    assert not canary.exists()
    open_bundle(zoo, CPU, trust=True)  # there is nothing to trust: it is opened as before
    assert not canary.exists()


def test_keys_are_no_expressions(zoo: Path, canary: Path) -> None:
    attack(zoo, {"step": {"_target_": "LoadImaged", "keys": "image", "dtype": {WRITE: 1, "@run": 2}}}, canary)
    assert review(zoo) == ()
    with suppress(ValueError):
        open_bundle(zoo, CPU)
    assert not canary.exists()


def test_a_reference_to_everything_resolves_no_more_than_what_was_reviewed(zoo: Path, canary: Path) -> None:
    attack(zoo, {"spacing": "@", "run": [WRITE]}, canary)
    with pytest.raises(ValueError, match="circular"):
        open_bundle(zoo, CPU)
    assert not canary.exists()


def test_two_items_of_one_id_are_both_reviewed(zoo: Path, canary: Path) -> None:
    """MONAI joins keys by "::", so that a key with "::" in it may stand for another item."""
    attack(zoo, {"spacing": "@a::b", "a": {"b::c": WRITE, "b": 12.0}}, canary)
    open_bundle(zoo, CPU)
    attack(zoo, {"spacing": "@a", "a": {"b::c": WRITE}}, canary)
    assert [finding.what for finding in review(zoo)] == [WRITE.replace("CANARY", str(canary))]
    assert not canary.exists()


def test_all_that_a_trusted_bundle_imports_is_told(zoo: Path, canary: Path) -> None:
    lambda_ = {"_target_": "Lambdad", "keys": "image", "func": "$lambda x: x"}
    attack(zoo, {"step": lambda_, "imports": ["$import os", "$import canary_module"]}, canary)
    assert review(zoo) == (
        Finding(STEP, "_target_ Lambdad"),
        Finding(f"{STEP}#func", "$lambda x: x"),
        Finding("configs/inference.json: imports#1", "$import canary_module"),
    )
    open_bundle(zoo, CPU, trust=True)
    assert canary.exists()


def test_another_file_is_told_once(zoo: Path, canary: Path) -> None:
    attack(zoo, ATTACKS["another file"].change, canary)
    assert len(review(zoo)) == 1


def test_a_terminal_is_not_written_to(zoo: Path, canary: Path) -> None:
    attack(zoo, {"spacing": "$print('\x1b[2J')\r"}, canary)
    assert review(zoo) == (Finding(SPACING, "$print('\\x1b[2J')\\r"),)


@pytest.mark.parametrize(
    "expression",
    [
        "@a + 1",
        "-(@a - 2) * 3 / 4 // 5 % 6",
        "[@a, (1, 2.5)]",
        "@list[0]",
        "@list::1",
        "'a' + 'b'",
        "{'x': @a}",
        "@list[1:]",
    ],
)
def test_arithmetic_of_references_and_literals_is_allowed(expression: str, zoo: Path, canary: Path) -> None:
    attack(
        zoo,
        {"overlap": f"${expression}", "a": 3, "list": [1, 2], "network_def": {"_target_": "UNet", "x": "@overlap"}},
        canary,
    )
    assert review(zoo) == ()


@pytest.mark.parametrize("name", [folder.name for folder in shipped_bundles()])
def test_shipped_bundles_and_copies_of_them_need_no_trust(name: str, tmp_path: Path) -> None:
    copy_bundle(SHIPPED / name, tmp_path / "copy")
    for root in (SHIPPED / name, tmp_path / "copy"):
        assert review(root) == ()
        assert review(root, "train", LEARNED_BY) == ()


def test_what_is_allowed_goes_to_monai_by_its_full_name(zoo: Path, canary: Path) -> None:
    readers = {"_target_": "LoadImaged", "keys": "image", "reader": ["@reader", "PydicomReader"]}
    config = {"net": {"_target_": "UNet"}, "step": readers, "reader": "monai.data.ITKReader"}
    parser = restricted_parser(config, ["net", "step"], zoo / "configs/x.json", trust=False)
    assert parser["net::_target_"] == "monai.networks.nets.unet.UNet"
    assert parser["step::reader"] == [f"monai.data.image_reader.{name}" for name in ("ITKReader", "PydicomReader")]


@pytest.mark.filterwarnings("ignore:there are more than 1 component:UserWarning")  # MONAI's, of this very case
def test_a_short_name_that_another_module_takes_is_not_taken_for_monais(
    zoo: Path, canary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MONAI looks short names up in all loaded modules whose name begins with "monai"."""

    def stranger(**_: object) -> None:
        canary.touch()

    module = ModuleType("monai_of_a_stranger")
    stranger.__module__ = module.__name__
    vars(module).update(Stranger=stranger, UNet=stranger)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    allow_list.locator.cache_clear()
    try:
        assert allow_list.full_name("Stranger") is None
        assert allow_list.full_name("UNet") == "monai.networks.nets.unet.UNet"
        attack(zoo, {"step": {"_target_": "Stranger"}}, canary)
        assert review(zoo)[0].what == "_target_ Stranger"
    finally:
        allow_list.locator.cache_clear()
    with suppress(ValueError):
        open_bundle(zoo, CPU, trust=True)
    assert canary.exists()


def is_defined_as(found: Any, name: str) -> bool:
    """Whether an object is defined under its name on the list: of this package, in a module of the public package."""
    package, _, short = name.rpartition(".")
    inside = found.__module__.startswith(f"{package}.") and package.startswith("monai_unetfamily.")
    return found.__qualname__ == short and (found.__module__ == package or inside)


@pytest.mark.slow
def test_the_list_is_of_classes_that_find_nothing_by_name() -> None:
    """No code, module or file is looked up in what they do themselves; LoadImage's readers are looked at."""
    suspicious = {"eval", "exec", "locate", "optional_import", "import_module", "load_url", "download_url", "run_cmd"}
    for name in allow_list.allowed_names():
        found: Any = locate(name)
        assert is_defined_as(found, name)
        assert inspect.isclass(found) or found is create_network
        tree = ast.parse(inspect.getsource(found))
        calls = [node.func for node in ast.walk(tree) if isinstance(node, ast.Call)]
        called = {call.id for call in calls if isinstance(call, ast.Name)}
        assert called.isdisjoint(suspicious) != name.endswith("array.LoadImage"), name


def test_the_list_has_the_whole_family() -> None:
    family = {member.network.__name__ for member in MEMBERS.values()}
    assert {f"monai_unetfamily.nets.{name}" for name in family} <= set(allow_list.allowed_names())


def test_training_parts_and_a_changed_network_go_through_the_same_door(untrained: Path, canary: Path) -> None:
    file = untrained / "configs/train.yaml"
    config = yaml.safe_load(file.read_text())
    file.write_text(yaml.safe_dump(config | {"loss": {"_target_": "torch.os.system", "command": f"touch {canary}"}}))
    with pytest.raises(UntrustedBundleError, match="configs/train.yaml: loss: _target_ torch.os.system"):
        training_part(untrained, "loss")
    metadata = json.loads((untrained / "configs" / METADATA).read_text())
    (untrained / "configs" / METADATA).write_text(json.dumps(metadata | {"description": "$import canary_module"}))
    redefine_network(untrained, {"features": [4, 8]})
    evil = {"_target_": "torch.os.system", "command": f"touch {canary}"}
    (untrained / "configs" / METADATA).write_text(json.dumps(metadata | {"network": evil}))
    with pytest.raises(UntrustedBundleError, match="configs/metadata.json: network: _target_ torch.os.system"):
        redefine_network(untrained, {"features": [4, 8]})
    assert not canary.exists()


def test_what_leads_nowhere_or_in_a_circle_is_one_clear_line(zoo: Path, canary: Path) -> None:
    for change, message in [
        ({"spacing": "%nowhere"}, "inference.json: %nowhere leads nowhere; mend the file"),
        ({"spacing": "%spacing"}, "inference.json: it refers to itself without end; mend the file"),
        ({"spacing": "@######x"}, "inference.json: .*out of the range"),
        ({"postprocessing": "AsDiscreted"}, "postprocessing is no transform with a _target_"),
        ({"network_def": {"_target_": "Compose"}}, "network_def is Compose; a network is needed"),
    ]:
        attack(zoo, change, canary)
        with pytest.raises(ValueError, match=message):
            open_bundle(zoo, CPU)
        shutil.rmtree(zoo)
        write_zoo_bundle(zoo)


def test_savers_are_left_out_wherever_they_stand(zoo: Path, canary: Path) -> None:
    saver = {"_target_": "SaveImaged", "keys": "pred", "writer": "torch.os.system"}
    steps = ["@saver", {"_target_": "AsDiscreted", "keys": "pred", "argmax": True}, saver]
    for transforms in (steps, "@steps"):
        attack(
            zoo,
            {"postprocessing": {"_target_": "Compose", "transforms": transforms}, "saver": saver, "steps": steps},
            canary,
        )
        opened = open_bundle(zoo, CPU)
        assert [type(step).__name__ for step in opened.postprocess.transforms] == ["AsDiscreted"]

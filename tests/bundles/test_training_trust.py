"""Training runs and touches nothing that recipes like the shipped ones have no need of, unless it is trusted."""

import ast
import importlib
import inspect
import json
import re
import shutil
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from pydoc import locate
from typing import Any, NamedTuple

import pytest
import torch
import yaml

from monai_unetfamily.bundles import (
    METADATA,
    choose_network,
    copy_bundle,
    define_network,
    find_bundle,
    reset_thresholds,
    shipped_bundles,
)
from monai_unetfamily.bundles.trust import allow_list
from monai_unetfamily.bundles.trust.config_review import (
    UntrustedBundleError,
    review_training,
    training_parser,
)
from monai_unetfamily.cli import main
from monai_unetfamily.comparison import compare
from monai_unetfamily.planning import bundle_files
from monai_unetfamily.training.training_checks import kept_settings
from monai_unetfamily.training.training_run import _workflow
from tests.bundles.test_trust import is_defined_as

Config = dict[str, Any]
SETTINGS = {"dataset_dir": "/data", "device": torch.device("cpu")}


class Attack(NamedTuple):
    """A change of a train config, with CANARY for a file, and what is told: where, and how it begins.

    `runs`: the part that would write the file, were it resolved.
    """

    path: str
    value: Any
    where: str
    what: str
    runs: str = ""


def at(path: str, value: Any, what: str, runs: str = "", below: str = "", where: str = "") -> Attack:
    return Attack(path, value, where or path + below, what, runs)


TOUCH = {"_target_": "torch.os.system", "command": "touch 'CANARY'"}
WRITE = "$open('CANARY', 'w')"
FILES = [{"image": "/etc/passwd", "label": "/etc/passwd"}]
SAVER = {"_target_": "SaveImaged", "keys": "image", "output_dir": "CANARY"}

CODE = {
    "loss": at("loss", TOUCH, "_target_ torch.os.system", "loss"),
    "optimizer": at("optimizer", TOUCH, "_target_ torch.os.system", "optimizer"),
    "hub": at("loss", {"_target_": "torch.hub.load", "repo_or_dir": "CANARY", "model": "x"}, "_target_ torch.hub"),
    "hub's files": at(
        "loss", {"_target_": "torch.hub.load_state_dict_from_url", "url": "x"}, "_target_ torch.hub.load"
    ),
    "a download": at("loss", {"_target_": "torch.hub.download_url_to_file", "url": "x"}, "_target_ torch.hub.download"),
    "a pickle": at("loss", {"_target_": "torch.load", "f": "CANARY"}, "_target_ torch.load"),
    "a program": at("loss", {"_target_": "torch.jit.load", "f": "CANARY"}, "_target_ torch.jit.load"),
    "compiled code": at("loss", {"_target_": "torch.ops.load_library", "path": "CANARY"}, "_target_ torch.ops"),
    "a compiler": at("loss", {"_target_": "torch.utils.cpp_extension.load", "name": "x"}, "_target_ torch.utils.cpp"),
    "another bundle": at("loss", {"_target_": "monai.bundle.load", "name": "x"}, "_target_ monai.bundle.load"),
    "a shell": at(
        "loss", {"_target_": "monai.utils.run_cmd", "cmd_list": ["touch", "CANARY"]}, "_target_ monai", "loss"
    ),
    "what is like an optimizer": at(
        "optimizer", {"_target_": "torch.optim.Optimizer"}, "_target_ torch.optim.Optimizer"
    ),
    "an optimizer's module": at("loss", {"_target_": "torch.optim.lr_scheduler.types"}, "_target_ torch.optim.lr"),
    "initialize": at("initialize", [WRITE], WRITE, "initialize", "#0"),
    "run": at("run", [WRITE], WRITE, "run", "#0"),
    "finalize": at("finalize", [WRITE], WRITE, "finalize", "#0"),
    "a key of its own": at("extra", WRITE, WRITE, "extra"),
    "an import": at("imports", ["$import canary_module"], "$import canary_module", "seed", "#0"),
    "a lambda": at(
        "train#handlers#5#output_transform", WRITE.replace("$", "$lambda output: "), "$lambda output: open("
    ),
    "almost the recipe's own": at("network", "$@network_def.to(@device) or open('CANARY', 'w')", "$@network_def.to"),
    "a step": at("train#random_transforms#0", {"_target_": "RandLambdad", "keys": "image"}, "_target_ RandLambdad"),
    "a saver": at("train#random_transforms#0", SAVER, "_target_ SaveImaged"),
    "a handler that saves": at("train#handlers#0", {"_target_": "CheckpointSaver", "save_dir": "x"}, "_target_ Check"),
    "a handler that loads": at(
        "train#handlers#0", {"_target_": "CheckpointLoader", "load_path": "x"}, "_target_ Check"
    ),
    "a server": at("train#handlers#0", {"_target_": "MLFlowHandler", "tracking_uri": "x"}, "_target_ MLFlowHandler"),
    "what training requires": at(
        "loss", {"_target_": "DiceLoss", "_requires_": [WRITE]}, WRITE, "loss", "#_requires_#0"
    ),
    "what is disabled": at("loss", {"_target_": "DiceLoss", "_disabled_": WRITE}, WRITE, "loss", "#_disabled_"),
    "another file": at("loss", "%CANARY.json::run", "%CANARY.json::run, the content of another file"),
    "the metadata's network": Attack("_meta_#network", TOUCH, "network", "_target_ torch.os.system", "network_def"),
}
PLACES = {
    "checkpoints": at("ckpt_dir", "/elsewhere", "folder @ckpt_dir of ", where="train#handlers#4#folder"),
    "scalars": at("output_dir", "/elsewhere", "log_dir @output_dir of ", where="train#handlers#6#log_dir"),
    "the cache": at("cache_dir", "/elsewhere", "cache_dir @cache_dir of ", where="train#cases#cache_dir"),
    "beside the bundle": at("ckpt_dir", "$@bundle_root + '/../x'", "folder @", where="train#handlers#4#folder"),
    "the bundle's name and more": at("ckpt_dir", "$@bundle_root + '2'", "folder @", where="train#handlers#4#folder"),
    "where the command is run": at("ckpt_dir", "models", "folder @ckpt_dir", where="train#handlers#4#folder"),
    "a folder of its own": at("train#handlers#4#folder", "/elsewhere", "folder /elsewhere of "),
    "best weights": at("train#handlers#3#folder", "~/x", "folder ~/x of "),
    "no folder": at("train#handlers#6#log_dir", None, "log_dir None of TensorBoardStatsHandler"),
    "a folder that is code": at("cache_dir", WRITE, WRITE),
    "another data set": at("train#cases#cases#dataset_dir", "/elsewhere", "dataset_dir /elsewhere of "),
    "files by name": at("train#cases#cases", FILES, "cases of "),
    "files of a data set": at("train#dataset#data", FILES, "data of Dataset"),
    "files by reference": at("train#dataset#data", "$@train#cases + @files", "data of Dataset"),
    "files in an expression": at("train#dataset#data", "$[{'image': '/etc/passwd'}] + @train#cases", "data of Dataset"),
    "watched cases": at("validate#listed", FILES, "cases of ", where="validate#cases#cases"),
    "a text among cases": at("val_cases", "/etc/passwd", "cases of ", where="validate#cases#cases"),
}


@pytest.fixture
def canary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that is not there, a module that writes it when it is imported, and a config that writes it."""
    file = tmp_path / "canary"
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules/canary_module.py").write_text(f"open({str(file)!r}, 'w').close()\n")
    (tmp_path / "canary.json").write_text(json.dumps({"run": [f"$open({str(file)!r}, 'w')"]}))
    monkeypatch.syspath_prepend(tmp_path / "modules")
    monkeypatch.delitem(sys.modules, "canary_module", raising=False)
    return file


def change(root: Path, attack: Attack, canary: Path) -> None:
    head, *keys = attack.path.split("#")
    file = root / "configs" / (METADATA if head == "_meta_" else "train.yaml")
    content = yaml.safe_load(file.read_text())
    spot: Any = content
    *way, last = [int(key) if key.isdecimal() else key for key in ([head, *keys] if head != "_meta_" else keys)]
    for key in way:
        spot = spot[key]
    spot[last] = json.loads(json.dumps(attack.value).replace("CANARY", str(canary)))
    file.write_text(json.dumps(content))


def told(root: Path, settings: Config = SETTINGS) -> list[str]:
    return [str(finding) for finding in review_training(root, settings)]


@pytest.mark.parametrize("name", [*CODE, *PLACES])
def test_an_attack_is_told_and_nothing_of_it_runs(name: str, untrained: Path, canary: Path) -> None:
    attack = (CODE | PLACES)[name]
    change(untrained, attack, canary)
    file = METADATA if attack.path.startswith("_meta_") else "train.yaml"
    line = f"configs/{file}: {attack.where}: {attack.what}".replace("CANARY", str(canary))
    assert [each for each in told(untrained) if each.startswith(line)], told(untrained)
    with pytest.raises(UntrustedBundleError):
        training_parser(untrained, SETTINGS, trust=False)
    assert not canary.exists()
    assert "canary_module" not in sys.modules


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", [name for name, attack in CODE.items() if attack.runs])
def test_the_attack_is_real_where_a_bundle_is_trusted(name: str, untrained: Path, canary: Path) -> None:
    change(untrained, CODE[name], canary)
    with suppress(RuntimeError, ValueError, TypeError):
        training_parser(untrained, SETTINGS, trust=True).get_parsed_content(CODE[name].runs)
    assert canary.exists()


def test_each_door_to_training_refuses_it(
    untrained: Path, phantoms: Path, tmp_path: Path, canary: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change(untrained, CODE["run"], canary)
    before = sorted(untrained.rglob("*"))
    train = ["train", str(untrained), "--dataset", str(phantoms), "--epochs", "1"]
    for command in (train, [*train, "-o", str(tmp_path / "out")], [*train, "--network", "unet"]):
        assert main(command) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert (
            f"would run what is no known part of MONAI or of this package: configs/train.yaml: run#0: {WRITE[:6]}"
            in line
        )
    with pytest.raises(ValueError, match="compare takes no bundle that would run .* run#0: "):
        compare(phantoms, tmp_path / "out", bundle=untrained, minutes_each=1)
    assert sorted(untrained.rglob("*")) == before
    assert not canary.exists()
    assert not [file for file in tmp_path.rglob("out/*") if file.name != "request.json"]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # its code leaves a file open
@pytest.mark.slow
def test_a_trusted_bundle_says_what_it_runs_first(
    untrained: Path, phantoms: Path, canary: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change(untrained, CODE["initialize"], canary)
    change(untrained, at("run", [], ""), canary)
    main(["train", str(untrained), "--dataset", str(phantoms), "--epochs", "1", "--trust", "--device", "cpu"])
    first, *_ = capsys.readouterr().out.splitlines()
    assert first.startswith(f"bundle is trusted to run $open('{canary}', 'w') (configs/train.yaml: initialize#0)")
    assert canary.exists()


def test_a_network_that_is_not_the_one_of_the_config_is_reviewed_as_well(untrained: Path, canary: Path) -> None:
    evil = TOUCH | {"presence_threshold": 0.1}
    change(untrained, at("_meta_#networks#evil", evil, ""), canary)
    change(untrained, at("_meta_#network", evil, ""), canary)
    for act in (
        lambda: choose_network(untrained, "evil"),
        lambda: define_network(untrained, "other", evil),
        lambda: reset_thresholds(untrained),
    ):
        with pytest.raises(UntrustedBundleError, match="torch.os.system"):
            act()
    assert not canary.exists()


@pytest.mark.parametrize("value", [WRITE, "@run", "%x", [1], {"_target_": "torch.os.system"}, True, 1.5])
def test_what_a_resumed_training_takes_over_are_numbers(value: Any, untrained: Path) -> None:
    (untrained / "logs").mkdir()
    for key in ("fold", "seed"):
        (untrained / "logs/split.json").write_text(json.dumps({key: value, "training": []}))
        with pytest.raises(ValueError, match="split.json: holds .* for fold or seed; numbers are allowed"):
            kept_settings(untrained / "logs")


def test_logging_conf_is_not_read(untrained: Path, tmp_path: Path) -> None:
    """MONAI's own run would open the file, whatever else it refuses of such a config."""
    sections = "[loggers]\nkeys=root\n[handlers]\nkeys=h\n[formatters]\nkeys=\n[logger_root]\nlevel=INFO\nhandlers=h\n"
    canary = tmp_path / "canary"
    (untrained / "configs/logging.conf").write_text(f"{sections}[handler_h]\nclass=FileHandler\nargs=('{canary}',)\n")
    _workflow(untrained, SETTINGS, trust=False).initialize()
    assert not canary.exists()


def test_modules_of_a_bundle_do_not_go_before_installed_ones(
    untrained: Path, canary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MONAI's run puts the bundle's folder on Python's path: whatever is imported for the first time would be its."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    (untrained / "a_late_import.py").write_text(f"open({str(canary)!r}, 'w').close()\n")
    for trust in (False, True):
        workflow = _workflow(untrained, SETTINGS, trust=trust)
        workflow.parser["run"] = []
        workflow.initialize()
        workflow.run()
        assert (str(untrained) in sys.path) == trust
        with suppress(ModuleNotFoundError):
            importlib.import_module("a_late_import")
        assert canary.exists() == trust
    sys.modules.pop("a_late_import")


@pytest.mark.parametrize("name", ["models", "logs", "cache", "configs", "docs", "eval", "logs/history.csv"])
def test_training_writes_through_no_link_that_leads_out(
    name: str, untrained: Path, phantoms: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outside, place = tmp_path / "outside", untrained / name
    if place.is_dir():
        shutil.move(place, outside)
    outside.mkdir(exist_ok=True)
    place.parent.mkdir(exist_ok=True)
    place.symlink_to(outside)
    before = sorted(outside.rglob("*"))
    assert main(["train", str(untrained), "--dataset", str(phantoms), "--epochs", "1", "--trust"]) == 2
    assert ", outside the bundle; put the file itself there" in capsys.readouterr().err
    if name != "configs":
        with pytest.raises(ValueError, match="leads to .*outside"):
            copy_bundle(untrained, tmp_path / "copy")
    assert sorted(outside.rglob("*")) == before


# ordinary recipes


@pytest.mark.parametrize("name", [folder.name for folder in shipped_bundles()])
def test_shipped_recipes_and_copies_need_no_trust(name: str, tmp_path: Path) -> None:
    copy_bundle(find_bundle(name), tmp_path / "copy")
    (tmp_path / "link").symlink_to(tmp_path / "copy")
    for root in (find_bundle(name), tmp_path / "copy", tmp_path / "link"):
        assert told(root) == []
        assert told(root, SETTINGS | {"cache_dir": "/scratch/cache"}) == []


ORDINARY = {
    "loss": {"_target_": "DiceFocalLoss", "sigmoid": True},
    "optimizer": {"_target_": "torch.optim.SGD", "params": "$@network.parameters()", "lr": "$@learning_rate * 2"},
    "lr_scheduler": {"_target_": "torch.optim.lr_scheduler.CosineAnnealingLR", "optimizer": "@optimizer", "T_max": 9},
    "train#random_transforms#0": {"_target_": "RandGaussianSmoothd", "keys": "image", "prob": 0.2},
    "ckpt_dir": "$@bundle_root + '/models/seed_' + '1'",
    "num_workers": 4,
    "train#sampler": {"_target_": "torch.utils.data.SequentialSampler", "data_source": "@train#dataset"},
}


@pytest.mark.parametrize("path", ORDINARY)
def test_ordinary_changes_of_a_recipe_need_no_trust(path: str, untrained: Path, canary: Path) -> None:
    change(untrained, at(path, ORDINARY[path], ""), canary)
    assert told(untrained) == []


def test_every_allowed_expression_is_a_shipped_recipes() -> None:
    """So that none stays allowed that nothing needs."""
    files = [*(folder / "configs/train.yaml" for folder in shipped_bundles())]
    files.append(Path(bundle_files.__file__).parent / "templates/train.yaml")
    lines = "\n".join(file.read_text().replace("::", "#") for file in files)
    ends = r"(?=$|[\"}]| *#|  )"
    assert [text for text in allow_list.EXPRESSIONS if not re.search(re.escape(text) + ends, lines, re.MULTILINE)] == []


@pytest.mark.slow
def test_the_list_is_of_what_finds_nothing_by_name_and_opens_nothing_but_its_places() -> None:
    """No code, module or file is looked up in what they do themselves, and each that touches files is in the tables."""
    suspicious = {"eval", "exec", "locate", "optional_import", "import_module", "load_url", "download_url", "run_cmd"}
    folders: Callable[[str], bool] = lambda name: name.endswith(("_dir", "_path", "folder", "filename", "file"))  # noqa: E731
    for name in allow_list.recipe_names():
        found: Any = locate(name)
        source = inspect.getsource(found)
        calls = [node.func for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
        assert {call.id for call in calls if isinstance(call, ast.Name)}.isdisjoint(suspicious), name
        if not name.startswith("torch."):
            assert is_defined_as(found, name)
            assert set(filter(folders, inspect.signature(found).parameters)) == set(allow_list.PLACES.get(name, ())), (
                name
            )
    assert {*allow_list.PLACES, *allow_list.CASES, *allow_list.LISTERS} <= {*allow_list.recipe_names()}
    assert not {*allow_list.recipe_names()} & {*allow_list.allowed_names()}

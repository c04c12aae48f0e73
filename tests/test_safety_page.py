"""What docs/safety.md shows is what happens, and what it says of the commands is so."""

import json
import re
import shlex
from pathlib import Path

import pytest

from monai_unetfamily.bundles.trust.allow_list import EXPRESSIONS
from monai_unetfamily.cli import main
from tests.support.zoo_bundle import CONFIG, write_zoo_bundle

PAGE = (Path(__file__).parents[1] / "docs/safety.md").read_text("utf-8")


@pytest.fixture
def stranger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page's bundle, and its folder of scans, where the command is run."""
    root, config = write_zoo_bundle(tmp_path / "spleen"), json.loads(json.dumps(CONFIG))
    scale = {"_target_": "Lambdad", "keys": "image", "func": "$lambda image: image / 2"}
    config["preprocessing"]["transforms"].append(scale)
    (root / "configs/inference.json").write_text(json.dumps(config))
    (tmp_path / "scans").mkdir()
    monkeypatch.chdir(tmp_path)


def test_the_command_says_what_the_page_shows(stranger: None, capsys: pytest.CaptureFixture[str]) -> None:
    (command, said), *others = re.findall(r"```\n\$ unetfamily (.*)\n([^`]*)```", PAGE)
    assert not others
    assert main(shlex.split(command)) == 2
    assert capsys.readouterr().err.split() == said.split()


def test_the_python_runs(stranger: None, capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    names: dict[str, object] = {}
    exec(code, names)
    assert capsys.readouterr().out.startswith("configs/inference.json: preprocessing#transforms#6 _target_ Lambdad\n")
    assert type(names["bundle"]).__name__ == "Bundle"


def test_the_folder_that_the_page_advises_is_no_code(stranger: None) -> None:
    assert "`$@bundle_root + '/models'`" in PAGE
    assert "$@bundle_root + '/models'" not in EXPRESSIONS  # plain arithmetic, which needs no list


def test_the_commands_with_trust_are_those_that_the_page_names(capsys: pytest.CaptureFixture[str]) -> None:
    def takes_trust(command: str) -> bool:
        with pytest.raises(SystemExit):
            main([command, "--help"])
        return "--trust" in capsys.readouterr().out

    commands = (
        "predict",
        "prune",
        "calibrate",
        "train",
        "export",
        "compare",
        "evaluate",
        "plan",
        "demo",
        "networks",
        "phantom",
    )
    (sentence,) = re.findall(r"(`predict`[^.]*) take `--trust`", PAGE)
    assert [each for each in commands if takes_trust(each)] == re.findall(r"`(\w+)`", sentence)

"""docs/family.md says what the package says: every table, picture and deviation (`python tools/fill_family.py`)."""

import re
import shlex
from importlib import import_module
from itertools import takewhile
from pathlib import Path

import pytest

from monai_unetfamily.cli import main
from monai_unetfamily.nets import MEMBERS, list_networks

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/family.md").read_text("utf-8")
COMMANDS = re.findall(r"`unetfamily (networks .+)`", PAGE)
PICTURES = [command for command in COMMANDS if "--diagram" in command]
TABLES = [command for command in COMMANDS if command not in PICTURES]


def in_one_line(text: str) -> str:
    return " ".join(text.replace("**", "").split())


@pytest.mark.parametrize("command", TABLES)
def test_a_table_is_what_its_command_prints(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    _, below = PAGE.split(f"`unetfamily {command}`\n")
    printed = takewhile(lambda line: line == "" or line.startswith("|"), below.splitlines())
    assert main(shlex.split(command)) == 0
    assert [line for line in printed if line] == [line for line in capsys.readouterr().out.splitlines() if line]


@pytest.mark.parametrize("command", PICTURES)
def test_a_picture_is_what_its_command_draws(command: str, tmp_path: Path) -> None:
    *arguments, file = shlex.split(command)
    assert f"]({file.removeprefix('docs/')})" in PAGE
    assert main([*arguments, str(tmp_path / "now.svg")]) == 0
    shown, now = (path.read_text("utf-8") for path in (ROOT / file, tmp_path / "now.svg"))
    ids = re.compile(r'<g id="([^"]+)"')
    assert ids.findall(shown) == ids.findall(now)
    if drawn_by(shown) == drawn_by(now):  # another version of matplotlib may write other paths
        assert skeleton(shown) == skeleton(now)
        assert numbers(shown) == pytest.approx(numbers(now), abs=0.01)


NUMBER = re.compile(r"-?\d+(?:\.\d+)?")


def skeleton(svg: str) -> str:
    return NUMBER.sub("#", svg)


def numbers(svg: str) -> list[float]:
    return [float(number) for number in NUMBER.findall(svg)]


def drawn_by(svg: str) -> list[str]:
    return re.findall(r"Matplotlib v[\d.]+", svg)


@pytest.mark.parametrize("name", list_networks())
def test_every_member_has_its_picture_and_its_counts(name: str) -> None:
    assert any(f"--diagram {name} " in command for command in PICTURES)
    assert PAGE.count(f"\n| {name} ") >= 2


@pytest.mark.parametrize(
    "module", sorted({m.network.__module__ for m in MEMBERS.values()} | {"monai_unetfamily.nets.cgm"})
)
def test_deviations_are_those_of_the_file(module: str) -> None:
    words = in_one_line(str(import_module(module).__doc__))
    assert in_one_line(PAGE).count(words[words.index("Deviations") + len("Deviations") :].lstrip(": ")) == 1

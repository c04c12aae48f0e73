"""Every command of the README, of CONTRIBUTING and of docs/ is run: small, short, in a folder of its own.

A block of commands begins in a folder with what it names and does not make itself (docs_shelf.py), and goes on from
line to line, as a reader would. What is not run, or not as it stands, is in the tables below with its reason: whoever
writes a command that needs another reason has to write it there.
"""

import importlib
import os
import re
import shlex
import subprocess
import sys
import tomllib
from argparse import ArgumentParser, _SubParsersAction
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml
from _pytest.mark import ParameterSet
from monai.bundle import ConfigParser

from monai_unetfamily.bundles import metadata
from monai_unetfamily.cli import _parser, main
from tests.support.docs_shelf import ship, take
from tests.support.processes import module
from tests.support.tiers import sampled
from tools import draw_architecture

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
PROGRAMS = ("unetfamily", "make", "pip", "python", "napari", "torchrun", "sbatch", "monailabel", "cp", "cd", "git")

# What a command begins with, and why it is not run here.
NOT_HERE = {
    "pip install": "asks a package index; test_wheel.py builds and installs the wheel without one",
    "napari": "opens a window that waits for a person; the tests of napari_plugin/test_widget.py open one",
    'python -c "import torch, napari;': "likewise",
    "monailabel": "MONAI Label wants an environment of its own, where make test-monailabel does the same",
    "cp -r my_bundle apps/": "likewise",
    "torchrun": "two processes: training/test_training_run.py::test_two_processes_train_one_network",
    "sbatch": "needs SLURM: cohort/test_shards.py gives its variables",
    "unetfamily predict my_bundle scans -o labels --ray": "needs or starts a cluster: integrations/test_ray.py",
}
# A command that stands for others, and one of them; or one that takes long, and a shorter one.
INSTEAD = {
    "unetfamily predict BUNDLE INPUT... -o OUT": "unetfamily predict my_bundle scans -o OUT",
    "unetfamily networks NAME": "unetfamily networks unet3plus",
    "unetfamily train BUNDLE --network NAME": "unetfamily train phantom_ct --dataset phantoms -o new --network unet_e",
    "unetfamily compare my_data -o comparison --networks all --minutes-each 30": "unetfamily compare my_data "
    "-o comparison --networks unet,unet_l1 --minutes-each 0.01 --features 4 8 8",  # all: comparison/test_candidates.py
    "unetfamily compare my_data -o comparison --minutes-each 30 [--networks unet,unetplusplus] [--folds K | --seeds S] "
    "[--spatial-dims 2] [--bundle BUNDLE] [--features 16 32 64 128] [--device cuda]": "unetfamily compare my_data "
    "-o comparison --minutes-each 0.01 --networks unet --folds 2 --bundle my_bundle --device cpu",
}
# Within a command: the length of trainings, and the size of what is made.
SHORTER = {
    r"--minutes \d+ --resume": "--minutes 0.05 --resume",
    r"--minutes \d+": "--minutes 0.001",
    r"^(unetfamily train (?!.*--minutes).*)": r"\1 --epochs 1",
    r"^(unetfamily plan .*)": r"\1 --features 4 8 8",
    r"^(unetfamily phantom \S+) -n 24": r"\1 -n 3 --size 32 26 16 --spacing 10 10 12.5",
}
NOT_OURS = {"standalone", "_meta_"}  # of torchrun, and of MONAI's runner: the metadata
CONFIG = ROOT / "configs/phantom_ct/configs/train.yaml"
# Commands that are there to show how they are refused.
REFUSED = {"unetfamily predict spleen/ scans/ -o labels/": 2}


class Block(NamedTuple):
    """Commands of a page that follow each other in one folder."""

    page: str
    text: str
    commands: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.page}: {self.commands[0]}"


# Of programs, not commands of their own.
NAMES = {"python -m monai.bundle run", "python -m monai.bundle run --config_file configs/train.yaml"}
FENCE = re.compile(r"^( *)```([\w-]*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(rf"`((?:{'|'.join(PROGRAMS)})\s[^`]+)`")


def commands(text: str) -> Iterator[str]:
    """The commands of a fenced block, without prompts and comments, those of several lines as one."""
    lines = re.sub(r" *\\\n *|\n +(?=\[)", " ", text).splitlines()
    prompts = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
    for line in prompts or lines:
        if command := re.sub(r"\s+#.*", "", line).strip():
            yield command


def blocks(page: Path) -> Iterator[Block]:
    text, name = page.read_text("utf-8"), str(page.relative_to(ROOT))
    for _, language, block in FENCE.findall(text):
        if language in ("", "sh", "bash", "console"):
            yield Block(name, block, tuple(commands(block)))
    for inline in INLINE.findall(FENCE.sub("", text)):
        command = " ".join(inline.split())
        if (len(command.split()) > 2 or command.startswith("make ")) and command not in NAMES:
            yield Block(name, command, (command,))


def python(page: Path) -> Iterator[str]:
    """The Python of a page, without the rows of a table."""
    for indent, language, code in FENCE.findall(page.read_text("utf-8")):
        if language == "python" and not indent:
            yield code


def has_python(page: Path) -> bool:
    return any(True for _ in python(page))


ALL = [block for page in PAGES for block in blocks(page)]


def left_out(block: Block, command: str) -> bool:
    """Not run here: of the family's page test_family_page.py runs them all and compares what they print."""
    return block.page == "docs/family.md" or any(command.startswith(start) for start in NOT_HERE)


RUN = {block.text: block for block in ALL if not all(left_out(block, command) for command in block.commands)}

# Commands that take seconds each, and that tests of their own run in `make test`; the README's main recipe stays there.
LONG = re.compile(r"unetfamily (train|compare|export|plan|prune|networks --size)|python -m monai\.bundle")
RECIPE = "unetfamily plan my_data -o my_bundle"
EXAMPLES = [
    page for page in PAGES if page.name in ("bundles.md", "overlapping_classes.md")
]  # of Python, without exports


def test_the_main_recipe_is_in_the_readme() -> None:
    """Or else no run of `make test` would plan, train and predict as the README says."""
    assert any(block.page == "README.md" and block.commands[0] == RECIPE for block in RUN.values())


def cases() -> Iterator[ParameterSet]:
    for block in RUN.values():
        long = LONG.search(block.text) and not (block.page == "README.md" and block.commands[0] == RECIPE)
        yield pytest.param(block, id=str(block), marks=[pytest.mark.exhaustive] if long else [])


@pytest.fixture(scope="session")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return ship(tmp_path_factory.mktemp("shipped") / "configs")


@pytest.fixture
def small(shipped: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, clock: None) -> None:
    """The shipped bundles are small ones, no process measures memory, and the folder is empty."""
    monkeypatch.setattr(metadata, "SHIPPED", shipped)
    comparing = importlib.import_module("monai_unetfamily.comparison.study")
    monkeypatch.setattr(comparing, "peak_bytes", lambda *_: 1.0)
    monkeypatch.chdir(tmp_path)


def shortened(command: str) -> str:
    command = INSTEAD.get(command, command)
    for pattern, small in SHORTER.items():
        command, found = re.subn(pattern, small, command)
        if found:
            break
    return command


def run(command: str) -> int:
    words = shlex.split(command)
    for config in Path().glob("*/configs/train.yaml"):  # of a bundle that was planned
        config.write_text(re.sub(r"epoch_batches: \d+", "epoch_batches: 2", config.read_text()))
    if words[0] == "unetfamily":
        return main(words[1:])
    if words[0] == "cd":
        os.chdir(words[1])
        return 0
    if words[0] == "make":
        words[1:1] = ["-n", "-C", str(ROOT)]
    if words[:2] == ["python", "-m"]:
        child = module(*words[2:], folder=Path.cwd())
        sys.stdout.write(child.said.read())
        return child.wait() or 0
    return subprocess.run(words, check=False).returncode


@pytest.mark.slow
@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("block", list(cases()))
def test_commands_do_what_the_page_says(block: Block) -> None:
    made = set[str]()
    for command in block.commands:
        if not left_out(block, command):
            take(shlex.split(shortened(command)), made)
            assert run(shortened(command)) == REFUSED.get(command, 0), shortened(command)


@pytest.mark.slow
@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("page", sampled(filter(has_python, PAGES), *EXAMPLES), ids=lambda page: page.name)
def test_a_pages_python_runs_from_top_to_bottom(page: Path) -> None:
    names: dict[str, object] = {}
    for code in python(page):
        take(["python", *re.findall(r'"([^"\n]+)"', code)], set())
        exec(compile(code, page.name, "exec"), names)


@pytest.mark.parametrize("block", ALL, ids=str)
def test_every_line_of_a_block_is_a_command(block: Block) -> None:
    """What a program prints, or a folder holds, stands in a block of kind `text`."""
    assert [command for command in block.commands if command.split()[0] not in PROGRAMS] == []


def test_the_tables_hold_nothing_that_no_page_has() -> None:
    every = [command for block in ALL for command in block.commands]
    assert [start for start in NOT_HERE if not any(command.startswith(start) for command in every)] == []
    assert [command for command in (*INSTEAD, *REFUSED) if command not in every] == []
    assert [pattern for pattern in SHORTER if not any(re.search(pattern, command) for command in every)] == []


def options(parser: ArgumentParser) -> Iterator[str]:
    for action in parser._actions:
        yield from action.option_strings
        if isinstance(action, _SubParsersAction):
            for command in action.choices.values():
                yield from options(command)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_options_that_a_page_names_are_the_commands(page: Path) -> None:
    """Or else of MONAI's runner, which takes what a config holds."""
    named = re.findall(r"`--([\w-]+)", FENCE.sub("", page.read_text("utf-8")))
    ours = {option.removeprefix("--") for option in options(_parser())}
    assert set(named) - ours - set(ConfigParser.load_config_file(CONFIG)) - NOT_OURS == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files(page: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)\)", page.read_text("utf-8"))
    assert [link for link in links if "://" not in link and not (page.parent / link).exists()] == []


def test_every_page_is_in_the_readmes_list() -> None:
    listed = (ROOT / "README.md").read_text("utf-8")
    assert [page.name for page in PAGES[2:] if f"(docs/{page.name})" not in listed] == []


def test_the_citation_is_of_this_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert {"cff-version", "message", "title", "authors"} <= set(citation)
    assert (citation["version"], citation["license"]) == (project["version"], project["license"])
    assert all(reference.keys() >= {"type", "title", "authors"} for reference in citation["references"])


@pytest.mark.slow
def test_the_architecture_is_drawn_as_it_is() -> None:
    assert draw_architecture.FILE.read_text("utf-8") == draw_architecture.picture()

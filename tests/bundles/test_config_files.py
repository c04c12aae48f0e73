"""A bundle's own files: bombs, pipes, links and keys that stand there twice are one clear line, and nothing runs."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from monai_unetfamily.bundles import (
    METADATA,
    SHIPPED,
    WEIGHTS,
    config_file,
    find_bundle,
    hash_bundle,
    open_bundle,
    read_card,
    read_config,
    read_metadata,
)
from monai_unetfamily.bundles.config_parts import expand
from monai_unetfamily.bundles.trust.config_review import review
from tests.support.zoo_bundle import CONFIG, write_zoo_bundle

CPU = torch.device("cpu")
CONFIG_FILE = Path("configs/inference.json")


@pytest.fixture
def zoo(tmp_path: Path) -> Path:
    return write_zoo_bundle(tmp_path / "spleen")


def in_yaml(zoo: Path, text: str) -> Path:
    """The bundle with its config in YAML, and a text at the end."""
    (zoo / CONFIG_FILE).unlink()
    (zoo / "configs/inference.yaml").write_text(f"{json.dumps(CONFIG)[:-1]},\n{text}}}")
    return zoo


def doubled(first: str, line: str, levels: int = 40) -> str:
    """Levels that each hold the one before twice, 2 ** 40 values in all."""
    return ",\n".join([first, *(line.format(n=n, m=n - 1) for n in range(1, levels))])


YAML = {
    "an object of Python": (
        '"x": !!python/object/apply:os.system ["touch CANARY"]',
        "could not determine a constructor",
    ),
    "a module of Python": ('"x": !!python/module:canary_module ""', "could not determine a constructor"),
    "a name of Python": ('"x": !!python/name:os.system ""', "could not determine a constructor"),
    "a tag that is no truth": ('"x": !!bool maybe', "cannot be read .*maybe"),
    "a bomb of anchors": (doubled('"x0": &x0 [1]', '"x{n}": &x{n} [*x{m}, *x{m}]'), "more than 20,000 values"),
    "a bomb of merged keys": (doubled('"x0": &x0 {a: 1}', '"x{n}": &x{n} {{<<: [*x{m}, *x{m}]}}'), '"<<" is not read'),
    "an anchor within itself": ('"x": &x [*x]', "deeper than 64"),
    "a key twice": ('"spacing": 1', "'spacing' stands there twice"),
    "a key twice, deep": ('"x": [{a: 1, a: 2}]', "'a' stands there twice"),
    "lists in lists": ('"x": ' + 100 * "[" + 100 * "]", "deeper than 64"),
    "lists in lists without end": ('"x": ' + 1_000 * "[", "cannot be read"),
    "two documents": ('"x": 1}\n---\n{"y": 2', "expected a single document"),
}


@pytest.mark.parametrize("name", YAML)
def test_odd_yaml_is_one_clear_line_and_does_not_run(name: str, zoo: Path, tmp_path: Path) -> None:
    text, message = YAML[name]
    in_yaml(zoo, text.replace("CANARY", str(tmp_path / "canary")))
    with pytest.raises(ValueError, match=f"inference.yaml: .*{message}.*mend the file") as told:
        open_bundle(zoo, CPU, trust=True)
    assert "\n" not in str(told.value)
    assert not (tmp_path / "canary").exists()


def test_anchors_are_read(zoo: Path) -> None:
    in_yaml(zoo, '"x": &x [1, 2], "y": *x')
    assert read_config(zoo, "inference")["y"] == [1, 2]


JSON = {
    "a key twice": ('{"spacing": 1, "spacing": 2}', "'spacing' stands there twice"),
    "a key twice, deep": ('{"x": [{"a": 1, "a": "$open(1)"}]}', "'a' stands there twice"),
    "lists in lists": ('{"x": ' + 100 * "[" + 100 * "]" + "}", "deeper than 64"),
    "lists in lists without end": ('{"x": ' + 500_000 * "[", "cannot be read"),
    "too many values": ('{"x": [' + 20_001 * "0," + "0]}", "more than 20,000 values"),
    "a number without end": ('{"x": ' + 5000 * "9" + "}", "cannot be read"),
    "too large": ('{"x": "' + 2**20 * "x" + '"}', "has 1,048,585 bytes; a config has 1,048,576 at most"),
    "no text": (b"\x80\x81", "cannot be read"),
    "an empty file": ("", "cannot be read"),
    "a list": ("[]", "holds list; an object is needed"),
}


@pytest.mark.parametrize("name", JSON)
@pytest.mark.parametrize("file", ["inference.json", METADATA])
def test_odd_json_is_one_clear_line(name: str, file: str, zoo: Path) -> None:
    text, message = JSON[name]
    (zoo / "configs" / file).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError, match=f"{file}: .*{message}") as told:
        open_bundle(zoo, CPU, trust=True)
    assert "\n" not in str(told.value)


BOMBS = {
    "what is repeated": {f"x{n}": [f"%x{n - 1}"] * 2 for n in range(1, 40)} | {"x0": [1]},
    "what is referred to": {f"x{n}": [f"@x{n - 1}"] * 2 for n in range(1, 40)} | {"x0": [1], "inferer": "@x39"},
    "sums": {f"x{n}": f"$@x{n - 1} + @x{n - 1}" for n in range(1, 40)} | {"x0": [1], "inferer": "@x39"},
}


@pytest.mark.parametrize("name", BOMBS)
def test_looking_at_a_config_that_repeats_itself_without_end_is_one_clear_line(name: str, zoo: Path) -> None:
    """Running a bundle may take more memory than there is, looking at one may not."""
    (zoo / CONFIG_FILE).write_text(json.dumps(CONFIG | BOMBS[name]))
    look = review if name == "what is repeated" else read_card
    with pytest.raises(ValueError, match=r"inference.json: .*more than 20,000 (values|letters).*mend the file"):
        look(zoo)


def test_what_a_config_repeats_in_measure_is_written_out() -> None:
    assert expand({"a": [1, 2], "b": ["%a", "%a"]})["b"] == [[1, 2], [1, 2]]


# files that are none, and links


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="a system without pipes that have names")
@pytest.mark.parametrize("name", ["configs/inference.json", "configs/metadata.json", "models/model.pt", "LICENSE"])
@pytest.mark.parametrize("make", [os.mkfifo, lambda file: Path(file).symlink_to("/dev/zero"), os.mkdir])
def test_pipes_devices_and_folders_are_no_files(name: str, make: Callable[[Path], None], zoo: Path) -> None:
    """A pipe would let its reader wait for ever, a device read for ever."""
    (zoo / name).unlink()
    make(zoo / name)
    with pytest.raises((FileNotFoundError, ValueError), match=f"{Path(name).stem}|no weights|/dev/zero") as told:
        raise_or_open(zoo, name)
    assert "\n" not in str(told.value)


def raise_or_open(zoo: Path, name: str) -> None:
    open_bundle(zoo, CPU)
    if read_card(zoo).license == "":
        raise FileNotFoundError(name)


@pytest.mark.parametrize("name", ["configs/inference.json", "configs/metadata.json", "models/model.pt", "LICENSE"])
@pytest.mark.parametrize("link", ["absolute", "relative", "a folder", "over another link"])
def test_a_link_that_leads_out_of_the_bundle_is_refused(name: str, link: str, zoo: Path, tmp_path: Path) -> None:
    """What it leads to would work: it is the bundle's own file."""
    file, outside = zoo / name, tmp_path / "outside"
    shutil.copytree(file.parent, outside)
    if link == "a folder" and file.parent != zoo:
        shutil.rmtree(file.parent)
        file.parent.symlink_to(outside)
    elif link == "over another link":
        (zoo / "hop").symlink_to(outside)
        relink(file, zoo / "hop" / file.name)
    else:
        depth = len(Path(name).parts)
        relink(file, outside / file.name if link == "absolute" else Path("../" * depth) / "outside" / file.name)
    with pytest.raises(ValueError, match=r"(json|model.pt|LICENSE): leads to .*outside.*, outside the bundle; put"):
        raise_or_card(zoo)


def relink(file: Path, target: Path) -> None:
    file.unlink()
    file.symlink_to(target)


def raise_or_card(zoo: Path) -> None:
    open_bundle(zoo, CPU, trust=True)
    read_card(zoo)


def test_a_link_in_a_circle_is_no_file(zoo: Path) -> None:
    relink(zoo / CONFIG_FILE, zoo / CONFIG_FILE)
    with pytest.raises(FileNotFoundError, match="no configs/inference"):
        open_bundle(zoo, CPU)


def test_links_within_a_bundle_and_to_a_bundle_are_followed(zoo: Path, tmp_path: Path) -> None:
    shutil.move(zoo / "models" / WEIGHTS, zoo / "models/epoch_3.pt")
    (zoo / "models" / WEIGHTS).symlink_to("epoch_3.pt")
    (tmp_path / "link").symlink_to(zoo)
    open_bundle(tmp_path / "link", CPU)
    assert review(tmp_path / "link") == ()
    assert config_file(tmp_path / "link", "inference") == tmp_path / "link" / CONFIG_FILE


@pytest.mark.parametrize(
    "name", ["../configs/phantom_ct", "phantom_ct/../phantom_ct", ".", "phantom_ct/", "", "..", "x"]
)
def test_a_shipped_name_is_a_name(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Such a path may lead to a bundle from where its user is; it is none from where the shipped ones are."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match="no bundle there"):
        find_bundle(name)
    assert find_bundle("phantom_ct") == SHIPPED / "phantom_ct"


def test_a_path_is_taken_as_it_is(zoo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert read_metadata(find_bundle("../spleen"))["version"] == "0.1.0"


@pytest.mark.parametrize("name", ["\x1b[2Jspleen", "a\nb", "a\u202eb", "\x00"])
def test_names_of_classes_do_not_steer_a_terminal(name: str, zoo: Path) -> None:
    metadata = json.loads((zoo / "configs" / METADATA).read_text())
    metadata["network_data_format"]["outputs"]["pred"]["channel_def"]["1"] = name
    (zoo / "configs" / METADATA).write_text(json.dumps(metadata))
    with pytest.raises(ValueError, match="metadata.json: channel_def: got the name ") as told:
        open_bundle(zoo, CPU)
    assert str(told.value).isprintable()


def test_a_bundle_is_hashed_by_what_is_read_of_it(zoo: Path) -> None:
    """A link beside the config, to a device, would be read for ever."""
    hashed = hash_bundle(zoo)
    (zoo / "configs/inference.zero").symlink_to("/dev/zero")
    assert hash_bundle(zoo) == hashed

"""Cases preprocessed once: what is opened is what the transforms give, and what changes is made anew."""

import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.bundle import ConfigParser
from monai.transforms import Compose, EnsureTyped, Lambdad, LoadImaged, NormalizeIntensityd, Orientationd

from monai_unetfamily.data import OpenPreprocessedd, load_cases, preprocess

KEYS = ["image", "label"]
OPEN = OpenPreprocessedd(KEYS)


def steps(nonzero: bool = False) -> list[Any]:
    return [
        LoadImaged(KEYS, ensure_channel_first=True, image_only=True, reader="NibabelReader"),
        EnsureTyped(KEYS, dtype=torch.float32),
        Orientationd(KEYS, axcodes="LPS", labels=None),
        NormalizeIntensityd("image", nonzero=nonzero),
    ]


def test_a_case_is_what_the_transforms_make_of_it(phantoms: Path, tmp_path: Path) -> None:
    cases = load_cases(phantoms)
    for made, case in zip(preprocess(cases, steps(), tmp_path), cases, strict=True):
        assert made["image"] == case["image"]
        opened, wanted = OPEN(made), Compose(steps())(dict(case))
        for key in KEYS:
            assert torch.equal(opened[key].as_tensor().to(torch.float32), wanted[key].as_tensor())
            assert torch.equal(opened[key].affine, wanted[key].affine)
        assert opened["label"].dtype == torch.uint8  # a quarter of the room
        assert opened["image"].dtype == torch.float32


def test_nothing_is_made_twice_and_what_changed_is_made_anew(phantoms: Path, tmp_path: Path) -> None:
    cases = load_cases(phantoms)
    first = preprocess(cases, steps(), tmp_path)
    times = {file: file.stat().st_mtime_ns for file in tmp_path.iterdir()}
    assert preprocess(cases, Compose(steps()), tmp_path) == first
    assert {file: file.stat().st_mtime_ns for file in tmp_path.iterdir()} == times
    other = preprocess(cases, steps(nonzero=True), tmp_path)
    assert not {case["preprocessed"] for case in other} & {case["preprocessed"] for case in first}
    Path(cases[0]["image"]).touch()
    again = preprocess(cases, steps(), tmp_path)
    assert [one["preprocessed"] == two["preprocessed"] for one, two in zip(again, first, strict=True)] == [
        False,
        *[True] * (len(cases) - 1),
    ]


@pytest.mark.parametrize(
    "function",
    [
        lambda least: lambda x: x > least,
        lambda least: partial(torch.gt, other=least),
        lambda n: eval(f"lambda x: x > {n}"),
    ],
    ids=["captured", "partial", "written out"],
)
def test_functions_that_do_other_things_are_other_transforms(
    phantoms: Path, tmp_path: Path, function: Callable[[float], Callable]
) -> None:
    files = [
        preprocess(load_cases(phantoms)[:1], [*steps(), Lambdad("image", function(least))], tmp_path)[0]["preprocessed"]
        for least in (0.5, 0.5, 1.5)
    ]
    assert files[0] == files[1] != files[2]


@pytest.mark.exhaustive
@pytest.mark.slow
def test_another_process_finds_the_same_files(untrained: Path, phantoms: Path, tmp_path: Path) -> None:
    """Transforms as a config builds them, here and in a process with another hash seed."""
    program = "import sys; from tests.data import test_cache as this; print(this.listed(*sys.argv[1:]))"
    files = [str(file) for file in (untrained / "configs", phantoms, tmp_path / "cache")]
    environment = os.environ | {"PYTHONHASHSEED": "1", "PYTHONPATH": ":".join(sys.path)}
    command = [sys.executable, "-c", program, *files]
    said = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    assert said == f"{listed(*files)}\n"


def listed(configs: str, data: str, cache: str) -> list[Path]:
    parser = ConfigParser()
    parser.read_config(f"{configs}/train.yaml")
    parser.read_meta(f"{configs}/metadata.json")
    parser.update({"dataset_dir": data, "cache_dir": cache})
    return [case["preprocessed"] for case in parser.get_parsed_content("train#cases")]


def test_a_file_is_mapped_not_read(phantoms: Path, tmp_path: Path) -> None:
    """Writing to what was opened changes no file."""
    made = preprocess(load_cases(phantoms), steps(), tmp_path)[0]
    OPEN(made)["image"].fill_(7)
    assert not (OPEN(made)["image"] == 7).any()


def test_a_folder_that_cannot_be_written_is_named(phantoms: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="cannot write there"):
        preprocess(load_cases(phantoms), steps(), tmp_path / "file")

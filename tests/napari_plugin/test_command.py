"""The line that the widget copies: the command's own parser reads the same settings, device and files from it."""

import shlex
import subprocess
from pathlib import Path

import pytest

from monai_unetfamily.cli import _parser
from monai_unetfamily.cli.predict import _settings
from monai_unetfamily.data import find_studies
from monai_unetfamily.prediction import Settings
from napari_plugin.command import predict_command

NAMES = {0: "background", 1: "liver", 2: "left kidney", 3: "it's=odd"}
ALL = {
    "overlap": 0.25,
    "mirror": True,
    "level": 2,
    "presence": {"liver": 0.5, "left kidney": 0.0, "it's=odd": 1e-05},
    "box": ((10, 60), (20, 80), (0, 40)),
    "roi": ("liver", "left kidney"),
    "keep_largest": ("left kidney", "it's=odd"),
    "min_volume": {"it's=odd": 2.5},
    "split": True,
    "save_scores": True,
    "dicom_seg": True,
    "previews": False,
    "nan": "zero",
    "gaps": "resample",
    "max_voxels": 1000,
}
CASES = [{}, *({name: value} for name, value in ALL.items()), ALL]


@pytest.mark.parametrize("asked", CASES, ids=lambda asked: " ".join(asked) if len(asked) < 2 else "all")
@pytest.mark.parametrize("device", ["auto", "cuda:1"])
def test_the_command_reads_back_what_was_asked(asked: dict[str, object], device: str) -> None:
    settings = Settings(**asked)
    line = predict_command("my bundle", ["/scans/a b/ct.nii.gz"], "my labels", settings, device)
    program, *words = shlex.split(line)
    options = _parser().parse_args(words)
    assert program == "unetfamily"
    assert _settings(options, NAMES) == settings
    assert (options.bundle, options.inputs, str(options.output)) == ("my bundle", ["/scans/a b/ct.nii.gz"], "my labels")
    assert (options.device, options.channel_dim, options.trust) == (device, None, False)


def test_a_trusted_bundle_an_axis_of_channels_and_a_series_are_named() -> None:
    line = predict_command("brain", ["mr.nii"], "labels", Settings(), "cpu", channel_dim=3, series="1.2.3", trust=True)
    options = _parser().parse_args(shlex.split(line)[1:])
    assert (options.channel_dim, options.series, options.trust) == (3, "1.2.3", True)


def test_nothing_that_is_default_is_said() -> None:
    assert predict_command("b", ["-ct.nii"], "o", Settings(), "auto") == "unetfamily predict b ./-ct.nii -o o"


def test_files_that_are_named_as_channels_are_one_case(tmp_path: Path) -> None:
    files = [tmp_path / f"mr_{number:04}.nii.gz" for number in range(2)]
    for file in files:
        file.touch()
    line = predict_command("brain", [str(file) for file in files], "labels", Settings(), "auto")
    options = _parser().parse_args(shlex.split(line)[1:])
    [study] = find_studies(options.inputs, channels=2).studies
    assert study.files == tuple(files)


@pytest.mark.parametrize("names", [("t1, pre.nii", 'the "flair".nii'), ("a_0001.nii", "a_0000.nii")])
def test_other_channels_are_listed_in_a_file_first(tmp_path: Path, names: tuple[str, str]) -> None:
    files = [tmp_path / name for name in names]
    for file in files:
        file.touch()
    first, line = predict_command("brain", [str(file) for file in files], "labels", Settings(), "auto").splitlines()
    subprocess.run(["sh", "-c", first], cwd=tmp_path, check=True)
    options = _parser().parse_args(shlex.split(line)[1:])
    [study] = find_studies([tmp_path / name for name in options.inputs], channels=2).studies
    assert study.files == tuple(files)


def test_an_image_without_a_file_has_no_command() -> None:
    with pytest.raises(ValueError, match="no file of the image"):
        predict_command("brain", [], "labels", Settings(), "auto")

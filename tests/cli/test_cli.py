"""The command: one line for what it cannot do, exit status as promised, nothing half-written."""

from collections.abc import Sequence
from io import BytesIO, TextIOWrapper
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from monai_unetfamily.cli import main

Said = pytest.CaptureFixture[str]


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with good and bad things in it, to stand in."""
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    ramp = np.arange(8000, dtype=np.int16).reshape(20, 20, 20)
    nib.save(nib.Nifti1Image(ramp, np.eye(4)), "good.nii.gz")
    nib.save(nib.Nifti1Image(np.zeros((20, 20, 20, 2), np.int16), np.eye(4)), "4d.nii.gz")
    nib.save(nib.Nifti1Image(np.full((20, 20, 20), np.nan, np.float32), np.eye(4)), "nan.nii.gz")
    Path("short.nii.gz").write_bytes(Path("good.nii.gz").read_bytes()[:100])
    Path("file").touch()
    Path("empty").mkdir()
    Path("old").mkdir()
    Path("old/good.nii.gz").touch()
    return folder


USAGE = [
    (["predict", "lung_ct", "good.nii.gz", "-o", "out"], "lung_ct: no bundle there"),
    (["predict", "BUNDLE", "absent.nii.gz", "-o", "out"], "absent.nii.gz: no such file"),
    (["predict", "BUNDLE", "empty", "-o", "out"], "empty: holds no"),
    (["predict", "BUNDLE", "good.nii.gz", "-o", "file/out"], "file/out"),
    (["predict", "BUNDLE", "good.nii.gz", "-o", "."], "is an input that would be replaced"),
    (["predict", "BUNDLE", "good.nii.gz", "-o", "old"], "old/good.nii.gz: exists, the first of 1 files"),
    (["predict", "BUNDLE", "good.nii.gz", "-o", "out", "--roi", "heart"], "got classes ['heart']"),
    (["predict", "BUNDLE", "good.nii.gz", "-o", "out", "--min-volume", "liver=a"], "ML or CLASS=ML"),
    (["predict", "BUNDLE", "good.nii.gz", "-o", "out", "--min-volume", "nan"], "got 'nan'; ML or CLASS=ML"),
    (["predict", "BUNDLE", "good.nii.gz", "-o", "out", "--min-volume", "liver=inf"], "got 'liver=inf'; ML or CLASS=ML"),
    (["predict", "BUNDLE", "good.nii.gz", "-o", "out", "--min-volume=-1"], "got '-1'; ML or CLASS=ML"),
    (["predict", "BUNDLE", "good.nii.gz", "-o", "out", "--max-voxels", "0"], "--max-voxels got 0; 1 or more"),
    (["predict", "BUNDLE", "good.nii.gz", "-o", "old", "--dry-run"], "old/good.nii.gz: exists, the first of 1 files"),
    (["predict", "BUNDLE", "good.nii.gz", "-o", "out", "--level", "1"], "only UNet++ has levels"),
    (["predict", "BUNDLE", "good.nii.gz", "-o", "out", "--mirror"], "allows no mirroring"),
    (["predict", "BUNDLE", "good.nii.gz", "-o", "out", "--overlap", "1"], "overlap is 1.0"),
    (["predict", "BUNDLE", "good.nii.gz", "-o", "out", "--box", "0:8,:,0:8"], "box is '0:8,:,0:8'; first:stop for"),
    (["predict", "BUNDLE", "good.nii.gz", "-o", "out", "--presence", "liver=a"], "'liver=a'; P or CLASS=P is allowed"),
    (["predict", "BUNDLE", "good.nii.gz", "-o", "out", "--presence", "2"], "probabilities from 0 to 1 are allowed"),
    (["predict", "BUNDLE", "good.nii.gz", "-o", "out", "--shard", "3/2"], "from 1 to n"),
    (["predict", "BUNDLE", "good.nii.gz", "-o", "out", "--device", "gpu"], "device is 'gpu'; allowed are"),
    (["train", "BUNDLE", "--dataset", "empty", "-o", "new"], "dataset.json"),
    (["train", "BUNDLE", "--dataset", "empty", "-o", "file/new"], "dataset.json"),
    (["train", "BUNDLE", "--dataset", "PHANTOMS", "-o", "new", "--network", "unet9"], "unet9"),
    (["train", "BUNDLE", "--dataset", "PHANTOMS", "-o", "file/new"], "file"),
    (["phantom", "new", "-n", "0"], "n = 0"),
    (["phantom", ".", "-n", "1"], "empty"),
    (["phantom", "new", "-n", "1", "--size", "4", "4", "4"], "16 voxels"),
    (["phantom", "file/new", "-n", "1"], "file"),
    (["evaluate", "absent", "PHANTOMS/labelsTr"], "absent"),
    (["evaluate", "PHANTOMS/labelsTr", "empty"], "empty"),
    (["evaluate", "good.nii.gz", "PHANTOMS/labelsTr"], "good"),
    (["evaluate", "short.nii.gz", "short.nii.gz"], "short.nii.gz"),
    (["phantom", "new", "-n", "1", "--seed", "-1"], "seed -1"),
    (["phantom", "new", "-n", "1", "--size", "200000", "200000", "2000"], "voxels in all"),
    (["networks", "unet9"], "unet9"),
    (["networks", "unet", "--size", "96"], "size is (96,); two or three axes"),
    (["networks", "unet", "--size", "-4", "64"], "size is (-4, 64)"),
    (["networks", "--set", "size=3"], "OPTION=VALUE, of act"),
    (["networks", "unet3plus", "--set", "skip_channels=a"], "skip_channels is 'a'"),
    (["networks", "unet", "--diagram", "unet"], "one of the two"),
    (["networks", "unet", "-o", "unet.svg"], "without --diagram"),
    (["networks", "unet", "--size", "8", "8"], "deepest grid"),
    (["networks", "--set", "cgm=true"], "no option cgm"),
    (["networks", "--set", "features=[8"], "no YAML"),
    (["networks", "--set", "features"], "OPTION=VALUE"),
    (["networks", "unet", "--set", "norm=batch"], "preset 'paper' fixes norm"),
    (["networks", "--diagram", "unet9"], "unet9"),
    (["networks", "--diagram", "unet", "-o", "unet.pdf"], ".svg or .png"),
    (["networks", "--diagram", "unet", "-o", "file/unet.svg"], "file"),
    (["demo", "-o", "."], "name another"),
    (["demo", "-o", "new", "--device", "tpu"], "device is 'tpu'"),
]


@pytest.mark.parametrize(("arguments", "message"), USAGE, ids=[" ".join(a) for a, _ in USAGE])
def test_what_cannot_be_done_is_one_line_and_leaves_nothing(
    work: Path, bundle: Path, phantoms: Path, capsys: Said, arguments: Sequence[str], message: str
) -> None:
    before = sorted(work.rglob("*"))
    filled = [a.replace("BUNDLE", str(bundle)).replace("PHANTOMS", str(phantoms)) for a in arguments]
    assert main(filled) == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert said[0].startswith("unetfamily: ")
    assert message in said[0]
    assert sorted(work.rglob("*")) == before


@pytest.mark.slow
def test_a_name_that_a_terminal_cannot_show_stops_nothing(
    work: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("good.nii.gz").rename("\N{CJK UNIFIED IDEOGRAPH-56F3}.nii.gz")
    terminal = TextIOWrapper(BytesIO(), encoding="ascii", write_through=True)
    monkeypatch.setattr("sys.stdout", terminal)
    images = ["short.nii.gz", "\N{CJK UNIFIED IDEOGRAPH-56F3}.nii.gz"]
    assert main(["predict", str(bundle), *images, "-o", "out"]) == 1
    assert "\\u56f3" in terminal.buffer.getvalue().decode("ascii")
    assert (work / "out" / images[1]).is_file()


@pytest.mark.slow
def test_bad_files_cost_one_line_each_and_the_rest_is_done(work: Path, bundle: Path, capsys: Said) -> None:
    inputs = ["4d.nii.gz", "good.nii.gz", "nan.nii.gz", "short.nii.gz"]
    assert main(["predict", str(bundle), *inputs, "-o", "out"]) == 1
    said = capsys.readouterr()
    assert [line.split(":")[1].strip() for line in said.err.splitlines()] == ["4d", "nan", "short"]
    assert "1 done, 0 finished before, 3 failed" in said.out
    assert [file.name for file in (work / "out").glob("*.nii.gz")] == ["good.nii.gz"]
    assert main(["predict", str(bundle), "good.nii.gz", "-o", "out"]) == 0
    assert "0 done, 1 finished before, 0 failed" in capsys.readouterr().out
    assert main(["predict", str(bundle), "good.nii.gz", "-o", "out", "--overlap", "0.5"]) == 2
    assert main(["predict", str(bundle), "good.nii.gz", "-o", "out", "--overwrite"]) == 0
    assert "1 done, 0 finished before, 0 failed" in capsys.readouterr().out


@pytest.mark.slow
def test_a_perfect_prediction_scores_one(work: Path, phantoms: Path, capsys: Said) -> None:
    labels = str(phantoms / "labelsTr")
    assert main(["evaluate", labels, labels, "--csv", "scores.csv"]) == 0
    said = capsys.readouterr().out
    for name in ("1", "2", "3", "4", "5", "mean"):
        (row,) = [line for line in said.splitlines() if line.startswith(f"| {name} ")]
        assert row.split("|")[4].strip().startswith("1.000")
    assert len((work / "scores.csv").read_text().splitlines()) == 1 + 6 * 5


@pytest.mark.slow
def test_a_section_of_a_data_set_is_predicted_and_evaluated(
    work: Path, bundle: Path, phantoms: Path, capsys: Said
) -> None:
    section = [str(phantoms), "--section", "validation"]
    assert main(["predict", str(bundle), *section, "-o", "out"]) == 0
    assert sorted(file.name for file in (work / "out").glob("*.nii.gz")) == ["phantom_000.nii.gz", "phantom_005.nii.gz"]
    assert main(["evaluate", "out", *section]) == 0
    assert "| left_kidney " in capsys.readouterr().out


@pytest.mark.slow
def test_a_fold_of_a_section_is_predicted_and_evaluated(work: Path, bundle: Path, phantoms: Path, capsys: Said) -> None:
    fold = [str(phantoms), "--section", "validation", "--fold", "1"]
    assert main(["predict", str(bundle), *fold, "-o", "out", "--no-previews"]) == 0
    assert [file.name for file in (work / "out").glob("*.nii.gz")] == ["phantom_001.nii.gz"]
    assert main(["evaluate", "out", *fold]) == 0
    assert main(["predict", str(bundle), str(phantoms), "--fold", "1", "-o", "new"]) == 2
    assert main(["evaluate", "out", *fold[:-1], "5"]) == 2
    said = capsys.readouterr().err
    assert "got --fold 1 without --section" in said
    assert 'got fold 5; 0 to 4, or "all", is allowed' in said


@pytest.mark.slow
def test_pictures_walk_through_every_command(work: Path, bundle_2d: Path, capsys: Said) -> None:
    size = ["--size", "32", "26", "16", "--spacing", "10", "10", "12.5"]
    assert main(["phantom", "new", "-n", "2", "--pictures", *size]) == 0
    section = ["new", "--section", "validation"]
    assert main(["predict", str(bundle_2d), *section, "-o", "out"]) == 0
    assert len(list((work / "out").glob("phantom_000_*.png"))) == 8
    assert main(["evaluate", "out", *section, "--csv", "scores.csv"]) == 0
    assert "HD95 px" in capsys.readouterr().out
    assert main(["predict", str(bundle_2d), "good.nii.gz", "new/imagesTr", "-o", "all"]) == 1
    said = capsys.readouterr()
    assert said.err.count("\n") == 1
    assert "bundle_2d takes these alone" in said.err
    assert "16 done, 0 finished before, 1 failed" in said.out


@pytest.mark.slow
def test_phantoms_come_in_any_size(work: Path, capsys: Said) -> None:
    size = ["--size", "20", "18", "16", "--spacing", "16", "16", "12"]
    assert main(["phantom", "new", "-n", "2", "--seed", "3", *size]) == 0
    assert len(list((work / "new/imagesTr").iterdir())) == 2
    assert capsys.readouterr().out == "2 phantoms in new\n"


@pytest.mark.slow
def test_networks_are_profiled_and_drawn(work: Path, capsys: Said) -> None:
    assert main(["networks", "unetplusplus", "--size", "32", "32", "--preset", "paper"]) == 0
    said = capsys.readouterr().out
    assert "| unetplusplus | paper  |  9,041,634 |" in said  # two classes: one head channel more
    assert "X[0,4] 160 > 32 |" in said
    assert main(["networks", "--diagram", "unetplusplus", "--set", "features=[4, 8]", "deep_supervision=true"]) == 0
    assert capsys.readouterr().out == "diagram of unetplusplus in unetplusplus.svg\n"
    assert "<svg" in (work / "unetplusplus.svg").read_text()


def test_debug_shows_where_it_happened(work: Path) -> None:
    with pytest.raises(FileNotFoundError):
        main(["predict", "lung_ct", "good.nii.gz", "-o", "out", "--debug"])

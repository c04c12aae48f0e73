"""Training: one workflow by two doors, checkpoints that a crash cannot corrupt, resumed where it stopped."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from PIL import Image

from monai_unetfamily.bundles import copy_bundle, find_bundle, open_bundle
from monai_unetfamily.cli import main
from monai_unetfamily.data.phantom import write_phantoms
from monai_unetfamily.prediction import predict_volume
from monai_unetfamily.training import read_history, train
from monai_unetfamily.training.history import Epoch, write_history
from tests.support.processes import module
from tests.support.tiers import sampled

pytestmark = pytest.mark.slow

TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m")


def set_config(bundle: Path, **values: Any) -> None:
    file = bundle / "configs/train.yaml"
    lines = [line for line in file.read_text().splitlines() if line.split(":")[0] not in values]
    file.write_text("\n".join([*lines, *(f"{key}: {value}" for key, value in values.items())]))


@pytest.fixture
def quick(untrained: Path) -> Path:
    set_config(untrained, max_epochs=2, val_interval=1)
    return untrained


@pytest.fixture
def quick_2d(untrained_2d: Path) -> Path:
    set_config(untrained_2d, max_epochs=2, val_interval=1)
    return untrained_2d


@pytest.fixture
def paired(pictures: Path, tmp_path: Path) -> Path:
    """The pictures as plain folders, images as TIFF and labels as PNG."""
    folder = tmp_path / "paired"
    (folder / "images").mkdir(parents=True)
    (folder / "labels").mkdir()
    for file in (pictures / "imagesTr").iterdir():
        Image.open(file).save(folder / "images" / f"{file.stem}.tif")
        shutil.copy(pictures / "labelsTr" / file.name, folder / "labels")
    return folder


def weights_of(bundle: Path) -> dict[str, torch.Tensor]:
    weights: dict[str, torch.Tensor] = torch.load(bundle / "models/model.pt", weights_only=True)
    return weights


@pytest.mark.parametrize("network", sampled(["unet3plus", "unetplusplus"], "unet3plus"))
def test_trains_then_predicts_and_leaves_its_traces(quick: Path, phantoms: Path, tmp_path: Path, network: str) -> None:
    said: list[str] = []
    new = tmp_path / "new"
    file = train(quick, phantoms, output=new, network=network, device="cpu", log=said.append)
    assert file == new / "models/model.pt"
    assert not (quick / "models").exists()
    epochs = read_history(new / "logs/history.csv")
    assert [epoch.epoch for epoch in epochs] == [1, 2]
    assert all(epoch.dice is not None and 0 <= epoch.dice <= 1 for epoch in epochs)
    assert any(line.startswith("epoch 2: loss ") for line in said)
    for picture in ("learning_curve.png", "sample.png"):
        assert (new / "logs" / picture).read_bytes().startswith(b"\x89PNG")
    assert list((new / "logs").glob("events.out.tfevents*"))
    assert "Epoch[2]" in (new / "logs/train.log").read_text()
    image = next((phantoms / "imagesTr").iterdir())
    assert predict_volume(open_bundle(new, torch.device("cpu")), image).shape == nib.load(image).shape


@pytest.fixture
def two_channels(phantoms: Path, tmp_path: Path) -> Path:
    """The phantoms in nnU-Net's layout: the CT, and the same upside down."""
    folder = tmp_path / "two_channels"
    (folder / "imagesTr").mkdir(parents=True)
    shutil.copytree(phantoms / "labelsTr", folder / "labelsTr")
    for file in (phantoms / "imagesTr").iterdir():
        image = nib.load(file)
        for channel, sign in enumerate((1, -1)):
            name = file.name.replace(".nii", f"_000{channel}.nii")
            nib.save(nib.Nifti1Image(sign * np.asarray(image.dataobj), image.affine), folder / "imagesTr" / name)
    table = json.loads((phantoms / "dataset.json").read_text())["labels"]
    listing = {"channel_names": {"0": "CT", "1": "negative"}, "file_ending": ".nii.gz", "numTraining": 6}
    listing["labels"] = {name: int(label) for label, name in table.items()}
    (folder / "dataset.json").write_text(json.dumps(listing))
    return folder


def test_trains_on_channels_in_files_of_their_own(quick: Path, two_channels: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"_0000\.nii\.gz: has 2 channels, and bundle takes 1"):
        train(quick, two_channels, device="cpu")
    file = quick / "configs/metadata.json"
    metadata = json.loads(file.read_text())
    for network in metadata["networks"].values():
        network["in_channels"] = 2
    metadata["network_data_format"]["inputs"]["image"] |= {"num_channels": 2, "channel_def": {"0": "CT", "1": "other"}}
    file.write_text(json.dumps(metadata))
    train(quick, two_channels, device="cpu", log=lambda line: None)
    section = [str(two_channels), "--section", "validation"]
    assert main(["predict", str(quick), *section, "-o", str(tmp_path / "out"), "--no-previews"]) == 0
    assert main(["evaluate", str(tmp_path / "out"), *section]) == 0


@pytest.mark.parametrize("network", sampled(["unet3plus", "unetplusplus"], "unetplusplus"))
def test_trains_on_pictures_in_paired_folders(
    quick_2d: Path, paired: Path, pictures: Path, tmp_path: Path, network: str
) -> None:
    said: list[str] = []
    new = tmp_path / "new"
    train(quick_2d, paired, output=new, network=network, device="cpu", log=said.append)
    assert any(
        "names no labels; they are taken for the bundle's: {0: 'background', 1: 'liver'" in line for line in said
    )
    assert [epoch.epoch for epoch in read_history(new / "logs/history.csv")] == [1, 2]
    assert (new / "logs/sample.png").read_bytes().startswith(b"\x89PNG")
    picture = next((pictures / "imagesTr").iterdir())
    assert predict_volume(open_bundle(new, torch.device("cpu")), picture).shape == (26, 32)


def test_resumes_after_the_last_whole_epoch(quick: Path, phantoms: Path) -> None:
    set_config(quick, max_epochs=3, val_interval=1)

    def interrupt(line: str) -> None:
        if line.startswith("epoch 2:"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(quick, phantoms, device="cpu", log=interrupt)
    state = torch.load(quick / "models/checkpoint.pt", weights_only=True)
    assert state["lr_scheduler"]["last_epoch"] == 2
    steps = next(iter(state["optimizer"]["state"].values()))["step"]
    train(quick, phantoms, resume=True, device="cpu")
    resumed = torch.load(quick / "models/checkpoint.pt", weights_only=True)
    assert [epoch.epoch for epoch in read_history(quick / "logs/history.csv")] == [1, 2, 3]
    assert next(iter(resumed["optimizer"]["state"].values()))["step"] == steps * 3 / 2
    seconds = [epoch.seconds for epoch in read_history(quick / "logs/history.csv")]
    assert seconds == sorted(seconds)


def test_a_run_without_a_budget_is_not_resumed_with_one(quick: Path, phantoms: Path) -> None:
    train(quick, phantoms, device="cpu")
    with pytest.raises(ValueError, match="without a time budget"):
        train(quick, phantoms, resume=True, minutes=1, device="cpu")


def test_a_schedule_is_not_resumed_for_another_number_of_epochs(quick: Path, phantoms: Path) -> None:
    """PyTorch's state would bring the old number back, and train on at a learning rate of 0."""
    train(quick, phantoms, device="cpu")
    set_config(quick, max_epochs=5, val_interval=1)
    with pytest.raises(ValueError, match="was trained for 2 epochs, now they are 5"):
        train(quick, phantoms, resume=True, device="cpu")


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_whole_epoch(quick: Path, phantoms: Path) -> None:
    set_config(quick, max_epochs=30, val_interval=100, learning_rate="1.0e+30")
    with pytest.raises(ValueError, match="the loss is (nan|inf)"):
        train(quick, phantoms, device="cpu")


def test_what_monai_wraps_is_unwrapped(quick: Path, phantoms: Path) -> None:
    file = quick / "configs/metadata.json"
    good = file.read_text()
    file.write_text(good.replace("[24, 24, 12]", "[2, 2, 2]"))
    with pytest.raises(ValueError, match="train.yaml: input has .* voxels; the deepest grid needs"):
        train(quick, phantoms, device="cpu")
    file.write_text(good)
    config = quick / "configs/train.yaml"
    good = config.read_text()
    for bad, message in ((f"{good}\n  - : [\n", "train.yaml: "), (good.replace("AdamW", "Adamm"), "optim.Adamm")):
        config.write_text(bad)
        with pytest.raises(ValueError, match=message):
            train(quick, phantoms, device="cpu")


def test_a_refused_copy_touches_nothing(
    quick: Path, phantoms: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody else's training may have begun in the folder while this one checked its data."""
    other = tmp_path / "new" / "theirs.txt"

    def meanwhile(bundle: Path, dataset: Path, log: Any, **_: Any) -> None:
        other.parent.mkdir()
        other.touch()

    monkeypatch.setattr("monai_unetfamily.training.training_run.check_dataset", meanwhile)
    with pytest.raises(FileExistsError, match="not an empty folder"):
        train(quick, phantoms, output=tmp_path / "new", device="cpu")
    assert other.exists()


def test_a_time_budget_ends_training_and_brings_the_learning_rate_down(
    quick: Path, phantoms: Path, clock: None
) -> None:
    set_config(quick, max_epochs=1000, val_interval=1000)
    train(quick, phantoms, minutes=0.001, device="cpu")
    assert len(read_history(quick / "logs/history.csv")) == 1
    state = torch.load(quick / "models/checkpoint.pt", weights_only=True)
    assert state["optimizer"]["param_groups"][0]["lr"] == 0
    with pytest.raises(ValueError, match=r"has spent .* minutes: give more"):
        train(quick, phantoms, minutes=0.001, resume=True, device="cpu")
    assert len(read_history(quick / "logs/history.csv")) == 1


def test_starts_from_given_weights(bundle: Path, phantoms: Path, tmp_path: Path) -> None:
    set_config(bundle, max_epochs=1, val_interval=2, learning_rate=0.0)
    start = bundle / "models/model.pt"
    train(bundle, phantoms, output=tmp_path / "new", init_from=start, device="cpu")
    before, after = weights_of(bundle), weights_of(tmp_path / "new")
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_history_is_read_as_it_was_written(tmp_path: Path) -> None:
    epochs = [Epoch(1, 10.5, 0.75, 3.5), Epoch(2, 21.0, 0.5, 4.0, 0.625, {"liver": 0.75, "spleen": 0.5})]
    write_history(epochs, tmp_path / "history.csv")
    assert read_history(tmp_path / "history.csv") == epochs
    assert read_history(tmp_path / "absent.csv") == []


def wrong_labels(data: Path) -> None:
    file = next((data / "labelsTr").iterdir())
    image = nib.load(file)
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj)[:-1], image.affine), file)


def other_classes(data: Path) -> None:
    table = json.loads((data / "dataset.json").read_text())
    table["labels"]["6"] = "pancreas"
    (data / "dataset.json").write_text(json.dumps(table))


def swapped_names(data: Path) -> None:
    table = json.loads((data / "dataset.json").read_text())
    table["labels"] |= {"1": "spleen", "2": "liver"}
    (data / "dataset.json").write_text(json.dumps(table))


def nan_voxels(data: Path) -> None:
    file = next((data / "imagesTr").iterdir())
    image = nib.load(file)
    voxels = np.asarray(image.dataobj, dtype=np.float32)
    voxels[0, 0, :3] = np.nan
    nib.save(nib.Nifti1Image(voxels, image.affine), file)


def no_cases(data: Path) -> None:
    table = json.loads((data / "dataset.json").read_text())
    (data / "dataset.json").write_text(json.dumps(table | {"training": []}))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (wrong_labels, "got shape"),
        (other_classes, r"has labels \{6: 'pancreas'\} where this bundle has"),
        (swapped_names, r"has labels \{1: 'spleen', 2: 'liver'\} where this bundle has"),
        (nan_voxels, "3 of .* voxels are NaN"),
        (no_cases, "case"),
        (lambda data: next((data / "imagesTr").iterdir()).unlink(), "no such file, though"),
        (lambda data: (data / "dataset.json").unlink(), "dataset.json"),
    ],
)
def test_a_spoilt_data_set_is_named_before_anything_is_written(
    quick: Path, tmp_path: Path, spoil: Callable[[Path], None], message: str
) -> None:
    data = tmp_path / "data"
    write_phantoms(data, 2, shape=(16, 16, 16), spacing=(20.0, 16.0, 12.5))
    spoil(data)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        train(quick, data, output=tmp_path / "new", device="cpu")
    assert not (tmp_path / "new").exists()
    assert not (quick / "logs").exists()


def colours(data: Path) -> None:
    Image.fromarray(np.zeros((26, 32, 3), np.uint8)).save(next((data / "labels").iterdir()))


def other_size(data: Path) -> None:
    Image.fromarray(np.zeros((32, 26), np.uint8)).save(next((data / "labels").iterdir()))


def rgb(data: Path) -> None:
    """In the last picture, which is for training."""
    Image.fromarray(np.zeros((26, 32, 3), np.uint8)).save(max((data / "images").iterdir()))


def sixteen_bits(data: Path) -> None:
    """In the first picture, which is for validation."""
    values = np.zeros((26, 32), np.uint16)
    values[3, 4] = 300
    Image.fromarray(values).save(min((data / "images").iterdir()))


def mask_of_255(data: Path) -> None:
    Image.fromarray(np.full((26, 32), 255, np.uint8)).save(next((data / "labels").iterdir()))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (colours, r"labels.*\.png: got RGB of 8 bits a sample; ids as greyscale"),
        (other_size, r"got shape \(32, 26\), its image \(26, 32\)"),
        (rgb, r"images.*\.tif: has 3 channels, and bundle_2d takes 1 "),
        (sixteen_bits, r"images.*\.tif: has values from 0 to 300, and bundle_2d takes 0 to 255"),
        (mask_of_255, r"got labels \[255\]; \[0, 1, 2, 3, 4, 5\] are in the table"),
        (lambda data: next((data / "labels").iterdir()).unlink(), r"images.*\.tif: has no label of its name"),
        (lambda data: next((data / "images").iterdir()).unlink(), r"labels.*\.png: has no image of its name"),
    ],
)
def test_spoilt_pictures_are_named_before_anything_is_written(
    quick_2d: Path, paired: Path, tmp_path: Path, spoil: Callable[[Path], None], message: str
) -> None:
    spoil(paired)
    with pytest.raises(ValueError, match=message):
        train(quick_2d, paired, output=tmp_path / "new", device="cpu")
    assert not (tmp_path / "new").exists()


def test_pictures_do_not_train_a_bundle_for_volumes(quick: Path, pictures: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is a picture, and bundle is for volumes"):
        train(quick, pictures, output=tmp_path / "new", device="cpu")


def test_volumes_do_not_train_a_bundle_for_pictures(quick_2d: Path, phantoms: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"\.nii\.gz: is no PNG or TIFF, and bundle_2d takes these alone"):
        train(quick_2d, phantoms, output=tmp_path / "new", device="cpu")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "training would replace these weights"),
        ({"resume": True}, "checkpoint.pt: nothing to resume from"),
        ({"resume": True, "network": "unetplusplus"}, "a resumed run keeps"),
        ({"minutes": 0, "resume": True}, "more than 0"),
        ({"minutes": float("nan"), "output": "new"}, "minutes is nan; more than 0"),
        ({"minutes": 1, "epochs": 1, "output": "new"}, "no minutes beside it"),
        ({"epochs": 0, "output": "new"}, "1 or more"),
        ({"network": "unet9", "output": "new"}, "unet9"),
        ({"output": "."}, "name another"),
        ({"output": "new", "device": "tpu"}, "device is 'tpu'"),
        ({"output": "new", "device": "cuda:99"}, "CUDA devices"),
        ({"output": "new", "init_from": "text.pt"}, "not a file of weights"),
        ({"output": "new", "init_from": "absent.pt"}, "absent.pt: no file of weights"),
        ({"output": "new", "init_from": "bare"}, "bare: no file of weights"),
    ],
)
def test_requests_that_would_lose_or_lack_something(
    bundle: Path, phantoms: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("text.pt").write_text("no weights")
    copy_bundle(find_bundle("phantom_ct"), Path("bare"))
    before = weights_of(bundle)
    for key in ("output", "init_from"):
        if key in options:
            options = options | {key: Path(options[key])}
    with pytest.raises((ValueError, OSError), match=message):
        train(bundle, phantoms, **options)
    assert not (tmp_path / "new").exists()
    after = weights_of(bundle)
    assert all(torch.equal(after[key], before[key]) for key in before)


def run_monai(bundle: Path, phantoms: Path, configs: str, **options: str) -> str:
    """`python -m monai.bundle run` from the bundle's folder, and what it said."""
    child = module("monai.bundle", "run", *flags(phantoms, configs, **options), folder=bundle)
    said = child.said.read()
    assert child.wait() == 0, said[-3000:]
    return said


def flags(phantoms: Path, configs: str, **options: str) -> list[str]:
    options = {"config_file": configs, "dataset_dir": str(phantoms), "bundle_root": "."} | options
    return [word for key, value in options.items() for word in (f"--{key}", value)]


def run_two(bundle: Path, phantoms: Path, **options: str) -> None:
    """The same by torchrun, in two processes."""
    configs = "['configs/train.yaml','configs/multi_gpu_train.yaml']"
    command = [*TORCHRUN, "monai.bundle", "run", *flags(phantoms, configs, **options)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    result = subprocess.run(command, cwd=bundle, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]


@pytest.mark.parametrize(("bundle", "data"), [("quick", "phantoms"), ("quick_2d", "pictures")])
def test_monai_trains_and_evaluates_the_same_bundle(bundle: str, data: str, request: pytest.FixtureRequest) -> None:
    root, dataset = request.getfixturevalue(bundle), request.getfixturevalue(data)
    run_monai(root, dataset, "configs/train.yaml")
    assert weights_of(root)
    run_monai(root, dataset, "['configs/train.yaml','configs/evaluate.yaml']")
    assert "val_mean_dice" in (root / "eval/metrics.csv").read_text()


def test_two_processes_train_one_network(quick: Path, phantoms: Path) -> None:
    run_two(quick, phantoms)
    assert not any(key.startswith("module.") for key in weights_of(quick))


def test_a_training_ends_with_its_figures_in_the_card(quick: Path, phantoms: Path, tmp_path: Path) -> None:
    new = tmp_path / "new"
    train(quick, phantoms, output=new, epochs=1, device="cpu")
    card = (new / "docs/README.md").read_text()
    assert "| liver" in card
    assert "It learned from 4 cases" in card
    assert "1 epochs" in card
    rows = (new / "eval/scores.csv").read_text().splitlines()
    assert len(rows) == 1 + 2 * 5  # cases, classes
    assert len(list((new / "eval/labels").glob("*.nii.gz"))) == 2
    train(quick, phantoms, output=tmp_path / "all", epochs=1, fold="all", device="cpu")
    assert "It learned from 6 cases" in (card := (tmp_path / "all/docs/README.md").read_text())
    assert "**has learned from**" in card
    assert "no weights yet" not in card


def test_the_bundle_may_state_its_minutes(quick: Path, phantoms: Path, clock: None) -> None:
    set_config(quick, minutes=0.001, max_epochs=50)
    train(quick, phantoms, device="cpu")
    assert len(read_history(quick / "logs/history.csv")) == 1


def test_an_option_that_the_config_knows_nothing_of_is_refused(quick: Path, phantoms: Path) -> None:
    file = quick / "configs/train.yaml"
    file.write_text(file.read_text().replace("fold: null", "#").replace('fold: "@fold"', "#"))
    with pytest.raises(ValueError, match="train.yaml: has no key 'fold'"):
        train(quick, phantoms, fold=1, device="cpu")


def test_the_last_epoch_is_validated_whatever_the_interval(untrained: Path, phantoms: Path, clock: None) -> None:
    train(untrained, phantoms, minutes=0.001, device="cpu")  # one epoch, of an interval of five
    (epoch,) = read_history(untrained / "logs/history.csv")
    assert epoch.dice is not None
    assert list(epoch.classes) == ["liver", "spleen", "left_kidney", "right_kidney", "spine"]
    assert (untrained / "models/model_best.pt").is_file()
    assert (untrained / "logs/sample.png").is_file()

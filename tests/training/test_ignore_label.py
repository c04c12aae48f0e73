"""Data sets with voxels that nobody labelled, from their table of names to training, validation and evaluation."""

import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from monai.metrics import DiceMetric

from monai_unetfamily.bundles import METADATA, config_file, find_bundle, label_names
from monai_unetfamily.cli import main
from monai_unetfamily.data import load_cases
from monai_unetfamily.training import read_history, train

SHIPPED = pytest.mark.parametrize("name", ["hippocampus_mr", "phantom_ct"])


@pytest.fixture
def half_labelled(phantoms: Path, tmp_path: Path) -> Path:
    return unlabel(phantoms, tmp_path / "half", share=0.5)


def unlabel(phantoms: Path, folder: Path, share: float) -> Path:
    """A copy whose label maps are 255, "ignore", in this share of the slices."""
    shutil.copytree(phantoms, folder)
    for file in (folder / "labelsTr").iterdir():
        image = nib.load(file)
        labels = np.asarray(image.dataobj).astype(np.uint8)
        labels[: round(share * len(labels))] = 255
        nib.save(nib.Nifti1Image(labels, image.affine), file)
    rename(folder, **{"255": "ignore"})
    return folder


def rename(dataset: Path, **names: str) -> None:
    file = dataset / "dataset.json"
    table = json.loads(file.read_text())
    table["labels"] = {key: name for key, name in table["labels"].items() if name != "ignore"} | names
    file.write_text(json.dumps(table))


def edit(bundle: Path, old: str, new: str) -> None:
    file = bundle / "configs/train.yaml"
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


@pytest.fixture
def quick(untrained: Path) -> Path:
    edit(untrained, "max_epochs: 200", "max_epochs: 1")
    edit(untrained, "val_interval: 5", "val_interval: 1")
    edit(untrained, 'patch_size: "@_meta_#network_data_format#inputs#image#spatial_shape"', "patch_size: [20, 16, 12]")
    return untrained


@pytest.mark.slow
def test_trains_where_half_is_labelled(quick: Path, half_labelled: Path) -> None:
    train(quick, half_labelled, device="cpu")
    (epoch,) = read_history(quick / "logs/history.csv")
    assert 0 < epoch.loss < 10
    assert epoch.dice is not None
    assert 0 <= epoch.dice <= 1
    assert (quick / "logs/sample.png").is_file()


@pytest.mark.slow
def test_the_loss_sees_no_unlabelled_voxel(quick: Path, phantoms: Path, tmp_path: Path) -> None:
    train(quick, unlabel(phantoms, tmp_path / "none", share=1.0), device="cpu")
    (epoch,) = read_history(quick / "logs/history.csv")
    assert epoch.loss == 0


def config_of(name: str) -> ConfigParser:
    bundle = find_bundle(name)
    parser = ConfigParser()
    parser.read_config(str(config_file(bundle, "train")))
    parser.read_meta(str(bundle / "configs" / METADATA))
    return parser


def unlabelled_pair(classes: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Scores (classes, 8, 8, 8) that are wrong exactly where the label (1, 8, 8, 8) is 255."""
    truth = torch.randint(0, classes, (1, 8, 8, 8))
    unlabelled = torch.rand(truth.shape) < 0.5
    said = torch.where(unlabelled, (truth + 1) % classes, truth)
    scores = 100.0 * (said == torch.arange(classes).reshape(-1, 1, 1, 1))
    return scores, torch.where(unlabelled, 255, truth).float()


@SHIPPED
def test_a_shipped_bundle_neither_trains_nor_validates_on_them(name: str) -> None:
    parser = config_of(name)
    scores, label = unlabelled_pair(parser["_meta_#networks#unet3plus#out_channels"])
    loss = parser.get_parsed_content("loss")
    assert loss(scores[None], label[None]) < 1e-4
    done = parser.get_parsed_content("validate#postprocessing")({"pred": scores, "label": label})
    assert (DiceMetric(include_background=False)([done["pred"]], [done["label"]]) == 1).all()
    assert done["label"].shape == scores.shape


@SHIPPED
def test_a_shipped_bundle_counts_every_other_error(name: str) -> None:
    parser = config_of(name)
    scores, label = unlabelled_pair(parser["_meta_#networks#unet3plus#out_channels"])
    labelled = label.where(label != 255, 0)
    done = parser.get_parsed_content("validate#postprocessing")({"pred": scores, "label": labelled})
    assert (DiceMetric(include_background=False)([done["pred"]], [done["label"]]) < 1).any()
    assert parser.get_parsed_content("loss")(scores[None], labelled[None]) > 1


def test_evaluation_leaves_them_out(half_labelled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cases = load_cases(half_labelled, "validation")
    for number, case in enumerate(cases):
        image = nib.load(case["label"])
        truth = np.asarray(image.dataobj)
        said = np.where(truth == 255, 1 + number, truth).astype(np.uint8)
        (tmp_path / "labels").mkdir(exist_ok=True)
        nib.save(nib.Nifti1Image(said, image.affine), tmp_path / "labels" / Path(case["label"]).name)
    assert main(["evaluate", str(tmp_path / "labels"), str(half_labelled), "--section", "validation"]) == 0
    _, *classes, mean = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    assert "ignore" not in str(classes)
    assert "1.000" in mean


@pytest.mark.parametrize(
    ("names", "ignore_label", "message"),
    [
        ({}, "255", r"got labels \[255\]; .* are in the table"),
        ({"9": "ignore"}, "255", r"has labels \{9: 'ignore'\} where this bundle has .*255: 'ignore'"),
        ({"255": "ignore"}, "null", r"has labels \{255: 'ignore'\} where"),
        ({"255": "ignore"}, "9", r"has labels \{255: 'ignore'\} where .*9: 'ignore'"),
        ({"255": "ignore"}, "3", "train.yaml: ignore_label is 3; null, or a number that is no class"),
    ],
)
def test_data_set_and_bundle_must_mean_the_same(
    quick: Path, half_labelled: Path, names: dict[str, str], ignore_label: str, message: str
) -> None:
    rename(half_labelled, **names)
    edit(quick, "ignore_label: 255", f"ignore_label: {ignore_label}")
    with pytest.raises(ValueError, match=message):
        train(quick, half_labelled, device="cpu")
    assert not (quick / "logs").exists()


def test_a_bundle_without_the_word_has_no_such_label(untrained: Path) -> None:
    edit(untrained, "ignore_label: 255", "")
    assert "ignore" not in label_names(untrained).values()
    assert 0 in label_names(untrained)

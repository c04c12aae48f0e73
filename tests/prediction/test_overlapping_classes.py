"""Overlapping classes from training to picture, with the recipe of docs/overlapping_classes.md as the bundle."""

import json
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigWorkflow

from monai_unetfamily.bundles import METADATA, open_bundle
from monai_unetfamily.cli import main
from monai_unetfamily.io import open_volume, read_channel_names
from monai_unetfamily.prediction import predict_volume
from monai_unetfamily.training import train
from tests.support.runs import predict
from tests.support.tiny import weigh

CPU = torch.device("cpu")
Said = pytest.CaptureFixture[str]


def first(phantoms: Path) -> Path:
    return phantoms / "imagesTr/phantom_000.nii.gz"


def edit(bundle: Path, name: str, *pairs: tuple[str, str]) -> None:
    file = bundle / "configs" / name
    text = file.read_text()
    for before, after in pairs:
        assert before in text
        text = text.replace(before, after)
    file.write_text(text)


def channels(bundle: Path, *names: str) -> None:
    file = bundle / "configs" / METADATA
    metadata = json.loads(file.read_text())
    metadata["network_data_format"]["outputs"]["pred"]["channel_def"] = {str(c): n for c, n in enumerate(names)}
    file.write_text(json.dumps(metadata))


def quick(bundle: Path) -> None:
    edit(bundle, "train.yaml", ("max_epochs: 200", "max_epochs: 1"), ("val_interval: 5", "val_interval: 1"))


@pytest.mark.slow
def test_trained_predicted_and_evaluated(
    overlapping: Path, overlapping_phantoms: Path, tmp_path: Path, capsys: Said
) -> None:
    """The whole walk by the command: both forms of the masks get the same scores, under the classes' names."""
    quick(overlapping)
    new, section = str(tmp_path / "new"), [str(overlapping_phantoms), "--section", "validation"]
    assert main(["train", str(overlapping), "--dataset", section[0], "-o", new, "--device", "cpu"]) == 0
    assert (tmp_path / "new/logs/sample.png").read_bytes().startswith(b"\x89PNG")
    assert main(["predict", new, *section, "-o", str(tmp_path / "4d")]) == 0
    assert main(["predict", new, *section, "-o", str(tmp_path / "split"), "--split"]) == 0
    assert sorted(file.name for file in (tmp_path / "4d").glob("*.nii.gz")) == [
        "phantom_000.nii.gz",
        "phantom_005.nii.gz",
    ]
    capsys.readouterr()
    tables = []
    for form in ("4d", "split"):
        assert main(["evaluate", str(tmp_path / form), *section]) == 0
        tables.append(capsys.readouterr().out)
    assert tables[0] == tables[1]
    assert [line.split()[1] for line in tables[0].splitlines() if line.startswith("| ")][1:] == [
        "organs",
        "liver",
        "mean",
    ]


@pytest.mark.slow
def test_split_masks_are_the_channels_of_the_4d_file(overlapping_bundle: Path, phantoms: Path, tmp_path: Path) -> None:
    bundle = open_bundle(overlapping_bundle, CPU)
    inputs = [phantoms / "imagesTr"]
    both = 0
    for whole, parts in zip(
        predict(bundle, inputs, tmp_path / "4d"),
        predict(bundle, inputs, tmp_path / "split", split=True),
        strict=True,
    ):
        assert whole.output is not None, whole.error
        assert parts.output is not None, parts.error
        source, image = nib.load(whole.study.files[0]), open_volume(whole.output, channels=True)
        assert image.affine.tobytes() == source.affine.tobytes()
        assert image.shape == (*source.shape, 2)
        assert read_channel_names(image) == bundle.names == {1: "organs", 2: "liver"}
        masks = np.asarray(image.dataobj)
        assert set(np.unique(masks)) <= {0, 1}
        both += int(masks.all(axis=-1).sum())
        for channel, name in enumerate(("organs", "liver")):
            part = nib.load(parts.output / f"{name}.nii.gz")
            np.testing.assert_array_equal(np.asarray(part.dataobj), masks[..., channel])
            assert part.affine.tobytes() == source.affine.tobytes()
    assert both > 0  # voxels in two classes


@pytest.mark.slow
def test_agrees_with_monais_own_run_of_the_bundle(overlapping_bundle: Path, phantoms: Path, tmp_path: Path) -> None:
    workflow = ConfigWorkflow(
        config_file=str(overlapping_bundle / "configs/inference.yaml"),
        workflow_type="inference",
        logging_file=False,
        bundle_root=str(overlapping_bundle),
        dataset_dir=str(phantoms / "imagesTr"),
        output_dir=str(tmp_path),
        device=CPU,
    )
    workflow.initialize()
    assert workflow.check_properties() == []
    workflow.run()
    bundle = open_bundle(overlapping_bundle, CPU)
    for source in sorted((phantoms / "imagesTr").iterdir()):
        reference = nib.load(tmp_path / source.name.replace(".nii.gz", "_seg.nii.gz"))
        np.testing.assert_array_equal(predict_volume(bundle, source), np.asarray(reference.dataobj))


@pytest.mark.slow
def test_monai_parses_the_training(overlapping: Path, overlapping_phantoms: Path, tmp_path: Path) -> None:
    workflow = ConfigWorkflow(
        config_file=str(overlapping / "configs/train.yaml"),
        workflow_type="train",
        logging_file=False,
        bundle_root=str(overlapping),
        dataset_dir=str(overlapping_phantoms),
        output_dir=str(tmp_path),
    )
    workflow.parser["imports"] = ["$import torch", "$import monai"]
    workflow.initialize()
    assert workflow.check_properties() == []


@pytest.mark.slow
def test_masks_of_a_label_map_part_it(bundle: Path, phantoms: Path, tmp_path: Path) -> None:
    opened = open_bundle(bundle, CPU)
    (case_result,) = predict(opened, [first(phantoms)], tmp_path, split=True)
    assert case_result.output == tmp_path / "phantom_000", case_result.error
    read = {file.name[:-7]: np.asarray(nib.load(file).dataobj) for file in case_result.output.iterdir()}
    labels = predict_volume(opened, first(phantoms))
    assert sorted(read) == sorted(name for label, name in opened.names.items() if label)
    for label, name in opened.names.items():
        if label:
            np.testing.assert_array_equal(read[name], labels == label)


def test_split_masks_replace_nothing(overlapping_bundle: Path, phantoms: Path, tmp_path: Path) -> None:
    (tmp_path / "phantom_000").mkdir()
    (tmp_path / "phantom_000/by_hand.nii.gz").touch()
    with pytest.raises(FileExistsError, match="phantom_000: exists, and holds what this command has not written"):
        list(predict(open_bundle(overlapping_bundle, CPU), [first(phantoms)], tmp_path, split=True))
    assert [file.name for file in tmp_path.glob("phantom_000/*")] == ["by_hand.nii.gz"]


def one_class(bundle: Path) -> None:
    channels(bundle, "organs")
    edit(bundle, METADATA, ('"out_channels": 2', '"out_channels": 1'))


@pytest.mark.slow
def test_one_class_without_a_background_is_a_label_map(
    overlapping: Path, phantoms: Path, tmp_path: Path, overlapping_phantoms: Path
) -> None:
    """Trained on label maps of 0 and 1, it gives such."""
    quick(overlapping)
    one_class(overlapping)
    data = tmp_path / "data"
    for folder in ("imagesTr", "labelsTr"):
        (data / folder).mkdir(parents=True)
    for file in sorted((phantoms / "imagesTr").iterdir())[:2]:
        (data / "imagesTr" / file.name).write_bytes(file.read_bytes())
        label = nib.load(phantoms / "labelsTr" / file.name)
        nib.save(
            nib.Nifti1Image((np.asarray(label.dataobj) > 0).astype(np.uint8), label.affine),
            data / "labelsTr" / file.name,
        )
    listing = json.loads((phantoms / "dataset.json").read_text())
    listing |= {"labels": {"0": "background", "1": "organs"}, "training": listing["training"][:2]}
    (data / "dataset.json").write_text(json.dumps(listing))
    train(overlapping, data, device="cpu")
    opened = open_bundle(overlapping, CPU)
    (case_result,) = predict(opened, [first(phantoms)], tmp_path / "out")
    assert case_result.output is not None, case_result.error
    labels = nib.load(case_result.output)
    assert labels.shape == nib.load(first(phantoms)).shape
    assert set(np.unique(np.asarray(labels.dataobj))) <= {0, 1}


def takes_the_best(bundle: Path) -> None:
    edit(bundle, "inference.yaml", ("keys: pred, threshold: 0.5", "keys: pred, argmax: true"))


def takes_the_best_of_one(bundle: Path) -> None:
    one_class(bundle)
    takes_the_best(bundle)


def takes_the_best_inside(bundle: Path) -> None:
    inside = "{_target_: Compose, transforms: [{_target_: AsDiscreted, keys: pred, argmax: true}]}"
    edit(bundle, "inference.yaml", ("{_target_: AsDiscreted, keys: pred, threshold: 0.5}", inside))


def softmax_network(bundle: Path) -> None:
    edit(bundle, METADATA, ('"background": false', '"background": true'))
    weigh(bundle)


REFUSED: dict[str, tuple[Callable[[Path], None], str]] = {
    "argmax": (takes_the_best, r"takes the best class \(argmax\), though channel_def names no background"),
    "argmax of one channel, an empty mask": (takes_the_best_of_one, "takes the best class"),
    "argmax within another Compose": (takes_the_best_inside, "takes the best class"),
    "fewer names": (lambda b: channels(b, "organs"), r"gives 2 channels, channel_def .* names 1: \['organs'\]"),
    "more names": (lambda b: channels(b, "a", "b", "c"), "gives 2 channels, channel_def .* names 3"),
    "a background": (lambda b: channels(b, "background", "a"), "has background=False, where channel_def names"),
    "a softmax": (
        lambda b: edit(b, "inference.yaml", ("  background: false\n", "")),
        r"WindowInferer has background=True, where channel_def names \['organs', 'liver'\]",
    ),
    "a guide with a background": (softmax_network, "has background=True, where channel_def names"),
    "no class": (lambda b: channels(b, "background"), "a class besides the background is needed"),
    "scores": (
        lambda b: edit(b, "inference.yaml", ("    - {_target_: AsDiscreted, keys: pred, threshold: 0.5}\n", "")),
        "postprocessing gives values between 0.* whole numbers from 0 to 1 are labels",
    ),
    "merged": (
        lambda b: edit(
            b,
            "inference.yaml",
            ("threshold: 0.5}", "threshold: 0.5}\n    - {_target_: Lambdad, keys: pred, func: '$lambda x: x[:1]'}"),
        ),
        "gives 1 maps for the 2 classes",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", REFUSED)
def test_bundles_that_contradict_themselves_give_no_mask(overlapping_bundle: Path, phantoms: Path, case: str) -> None:
    spoil, message = REFUSED[case]
    spoil(overlapping_bundle)
    with pytest.raises(ValueError, match=message) as caught:
        predict_volume(open_bundle(overlapping_bundle, CPU, trust=True), first(phantoms))
    assert "\n" not in str(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "before", "part"),
    [
        ("train.yaml", "GuidedLoss\n  background: false", "GuidedLoss"),
        ("train.yaml", "WindowInferer\n    background: false", "WindowInferer"),
        (METADATA, '"background": false', ""),
    ],
)
def test_a_recipe_followed_by_halves_is_not_trained(
    overlapping: Path, overlapping_phantoms: Path, name: str, before: str, part: str
) -> None:
    edit(overlapping, name, (before, before.replace("false", "true")))
    with pytest.raises(ValueError, match=f"{part}.* has background=True, where channel_def names"):
        train(overlapping, overlapping_phantoms, device="cpu")
    assert not (overlapping / "models").exists()


def test_label_maps_and_masks_are_not_taken_for_each_other(
    overlapping: Path, untrained: Path, phantoms: Path, overlapping_phantoms: Path
) -> None:
    listing = (phantoms / "dataset.json").read_text()
    with pytest.raises(ValueError, match="where this bundle has {1: 'organs', 2: 'liver', 255: 'ignore'}"):
        train(overlapping, phantoms, device="cpu")
    with pytest.raises(ValueError, match="has labels {1: 'organs', 2: 'liver'} where this bundle has {0: 'background'"):
        train(untrained, overlapping_phantoms, device="cpu")
    assert (phantoms / "dataset.json").read_text() == listing

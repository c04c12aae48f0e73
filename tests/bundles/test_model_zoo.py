"""A bundle in the style of MONAI's model zoo, at the command: MONAI's own voxels; trust where it brings code."""

import json
from collections.abc import Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import yaml
from monai.bundle import ConfigWorkflow

from monai_unetfamily.cli import main
from tests.support.zoo_bundle import CONFIG, write_zoo_bundle

pytestmark = pytest.mark.slow

Said = pytest.CaptureFixture[str]
SCALE = {"_target_": "Lambdad", "keys": "image", "func": "$lambda image: image / 2"}


@pytest.fixture
def zoo(tmp_path: Path) -> Path:
    return write_zoo_bundle(tmp_path / "spleen")


@pytest.fixture
def stranger(zoo: Path) -> Path:
    """The bundle with a step of its own."""
    config = json.loads(json.dumps(CONFIG))
    config["preprocessing"]["transforms"].append(SCALE)
    (zoo / "configs/inference.json").write_text(json.dumps(config))
    return zoo


def voxels(folder: Path) -> Iterator[np.ndarray]:
    yield from (np.asarray(nib.load(file).dataobj) for file in sorted(folder.rglob("*.nii.gz")))


def test_predict_gives_what_monais_own_run_gives(zoo: Path, phantoms: Path, tmp_path: Path) -> None:
    images = phantoms / "imagesTr"
    workflow = ConfigWorkflow(
        config_file=str(zoo / "configs/inference.json"),
        meta_file=str(zoo / "configs/metadata.json"),
        workflow_type="inference",
        logging_file=False,
        bundle_root=str(zoo),
        dataset_dir=str(images),
        output_dir=str(tmp_path / "monai"),
    )
    workflow.initialize()
    workflow.run()
    workflow.finalize()
    assert main(["predict", str(zoo), str(images), "-o", str(tmp_path / "ours"), "--device", "cpu"]) == 0
    theirs, ours = (list(voxels(tmp_path / name)) for name in ("monai", "ours"))
    assert len(ours) == len(theirs) > 0
    assert 0 < ours[0].sum() < ours[0].size
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_stranger_is_refused_in_one_line_and_says_what_it_would_run(
    stranger: Path, phantoms: Path, tmp_path: Path, capsys: Said
) -> None:
    for command in (
        ["predict", str(stranger), str(phantoms / "imagesTr"), "-o", str(tmp_path / "out")],
        ["predict", "phantom_2d", str(phantoms / "imagesTr"), "--ensemble", str(stranger), "-o", str(tmp_path / "out")],
        ["prune", str(stranger), "--level", "1", "-o", str(tmp_path / "out")],
    ):
        assert main(command) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert "configs/inference.json: preprocessing#transforms#6: _target_ Lambdad; " in line
        assert "preprocessing#transforms#6#func: $lambda image: image / 2. Read it, and give --trust" in line
        assert not (tmp_path / "out").exists()


def test_a_trusted_stranger_says_what_it_runs_and_runs(
    stranger: Path, phantoms: Path, tmp_path: Path, capsys: Said
) -> None:
    image = min((phantoms / "imagesTr").iterdir())
    assert main(["predict", str(stranger), str(image), "-o", str(tmp_path), "--trust", "--device", "cpu"]) == 0
    first, second, *_ = capsys.readouterr().out.splitlines()
    assert first == "spleen is trusted to run _target_ Lambdad (configs/inference.json: preprocessing#transforms#6)"
    assert second.startswith("spleen is trusted to run $lambda image: image / 2 (")
    assert (tmp_path / image.name).is_file()


def test_prune_trusts_too(stranger: Path, tmp_path: Path, capsys: Said) -> None:
    """It comes as far as the network, which has no levels."""
    assert main(["prune", str(stranger), "--level", "1", "-o", str(tmp_path / "out"), "--trust"]) == 2
    said = capsys.readouterr()
    assert "spleen is trusted to run _target_ Lambdad" in said.out
    assert "only the nested ones have levels" in said.err


def test_calibrate_trusts_too(bundle: Path, phantoms: Path, capsys: Said) -> None:
    """What it needs of the train config is looked at as well."""
    for name in ("inference", "train"):
        file = bundle / f"configs/{name}.yaml"
        config = yaml.safe_load(file.read_text())
        steps = (
            config["train"]["deterministic_transforms"] if name == "train" else config["preprocessing"]["transforms"]
        )
        steps.append(SCALE)
        file.write_text(yaml.safe_dump(config))
    command = ["calibrate", str(bundle), "--dataset", str(phantoms)]
    assert main(command) == 2
    assert "configs/inference.yaml: preprocessing#transforms#5: _target_ Lambdad" in capsys.readouterr().err
    assert main([*command, "--trust"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("(")[-1] for line in lines if line.startswith("bundle is trusted to run _target_")] == [
        "configs/inference.yaml: preprocessing#transforms#5)",
        "configs/train.yaml: train#deterministic_transforms#5)",
    ]


def test_a_bundle_that_knows_phantoms_alone_says_so(bundle: Path, phantoms: Path, tmp_path: Path, capsys: Said) -> None:
    image = min((phantoms / "imagesTr").iterdir())
    assert main(["predict", str(bundle), str(image), "-o", str(tmp_path / "out"), "--no-previews"]) == 0
    said = capsys.readouterr().out
    assert said.count("bundle knows phantoms alone: never use what it says of a patient") == 1

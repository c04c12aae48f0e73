"""From a data set to labels by three commands, for every kind of data set; the bundle needs nothing of the planner."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from monai.bundle import ConfigParser

from monai_unetfamily.bundles import open_bundle, resolved_part
from monai_unetfamily.bundles.trust.config_review import review, review_training
from monai_unetfamily.cli import main
from monai_unetfamily.planning import plan_dataset
from monai_unetfamily.planning.bundle_files import write_bundle
from monai_unetfamily.planning.fingerprint import Fingerprint
from monai_unetfamily.planning.planner import make_plan
from tests.support.fingerprints import fingerprint
from tests.support.planned_sets import LITTLE, SETS, planned_bundle, write_volumes
from tests.support.processes import module
from tests.support.tiers import sampled

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")
FILES = [
    *(f"configs/{name}.yaml" for name in ("train", "evaluate", "inference", "multi_gpu_train")),
    *("configs/metadata.json", "configs/logging.conf", "docs/README.md", "docs/fingerprint.json", "LICENSE"),
]


def shorten(bundle: Path) -> None:
    """Two steps an epoch."""
    file = bundle / "configs/train.yaml"
    file.write_text(re.sub(r"epoch_batches: \d+", "epoch_batches: 2", file.read_text()))


def planned(name: str, tmp_path: Path) -> tuple[Path, Path]:
    data, bundle = SETS[name][0](tmp_path / "data"), tmp_path / "bundle"
    assert main(["plan", str(data), "-o", str(bundle), *LITTLE]) == 0
    shorten(bundle)
    return data, bundle


@pytest.mark.parametrize("name", sampled(SETS, "few slices", "channels in files"))
def test_three_commands_lead_from_data_to_labels(name: str, tmp_path: Path) -> None:
    data, bundle = planned(name, tmp_path)
    assert [file for file in FILES if not (bundle / file).is_file()] == []
    plan = make_plan(Fingerprint.from_json((bundle / "docs/fingerprint.json").read_text()), gpu=False, features=(4, 8))
    expected = SETS[name][1]
    assert {key: getattr(plan, key) for key in expected} == expected
    assert main(["train", str(bundle), "--dataset", str(data), "--epochs", "1", "--device", "cpu"]) == 0
    assert review(bundle) == ()
    assert open_bundle(bundle, CPU, trust=False).names
    predict = ["predict", str(bundle), str(data), "--section", "validation", "-o", str(tmp_path / "out")]
    assert main([*predict, "--dry-run"]) == 0
    assert main(predict) == 0
    assert main(["evaluate", str(tmp_path / "out"), str(data), "--section", "validation"]) == 0


@pytest.mark.parametrize("name", sampled(["few slices", "phantom CT"], "phantom CT"))
def test_monai_alone_trains_a_planned_bundle(name: str, tmp_path: Path) -> None:
    data, bundle = planned(name, tmp_path)
    options = ["--dataset_dir", str(data), "--max_epochs", "1", "--num_workers", "0"]
    child = module("monai.bundle", "run", "--config_file", "configs/train.yaml", *options, folder=bundle)
    said = child.said.read()
    assert child.wait() == 0, said[-2000:]
    assert open_bundle(bundle, CPU).names


def targets(config: Any) -> Iterator[str]:
    if isinstance(config, dict):
        yield from [config["_target_"]] if "_target_" in config else []
        config = list(config.values())
    for item in config if isinstance(config, list) else ():
        yield from targets(item)


@pytest.fixture(scope="module", params=sampled(SETS, "few slices", "channels in files", "overlapping classes"))
def written(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return planned_bundle(request.param, tmp_path_factory)


def test_what_it_names_exists_below_training_and_both_configs_agree(written: Path) -> None:
    configs = {file.stem: yaml.safe_load(file.read_text()) for file in (written / "configs").glob("*.yaml")}
    for target in {target for config in configs.values() for target in targets(config)}:
        assert callable(ConfigParser({"it": {"_target_": target, "_mode_": "callable"}}).get_parsed_content("it")), (
            target
        )
        assert not target.startswith(("monai_unetfamily.training", "monai_unetfamily.cli"))
    train, inference = configs["train"], configs["inference"]
    assert train["validate"]["inferer"] == resolved_part(written, "inferer")
    assert train.get("spacing") == inference.get("spacing")
    images = [step for step in train["train"]["deterministic_transforms"] if step["keys"] != "label"]
    alike = [{**step, "keys": "image"} for step in images]
    for step in alike:
        step["mode"] = step["mode"][0] if "mode" in step else None
    expected = [{"mode": None} | step for step in inference["preprocessing"]["transforms"]]
    assert alike == expected
    assert "<<" not in "".join(file.read_text() for file in written.rglob("*") if file.suffix in (".yaml", ".md"))


def test_it_opens_without_trust_and_states_what_monai_asks_for(written: Path) -> None:
    assert review(written) == ()
    assert not open_bundle(written, CPU, trust=False).network.training
    assert review_training(written, {"dataset_dir": "/data", "device": CPU}) == ()
    shipped = json.loads((Path(__file__).parents[2] / "configs/hippocampus_mr/configs/metadata.json").read_text())
    metadata = json.loads((written / "configs/metadata.json").read_text())
    assert shipped.keys() - {"mirror_axes"} <= metadata.keys()
    image = metadata["network_data_format"]["inputs"]["image"]
    assert image.keys() - {"neighbours"} == shipped["network_data_format"]["inputs"]["image"].keys()


def test_nothing_is_written_where_something_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_volumes(tmp_path / "data")
    (data / "labelsTr/case_001.nii.gz").unlink()
    (data / "imagesTr/case_002.nii.gz").write_bytes(b"no image")
    assert main(["plan", str(data), "-o", str(tmp_path / "bundle")]) == 2
    out, err = capsys.readouterr()
    assert "case_001" in out
    assert "case_002" in out
    assert re.fullmatch(r"unetfamily: .*data: has 2 errors, the first in .*plan again\.\n", err)
    assert not (tmp_path / "bundle").exists()
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").touch()
    assert main(["plan", str(write_volumes(tmp_path / "sound")), "-o", str(tmp_path / "full"), *LITTLE]) == 2


def test_label_ids_with_a_gap_are_refused(tmp_path: Path) -> None:
    gap = fingerprint(labels={0: "background", 1: "liver", 3: "spleen"}, classes=("liver", "spleen"))
    plan = make_plan(gap, features=(4, 8))
    with pytest.raises(ValueError, match=r"labels \[0, 1, 3\]; ids from 0 up without a gap"):
        write_bundle(plan, gap, tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()


def test_options_reach_the_configs(tmp_path: Path) -> None:
    data, bundle = write_volumes(tmp_path / "data", channels=("image",)), tmp_path / "bundle"
    options = ["--hu", "-100", "200", "--network", "unet", "--minutes", "7", "--spatial-dims", "2"]
    assert main(["plan", str(data), "-o", str(bundle), *options, *LITTLE]) == 0
    train, inference = ((bundle / f"configs/{name}.yaml").read_text() for name in ("train", "inference"))
    for text in (train, inference):
        assert "ScaleIntensityRanged, keys: image, a_min: -100, a_max: 200, b_min: 0, b_max: 1, clip: true" in text
        assert "neighbours: 1" in text
    assert "\nminutes: 7 " in train
    assert '"name": "unet",' in (bundle / "configs/metadata.json").read_text()


def test_a_wrong_network_is_refused_before_the_data_set_is_read(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="network 'vnet' is unknown"):
        plan_dataset(tmp_path / "absent", tmp_path / "bundle", network="vnet")

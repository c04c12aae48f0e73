"""Every shipped bundle is complete, consistent with itself, and one word changes its network."""

import json
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from monai.bundle import ConfigParser

from monai_unetfamily.bundles import SHIPPED, class_names, copy_bundle, find_bundle, open_bundle, resolved_part
from monai_unetfamily.bundles.metadata import image_format
from tests.support.tiers import sampled

BUNDLES = sorted(folder.name for folder in SHIPPED.iterdir())
WITH_WEIGHTS = [name for name in BUNDLES if (SHIPPED / name / "models/model.pt").is_file()]
FILES = [
    *(f"configs/{name}.yaml" for name in ("train", "evaluate", "inference", "multi_gpu_train")),
    *("configs/metadata.json", "configs/logging.conf", "docs/README.md", "LICENSE"),
]
CPU = torch.device("cpu")


@pytest.fixture
def data_sets(phantoms: Path, pictures: Path) -> dict[str, Path]:
    """What each bundle reads."""
    return dict.fromkeys(BUNDLES, phantoms) | {"phantom_2d": pictures}


def targets(config: Any) -> Iterator[str]:
    if isinstance(config, dict):
        if isinstance(config.get("_target_"), str):
            yield config["_target_"]
        config = list(config.values())
    if isinstance(config, list):
        for item in config:
            yield from targets(item)


@pytest.mark.parametrize("name", BUNDLES)
def test_is_complete(name: str) -> None:
    assert [file for file in FILES if not (SHIPPED / name / file).is_file()] == []


@pytest.mark.slow
@pytest.mark.parametrize("name", sampled(BUNDLES, "hippocampus_mr", "phantom_2d"))
def test_every_target_resolves_and_ours_lie_below_training(name: str) -> None:
    configs = [yaml.safe_load(file.read_text()) for file in (SHIPPED / name / "configs").glob("*.yaml")]
    configs.append(json.loads((SHIPPED / name / "configs/metadata.json").read_text()))
    found = {target for config in configs for target in targets(config)}
    assert len(found) > 20
    for target in found:
        parser = ConfigParser({"item": {"_target_": target, "_mode_": "callable"}})
        assert callable(parser.get_parsed_content("item")), target
        assert not target.startswith(("monai_unetfamily.training", "monai_unetfamily.cli")), target


@pytest.mark.parametrize("name", BUNDLES)
def test_training_and_prediction_see_the_same_image(name: str, data_sets: dict[str, Path]) -> None:
    """What the network is trained on is what it predicts on: both configs preprocess alike."""
    image = sorted((data_sets[name] / "imagesTr").iterdir())[2]
    seen = []
    for config, transforms in (("train", "train#deterministic_transforms"), ("inference", "preprocessing#transforms")):
        parser = ConfigParser()
        parser.read_meta(SHIPPED / name / "configs/metadata.json")
        parser.read_config(SHIPPED / name / f"configs/{config}.yaml")
        parser["spacing"] = [8.0, 8.0, 8.0]  # mm: the phantoms are coarse
        case: dict[str, Any] = {"image": str(image), "label": str(image)}
        for transform in parser.get_parsed_content(transforms):
            case = transform(case)
        seen.append(np.asarray(case["image"]))
    np.testing.assert_array_equal(*seen)


@pytest.mark.parametrize("name", BUNDLES)
def test_validation_and_prediction_slide_alike(name: str) -> None:
    train = yaml.safe_load((SHIPPED / name / "configs/train.yaml").read_text())
    assert train["validate"]["inferer"] == resolved_part(SHIPPED / name, "inferer")


@pytest.mark.parametrize("name", BUNDLES)
def test_the_watched_cases_come_from_all_over_the_list_and_evaluation_takes_them_all(name: str) -> None:
    train, evaluate = (
        yaml.safe_load((SHIPPED / name / f"configs/{c}.yaml").read_text()) for c in ("train", "evaluate")
    )
    watched = train["validate"]["cases"]["cases"]
    for cases, wanted in (
        (watched, {12: list(range(0, 48, 4)), 52: list(range(52)), 60: list(range(52))}),
        (evaluate["validate#cases#cases"], {12: list(range(52))}),
    ):
        for number, expected in wanted.items():
            parser = ConfigParser({"validate": {"listed": list(range(52))}, "val_cases": number, "cases": cases})
            assert parser.get_parsed_content("cases") == expected


@pytest.mark.slow
@pytest.mark.parametrize("name", BUNDLES)
def test_networks_fit_the_classes_and_the_patch(name: str) -> None:
    metadata = json.loads((SHIPPED / name / "configs/metadata.json").read_text())
    shape = metadata["network_data_format"]["inputs"]["image"]["spatial_shape"]
    for choice in metadata["networks"]:
        parser = ConfigParser({"_meta_": metadata | {"network": f"@_meta_#networks#{choice}"}})
        with torch.device("meta"), torch.inference_mode():
            network = parser.get_parsed_content("_meta_#network").eval()
            assert network(torch.zeros(1, 1, *shape)).shape == (1, len(class_names(SHIPPED / name)), *shape)


@pytest.mark.parametrize("name", WITH_WEIGHTS)
def test_the_model_card_counts_each_networks_parameters(name: str) -> None:
    card = (SHIPPED / name / "docs/README.md").read_text()
    metadata = json.loads((SHIPPED / name / "configs/metadata.json").read_text())
    for choice in metadata["networks"]:
        network = ConfigParser({"_meta_": metadata}).get_parsed_content(f"_meta_#networks#{choice}")
        assert f"({sum(p.numel() for p in network.parameters()):,} parameters" in card


@pytest.mark.parametrize("name", WITH_WEIGHTS)
def test_the_model_card_has_the_hash_of_its_weights(name: str) -> None:
    weights, card = ((SHIPPED / name / file) for file in ("models/model.pt", "docs/README.md"))
    assert f"SHA-256 `{sha256(weights.read_bytes()).hexdigest()}`" in card.read_text()


@pytest.mark.parametrize("name", WITH_WEIGHTS)
def test_shipped_weights_fit_the_network_that_is_chosen(name: str) -> None:
    assert not open_bundle(SHIPPED / name, CPU).network.training


def test_opens_ready_to_predict(bundle: Path) -> None:
    opened = open_bundle(bundle, CPU)
    assert not opened.network.training
    assert opened.names[1] == "liver"


def test_a_copy_leaves_weights_behind_and_never_overwrites(bundle: Path, tmp_path: Path) -> None:
    copy_bundle(bundle, tmp_path / "copy")
    assert not (tmp_path / "copy/models").exists()
    assert "| mean" not in (tmp_path / "copy/docs/README.md").read_text()  # no figure of other weights
    assert "not diagnosis" in (tmp_path / "copy/docs/README.md").read_text()
    with pytest.raises(FileExistsError, match="not an empty folder"):
        copy_bundle(bundle, tmp_path / "copy")


def test_unknown_bundles_are_named_with_those_that_ship() -> None:
    with pytest.raises(FileNotFoundError, match=r"lung_ct.*hippocampus_mr, phantom_2d, phantom_ct, spleen_ct"):
        find_bundle("lung_ct")


@pytest.mark.parametrize(("channels", "neighbours"), [(4, 1), (1, -1)])
def test_slices_of_unlike_channels_are_refused(bundle: Path, channels: int, neighbours: int) -> None:
    file = bundle / "configs/metadata.json"
    metadata = json.loads(file.read_text())
    stated = {"num_channels": channels, "neighbours": neighbours}
    metadata["network_data_format"]["inputs"]["image"] |= stated
    file.write_text(json.dumps(metadata))
    with pytest.raises(ValueError, match="num_channels .of all slices, where it has neighbours."):
        image_format(bundle)


def test_opening_runs_none_of_the_bundles_imports(bundle: Path, tmp_path: Path) -> None:
    file = bundle / "configs/inference.yaml"
    file.write_text(file.read_text().replace("imports:", f"imports:\n  - $open('{tmp_path / 'ran'}', 'w')"))
    open_bundle(bundle, CPU)
    assert not (tmp_path / "ran").exists()


def test_broken_configs_are_one_clear_line(bundle: Path) -> None:
    file = bundle / "configs/inference.yaml"
    good = file.read_text()
    for text, message in [
        (good.replace("inferer:", "inverer:"), "has no inferer"),
        (good.replace("WindowInferer", "WindowInverer"), "no known part .*inferer: _target_ .*WindowInverer"),
        (good + "\n  : [", "cannot be read"),
    ]:
        file.write_text(text)
        with pytest.raises(ValueError, match=message):
            open_bundle(bundle, CPU)
    file.unlink()
    with pytest.raises(FileNotFoundError, match="no configs/inference.yaml"):
        open_bundle(bundle, CPU)
    (bundle / "configs/metadata.json").write_text("{")
    with pytest.raises(ValueError, match="cannot be read"):
        class_names(bundle)

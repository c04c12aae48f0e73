"""The recipes without weights: what the rules make of their facts, run dry on phantoms of the same layout."""

import json
import re
from pathlib import Path

import pytest
import torch

from monai_unetfamily.bundles import class_names, copy_bundle, find_bundle, open_bundle, read_card
from monai_unetfamily.cli import main
from monai_unetfamily.training import train
from tests.support.planned_sets import write_volumes
from tests.support.recipes import CONFIGS, RECIPES, write_recipe
from tests.support.tiers import sampled

pytestmark = pytest.mark.slow

VERSION = re.compile(r'"[\w-]+": "\d+\.\d+\.\d+"')  # of the packages that happened to be there


@pytest.mark.parametrize("name", sampled(RECIPES, "spleen_ct"))
def test_a_recipe_is_what_the_rules_make_of_its_facts(name: str, tmp_path: Path) -> None:
    write_recipe(name, tmp_path / name)
    for file in (file.relative_to(tmp_path / name) for file in (tmp_path / name).rglob("*") if file.is_file()):
        made, shipped = ((root / file).read_text() for root in (tmp_path / name, CONFIGS / name))
        assert VERSION.sub("", made) == VERSION.sub("", shipped), f"{file}: run python -m tests.support.recipes"


@pytest.mark.parametrize("name", RECIPES)
def test_its_card_says_that_it_has_no_weights(name: str) -> None:
    assert not read_card(find_bundle(name)).weights
    assert "No weights are shipped" in (CONFIGS / name / "docs/README.md").read_text()
    with pytest.raises(FileNotFoundError, match="train the bundle first"):
        open_bundle(find_bundle(name), torch.device("cpu"))


@pytest.mark.parametrize("name", sampled(RECIPES, "heart_mr"))
def test_a_dry_run_on_phantoms_of_its_layout(name: str, tmp_path: Path) -> None:
    """Its own configs, with a narrower network and a smaller patch alone."""
    root, data = tmp_path / name, tmp_path / "data"
    copy_bundle(find_bundle(name), root)
    shape, spacing = ((40, 32, 24), (3.0, 3.0, 5.0)) if name == "heart_mr" else ((64, 48, 24), (3.0, 3.0, 6.0))
    labels = [label for number, label in class_names(root).items() if number]
    channels = read_card(root).channels
    write_volumes(data, shape=shape, spacing=spacing, labels=labels, channels=channels)
    _shrink(root, spacing)
    train(root, data, epochs=1, device="cpu")
    assert main(["predict", str(root), str(data), "--section", "validation", "-o", str(tmp_path / "out")]) == 0
    assert len(list((tmp_path / "out").glob("case_*.nii.gz"))) == 1


def _shrink(root: Path, spacing: tuple[float, ...]) -> None:
    file = root / "configs/metadata.json"
    metadata = json.loads(file.read_text())
    metadata["network_data_format"]["inputs"]["image"]["spatial_shape"] = [32, 32, 16]
    for network in metadata["networks"].values():
        stages = len(network["features"])
        network |= {"features": [4] * stages} | ({"skip_channels": 2} if "skip_channels" in network else {})
    file.write_text(json.dumps(metadata))
    for config in ("train", "inference"):
        file = root / f"configs/{config}.yaml"
        text = re.sub(r"spacing: \[.*\]", f"spacing: {list(spacing)}", file.read_text())
        text = re.sub(r"roi_size: \[.*\]", "roi_size: [32, 32, 16]", text)
        file.write_text(re.sub(r"epoch_batches: \d+", "epoch_batches: 2", text))

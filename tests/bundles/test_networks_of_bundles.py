"""The one word that says which network a bundle is: any member of the family, or nothing is changed."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.bundle import ConfigParser
from torch import nn

from monai_unetfamily.bundles import METADATA, SHIPPED, WEIGHTS, check_network, choose_network, open_bundle
from monai_unetfamily.cli import main
from monai_unetfamily.handlers import save_atomically
from monai_unetfamily.nets import PlainUNet, UNetPlusPlus, list_networks

pytestmark = pytest.mark.slow

BUNDLES = sorted(folder.parents[1].name for folder in SHIPPED.glob(f"*/configs/{METADATA}"))


def network_of(bundle: Path) -> nn.Module:
    parser = ConfigParser()
    parser.read_meta(bundle / "configs" / METADATA)
    return parser.get_parsed_content("_meta_#network")


def edit(bundle: Path, **changes: Any) -> None:
    file = bundle / "configs" / METADATA
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def test_one_word_changes_the_network(untrained: Path) -> None:
    choose_network(untrained, "unetplusplus")
    assert isinstance(network_of(untrained), UNetPlusPlus)
    with pytest.raises(ValueError, match="unet9.*allowed are unet3plus, unetplusplus, fcn32s"):
        choose_network(untrained, "unet9")


@pytest.mark.parametrize("name", list_networks())
@pytest.mark.parametrize("bundle", BUNDLES)
def test_every_member_fits_every_shipped_bundle(bundle: str, name: str) -> None:
    metadata = check_network(SHIPPED / bundle, name)
    assert metadata["network"] == f"@_meta_#networks#{name}"


def test_a_member_that_cannot_be_built_changes_nothing(
    untrained: Path, phantoms: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = untrained / "configs" / METADATA
    before = file.read_text()
    assert main(["train", str(untrained), "--dataset", str(phantoms), "--network", "fcn8s", "--device", "cpu"]) == 2
    assert "fcn8s cannot be built: skips is 2 with 3 stages" in capsys.readouterr().err
    assert file.read_text() == before


def test_an_inline_network_and_its_preset_are_the_model(untrained: Path) -> None:
    current = {"_target_": "monai_unetfamily.nets.create_network", "name": "unetplusplus", "preset": "paper"}
    current |= {"spatial_dims": 3, "in_channels": 1, "out_channels": 6, "features": [4, 8], "deep_supervision": True}
    edit(untrained, network=current, networks={})
    choose_network(untrained, "unet")
    net = network_of(untrained)
    assert isinstance(net, PlainUNet)
    assert not any(isinstance(m, nn.InstanceNorm3d) for m in net.modules())


def test_a_network_that_says_nothing_of_its_arguments(untrained: Path) -> None:
    edit(untrained, network="$monai_unetfamily.nets.unet.PlainUNet(3, 1, 6)")
    with pytest.raises(ValueError, match='define it under "networks"'):
        choose_network(untrained, "unet")


def test_coarser_weights_start_a_training_and_are_never_taken_for_the_finer_network(
    untrained: Path, phantoms: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    metadata = json.loads((untrained / "configs" / METADATA).read_text())
    for network in metadata["networks"].values():
        network["features"] = [4, 8, 8, 8]
    edit(untrained, **metadata)
    choose_network(untrained, "fcn32s")
    torch.manual_seed(0)
    (untrained / "models").mkdir()
    coarse = untrained / "models" / WEIGHTS
    save_atomically(network_of(untrained).state_dict(), coarse)
    arguments = ["--dataset", str(phantoms), "--network", "fcn16s", "--minutes", "0.001", "--device", "cpu"]
    fine = tmp_path / "fine"
    for start in (coarse, untrained):  # the file, or the bundle that has it
        assert main(["train", str(untrained), "-o", str(fine / start.name), *arguments, "--init-from", str(start)]) == 0
    choose_network(untrained, "fcn16s")
    with pytest.raises(ValueError, match="do not fit SkipFCN: lacks .* trained as"):
        open_bundle(untrained, torch.device("cpu"))

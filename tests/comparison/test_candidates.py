"""Laws of who is compared: alike where they can be, named where they cannot, and all of them learn and predict."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.bundle import ConfigParser
from monai.losses import DiceCELoss
from torch import nn

from monai_unetfamily.bundles import define_network, network_definition, open_bundle
from monai_unetfamily.bundles.trust.allow_list import full_name
from monai_unetfamily.comparison.candidates import Candidate, choose_candidates, list_candidates
from monai_unetfamily.handlers import save_atomically
from monai_unetfamily.inferers import WindowInferer
from monai_unetfamily.losses import GuidedLoss, WeightedHeadsLoss
from monai_unetfamily.nets import list_networks
from tests.support.tiers import sampled

pytestmark = pytest.mark.slow

WIDTHS = [4, 6, 8, 8, 8]
EQUAL = {
    dims: {"spatial_dims": dims, "in_channels": 2, "out_channels": 3, "features": WIDTHS[: 7 - dims]} for dims in (2, 3)
}
NAMES = [candidate.name for candidate in list_candidates(EQUAL[2])]
ALL = [(dims, found.name) for dims in (2, 3) for found in list_candidates(EQUAL[dims])]
# Built by MONAI without deep supervision too, and never used.
IDLE = {"BasicUNetPlusPlus": [f"final_conv_0_{level}.{kind}" for level in (1, 2, 3) for kind in ("weight", "bias")]}


def built(definition: Mapping[str, Any]) -> nn.Module:
    """As a bundle builds it: from JSON."""
    torch.manual_seed(0)
    network = ConfigParser({"network": json.loads(json.dumps(definition))}).get_parsed_content("network")
    assert isinstance(network, nn.Module)
    return network


def candidate(name: str, dims: int) -> Candidate:
    [found] = choose_candidates(EQUAL[dims], [name])
    return found


def test_the_family_every_depth_and_monais_networks_are_compared() -> None:
    depths = ["unet_l1", "unet_l2", "unet_l3"]
    references = ["BasicUNet", "BasicUNetPlusPlus", "DynUNet", "SegResNet"]
    assert set(NAMES) == {*list_networks(), *depths, "unet3plus_cgm", *references}
    assert [c.name for c in choose_candidates(EQUAL[2], ["all"])] == NAMES
    assert [c.name for c in choose_candidates(EQUAL[2], ["SegResNet", "unet"])] == ["unet", "SegResNet"]


def test_an_unknown_name_is_told() -> None:
    with pytest.raises(ValueError, match=r"networks \['unett'\] are unknown; allowed are all or some of fcn32s"):
        choose_candidates(EQUAL[2], ["unett", "unet"])


@pytest.mark.parametrize(("dims", "name"), sampled(ALL, *((2, name) for name in NAMES)))
def test_each_learns_a_step_and_predicts_through_the_window(dims: int, name: str) -> None:
    network = built(candidate(name, dims).definition)
    size = (32,) * dims
    x, label = torch.rand(2, 2, *size), torch.randint(0, 3, (2, 1, *size)).float()
    loss = GuidedLoss(WeightedHeadsLoss(DiceCELoss(to_onehot_y=True, softmax=True)))
    loss(network.train()(x), label).backward()
    idle = [key for key, parameter in network.named_parameters() if parameter.grad is None]
    assert idle == IDLE.get(name, [])
    scores = WindowInferer(size, overlap=0.25)(torch.rand(1, 2, *(40,) * dims), network.eval())
    assert scores.shape == (1, 3, *(40,) * dims)
    assert torch.allclose(scores.sum(dim=1), torch.ones(1, *(40,) * dims), atol=1e-5)


@pytest.mark.parametrize("dims", [2, 3])
def test_bundles_may_name_each_without_trust(dims: int) -> None:
    assert [c.name for c in list_candidates(EQUAL[dims]) if full_name(c.definition["_target_"]) is None] == []


def test_widths_norm_and_activation_are_equal() -> None:
    """The first convolutions have the first width, and nothing but instance norm and one activation is there."""
    for found in list_candidates(EQUAL[2]):
        modules = list(built(found.definition).modules())
        norms = {type(m) for m in modules if "Norm" in type(m).__name__}
        slopes = {m.negative_slope for m in modules if isinstance(m, nn.LeakyReLU)}
        assert (norms, slopes) == ({nn.InstanceNorm2d}, {0.01}), found.name
        assert next(m for m in modules if isinstance(m, nn.Conv2d)).out_channels == WIDTHS[0], found.name
        assert not [m for m in modules if isinstance(m, nn.ReLU | nn.PReLU)], found.name


def test_strides_and_kernels_of_the_plan_are_kept_at_every_depth() -> None:
    strides, kernels = [[2, 2, 1], [2, 2, 2], [2, 2, 2]], [[3, 3, 1], [3, 3, 3], [3, 3, 3], [3, 3, 3]]
    base = EQUAL[3] | {"strides": strides, "kernel_size": kernels}
    shallow, dyn = (choose_candidates(base, [name])[0].definition for name in ("unet_l2", "DynUNet"))
    assert (shallow["strides"], shallow["kernel_size"]) == (strides[:2], kernels[:3])
    assert (dyn["strides"], dyn["kernel_size"]) == ([[1, 1, 1], *strides], kernels)


ACROSS = EQUAL[3] | {"strides": [[2, 2, 1], [2, 2, 2], [2, 2, 1]], "kernel_size": [[3, 3, 1], *[[3, 3, 3]] * 3]}


@pytest.mark.parametrize("name", [candidate.name for candidate in list_candidates(ACROSS)])
def test_each_takes_a_patch_of_few_slices(name: str) -> None:
    """20 can be halved twice, and BasicUNet, which halves four times whatever the plan, needs 16."""
    network = built(choose_candidates(ACROSS, [name])[0].definition).eval()
    with torch.inference_mode():
        scores = WindowInferer((32, 32, 20), overlap=0.25)(torch.rand(1, 2, 32, 40, 20), network)
    assert scores.shape == (1, 3, 32, 40, 20)


def test_what_few_slices_change_is_named() -> None:
    found = {c.name: c.difference for c in list_candidates(ACROSS)}
    assert found["DynUNet"] == "its decoders have the kernels of the stage below"
    assert "; 2 of 4 stages" in found["SegResNet"]


def test_differences_are_named() -> None:
    found = {c.name: c.difference for c in list_candidates(EQUAL[2])}
    assert [name for name, words in found.items() if not words] == ["unet", "DynUNet"]


def test_classes_that_overlap_stay_so() -> None:
    found = {c.name: c.definition for c in list_candidates(EQUAL[2] | {"background": False})}
    assert found["unet3plus"]["background"] is found["unet3plus_cgm"]["background"] is False


def test_a_list_of_several_maps_is_refused() -> None:
    """Nobody knows which of them is the final one: MONAI's is the last, ours the first."""
    definition = candidate("BasicUNetPlusPlus", 2).definition
    network = built({**definition, "deep_supervision": True}).eval()
    with pytest.raises(ValueError, match="gives 4 maps; one is needed: build it without deep supervision"):
        WindowInferer((32, 32))(torch.rand(1, 2, 32, 32), network)


def test_monais_unetplusplus_is_taken_as_it_is() -> None:
    network = built(candidate("BasicUNetPlusPlus", 2).definition).eval()
    x = torch.rand(1, 2, 32, 32)
    with torch.no_grad():
        [logits] = network(x)
    assert torch.allclose(WindowInferer((32, 32), background=None)(x, network), logits, atol=1e-6)


@pytest.mark.parametrize("name", ["BasicUNetPlusPlus", "DynUNet", "unet3plus_cgm"])
def test_a_bundle_with_one_of_them_opens(name: str, untrained: Path) -> None:
    [found] = choose_candidates(network_definition(untrained), [name])
    define_network(untrained, name, found.definition)
    network = built(found.definition)
    (untrained / "models").mkdir()
    save_atomically(network.state_dict(), untrained / "models" / "model.pt")
    opened = open_bundle(untrained, torch.device("cpu"))
    assert type(opened.network) is type(network)
    assert network_definition(untrained) == found.definition


def test_a_network_that_cannot_be_built_is_not_written(untrained: Path) -> None:
    before = network_definition(untrained)
    with pytest.raises(ValueError, match="odd cannot be built"):
        define_network(untrained, "odd", {"_target_": "monai_unetfamily.nets.PlainUNet", "spatial_dims": 7})
    assert network_definition(untrained) == before

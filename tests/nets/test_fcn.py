"""Laws of FCN: sums of scores, fixed linear kernels, weights handed down, VGG-16's count."""

from itertools import pairwise
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from monai_unetfamily.nets import SkipFCN, create_network
from monai_unetfamily.nets.fcn import LinearTransposed
from tests.support.family import SMALL, heads_of, parameters_of, small

FAMILY = ["fcn32s", "fcn16s", "fcn8s"]


def fcn(name: str, dims: int = 2, **options: Any) -> SkipFCN:
    net = small(name, dims, **options)
    assert isinstance(net, SkipFCN)
    return net


@pytest.mark.parametrize("stride", [(2, 2), (1, 4), (3, 2), (2, 1, 4), (8, 8), (32, 32)])
def test_kernel_is_linear_interpolation_away_from_the_edges(stride: tuple[int, ...]) -> None:
    x = torch.randn(2, 3, *[5] * len(stride))
    up = LinearTransposed(len(stride), 3, stride)(x)
    mode = "bilinear" if len(stride) == 2 else "trilinear"
    expected = F.interpolate(x, scale_factor=[float(s) for s in stride], mode=mode, align_corners=False)
    assert up.shape == expected.shape
    inner = (..., *(slice(s, -s) for s in stride))
    torch.testing.assert_close(up[inner], expected[inner])


def test_kernel_sizes_are_twice_the_stride() -> None:
    sizes = [LinearTransposed(2, 1, (s, s)).conv.weight.shape[-1] for s in (2, 8, 16, 32)]
    assert sizes == [4, 16, 32, 64]


def test_upsampling_is_fixed_unless_it_is_to_be_learned() -> None:
    fixed, learned = fcn("fcn8s"), fcn("fcn8s", learned_upsampling=True)
    extra = set(learned.state_dict()) - set(fixed.state_dict())
    assert extra == {"S.2.up.conv.weight", "S.1.up.conv.weight", "full.1.conv.weight"}
    x = torch.randn(1, 2, 16, 16)
    torch.testing.assert_close(fixed.eval()(x), learned.eval()(x))
    learned.train()(x).sum().backward()
    assert all(p.grad is not None for p in learned.parameters())


@pytest.mark.parametrize("learned", [False, True])
@pytest.mark.parametrize(("coarser", "finer"), [("fcn32s", "fcn16s"), ("fcn16s", "fcn8s"), ("fcn32s", "fcn8s")])
def test_coarser_weights_start_a_finer_network_with_its_prediction(coarser: str, finer: str, learned: bool) -> None:
    trained = fcn(coarser, learned_upsampling=learned)
    for p in trained.parameters():
        torch.nn.init.normal_(p, std=0.1)
    net = fcn(finer, learned_upsampling=learned)
    net.start_from(trained.state_dict())
    x = torch.randn(1, 2, 24, 24)
    deepest = trained.eval().nodes(x)[min(trained.scored)]
    S = net.eval().nodes(x)
    assert torch.equal(S[min(trained.scored)], deepest)
    for i in range(min(net.scored), min(trained.scored)):
        torch.testing.assert_close(S[i], LinearTransposed(2, 3, (2, 2))(S[i + 1]))


def test_other_weights_are_refused() -> None:
    net = fcn("fcn8s")
    weights = net.state_dict()
    for broken in (
        {k: v for k, v in weights.items() if not k.startswith("S.2.")},  # a middle stage is missing, not the finest
        {k: v for k, v in weights.items() if not k.startswith("S.")},
        {k: v for k, v in weights.items() if k != "S.1.conv.bias"},
        {k: v for k, v in weights.items() if not k.startswith("En.0.")},
    ):
        with pytest.raises(RuntimeError, match="Missing key"):
            net.start_from(broken)
    with pytest.raises(RuntimeError, match="Unexpected key"):
        fcn("fcn32s").start_from(weights)
    with pytest.raises(RuntimeError, match="Unexpected key"):  # kernels that were learned are not dropped in silence
        fcn("fcn16s").start_from(fcn("fcn32s", learned_upsampling=True).state_dict())


def test_loading_is_strict_and_starting_is_another_word() -> None:
    with pytest.raises(RuntimeError, match="Missing key"):
        fcn("fcn8s").load_state_dict(fcn("fcn32s").state_dict())


def test_starting_begins_anew_what_the_coarser_network_lacks_and_keeps_the_rest() -> None:
    options: dict[str, Any] = {"learned_upsampling": True, "deep_supervision": True}
    trained, net = fcn("fcn16s", **options), fcn("fcn8s", **options)
    for network in (trained, net):
        for p in network.parameters():
            torch.nn.init.normal_(p)
    net.start_from(trained.state_dict())
    fresh = fcn("fcn8s", **options).state_dict()
    anew = {"S.1.conv.weight", "S.1.conv.bias", "S.1.up.conv.weight", "full.1.conv.weight"}
    for key, value in net.state_dict().items():
        assert torch.equal(value, fresh[key] if key in anew else trained.state_dict()[key]), key


@pytest.mark.parametrize("dims", [2, 3])
def test_a_new_network_predicts_what_its_deepest_scores_say(dims: int) -> None:
    """The scores of the skips start at zero, without any weights loaded."""
    net = fcn("fcn8s", dims).eval()
    S = net.nodes(torch.randn(1, 2, *[16] * dims))
    twice = LinearTransposed(dims, 3, (2,) * dims)
    torch.testing.assert_close(S[1], twice(twice(S[3])))


@pytest.mark.parametrize("name", FAMILY)
def test_supervised_predictions_are_those_of_the_coarser_networks(name: str) -> None:
    net = fcn(name, deep_supervision=True)
    x = torch.randn(1, 2, 16, 24)
    heads = heads_of(net.train()(x))
    assert len(heads) == len(net.scored)
    stem = fcn("fcn32s")
    stem.load_state_dict({k: v for k, v in net.state_dict().items() if not k.startswith(("S.1", "S.2"))})
    torch.testing.assert_close(heads[-1], stem.eval()(x))


@pytest.mark.parametrize("dims", [2, 3])
def test_what_is_padded_is_cropped(dims: int) -> None:
    net = fcn("fcn8s", dims, norm=None).eval()
    x = torch.randn(1, 2, *[13] * dims)
    padded = F.pad(x, [0, 3] * dims)
    assert torch.equal(net(x), net(padded)[(..., *[slice(13)] * dims)])


def vgg16_fcn(classes: int, channels: int) -> int:
    """Weights of VGG-16's convolutions, fc6 (7x7 to 4096), fc7 and the score, by hand."""
    widths = [channels, 64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512]
    convolutions = sum(9 * a * b + b for a, b in pairwise(widths))
    fc6, fc7 = 49 * 512 * 4096 + 4096, 4096 * 4096 + 4096
    return convolutions + fc6 + fc7 + 4096 * classes + classes


@pytest.mark.parametrize(
    ("name", "scores"), [("fcn32s", 0), ("fcn16s", 512 * 21 + 21), ("fcn8s", 512 * 21 + 21 + 256 * 21 + 21)]
)
def test_parameter_counts_of_vgg16(name: str, scores: int) -> None:
    with torch.device("meta"):
        net = create_network(name, spatial_dims=2, in_channels=3, out_channels=21, preset="paper")
    assert parameters_of(net) == vgg16_fcn(21, 3) + scores
    assert round(parameters_of(net) / 1e6) == 134  # million: the figure the literature names


def test_three_dimensional_preset_is_shrunk() -> None:
    with torch.device("meta"):
        net = create_network("fcn32s", spatial_dims=3, in_channels=1, out_channels=2, preset="paper")
    classifier = [tuple(p.shape) for k, p in net.named_parameters() if k.startswith("En.5") and p.ndim == 5]
    assert classifier == [(512, 512, 3, 3, 3), (512, 512, 1, 1, 1)]


def test_a_preset_takes_as_many_widths_as_it_has_stages() -> None:
    with pytest.raises(ValueError, match="features has 4 entries; preset 'paper' of fcn8s has 6 stages"):
        create_network("fcn8s", spatial_dims=2, in_channels=1, out_channels=2, preset="paper", features=(8, 8, 8, 8))


def test_a_classifier_needs_an_encoder() -> None:
    with pytest.raises(ValueError, match="features has 1 entry; .* at least 2"):
        SkipFCN(2, 1, 2, skips=0, features=(4,))


@pytest.mark.parametrize("skips", [-1, 3])
def test_skips_that_there_are_no_stages_for(skips: int) -> None:
    with pytest.raises(ValueError, match=f"skips is {skips} with 4 stages"):
        SkipFCN(2, **SMALL, skips=skips)

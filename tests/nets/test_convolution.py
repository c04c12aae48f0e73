"""Layers at a lower price give what the plain form gives: every member, in eval() and in training."""

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from monai_unetfamily.nets import list_networks
from monai_unetfamily.nets.layers import conv_head, convolution
from monai_unetfamily.nets.layers.convolution import ConvLayer
from monai_unetfamily.nets.layers.norms import fold_batch_norm, instance_norm
from monai_unetfamily.nets.layers.upsampling import Upsampled
from tests.support.family import SIZES, heads_of, small
from tests.support.paper_form import paper_form
from tests.support.tiers import sampled

FORMS: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in list_networks()),
    *((name, {"norm": "batch", "act": "relu"}) for name in list_networks()),
    ("unet", {"upsample": "linear"}),
    ("unet", {"upsample": "linear", "block": "residual", "norm": "batch"}),
    ("unetplusplus", {"upsample": "linear"}),
    ("unet3plus", {"norm": None}),
    ("unet3plus", {"norm": ("group", {"num_groups": 2}), "act": "prelu"}),
    ("unet3plus", {"use_checkpoint": True, "deep_supervision": True}),
]
IDS = [" ".join([name, *(f"{k}={v}" for k, v in options.items())]) for name, options in FORMS]


@pytest.fixture(autouse=True)
def _coarse(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small members are cheaper in the plain form; here the coarse one is taken wherever there is one."""
    monkeypatch.setattr(convolution, "coarse_is_cheaper", lambda *_: True)


def pair(name: str, dims: int, options: dict[str, Any]) -> tuple[nn.Module, nn.Module]:
    """The same network twice, as it is and in the plain form, with norms that have seen something."""
    fast, plain = (small(name, dims, **options).double() for _ in range(2))
    torch.manual_seed(1)
    with torch.no_grad():
        fast.train()(torch.randn(2, 2, *SIZES[dims][0], dtype=torch.float64))
    plain.load_state_dict(fast.state_dict())
    return fast, paper_form(plain)


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize(("name", "options"), FORMS, ids=IDS)
def test_eval_is_that_of_the_plain_form(name: str, options: dict[str, Any], dims: int) -> None:
    fast, plain = pair(name, dims, options)
    for size in SIZES[dims]:
        x = torch.randn(2, 2, *size, dtype=torch.float64)
        with torch.no_grad():
            got, expected = fast.eval()(x), plain.eval()(x)
        torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9)
        assert got.is_contiguous()


@pytest.mark.slow
@pytest.mark.parametrize("dims", sampled([2, 3], 2))
@pytest.mark.parametrize(("name", "options"), FORMS, ids=IDS)
def test_training_is_that_of_the_plain_form(name: str, options: dict[str, Any], dims: int) -> None:
    """Heads, gradients, and what batch norms remember."""
    nets = pair(name, dims, options)
    x = torch.randn(2, 2, *SIZES[dims][1], dtype=torch.float64)
    heads = [torch.stack(heads_of(net.train()(x))) for net in nets]
    torch.testing.assert_close(heads[0], heads[1], rtol=1e-9, atol=1e-9)
    weights = [[p for p in net.parameters() if p.requires_grad] for net in nets]
    ours, theirs = (torch.autograd.grad(h.square().sum(), p) for h, p in zip(heads, weights, strict=True))
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(*(dict(net.named_buffers()) for net in nets), rtol=1e-9, atol=1e-9)


@pytest.mark.slow
def test_float32_is_as_near_to_float64_as_the_plain_form_is() -> None:
    """Norms over few voxels magnify rounding: what counts is that the short way rounds no worse."""
    fast, plain = pair("unet3plus", 3, {})
    x = torch.randn(1, 2, 32, 32, 32, dtype=torch.float64)
    with torch.no_grad():
        exact = plain.eval()(x)
        ours, theirs = (float((net.eval().float()(x.float()) - exact).abs().max()) for net in (fast, plain))
    assert ours < 4 * theirs


def test_a_concatenation_with_an_upsampled_map_is_a_sum() -> None:
    layer = ConvLayer(3, 5, 4, act=None, norm=None)
    fine, coarse = torch.randn(1, 3, 8, 8, 8), torch.randn(1, 2, 4, 4, 4)
    by_hand = layer(torch.cat([fine, F.interpolate(coarse, size=(8, 8, 8), mode="trilinear")], dim=1))
    torch.testing.assert_close(layer(fine, Upsampled(coarse, (8, 8, 8))), by_hand, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_a_norm_that_has_learned_goes_into_kernel_and_bias(bias: bool, affine: bool) -> None:
    conv, norm = nn.Conv3d(3, 4, 3, bias=bias).double(), nn.BatchNorm3d(4, affine=affine).double()
    x = torch.randn(2, 3, 6, 6, 6, dtype=torch.float64)
    norm(conv(3 * x + 1))
    folded = F.conv3d(x, *fold_batch_norm(norm, conv.weight, conv.bias))
    torch.testing.assert_close(folded, norm.eval()(conv(x)), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("shape", [(1, 3, 40, 40, 40), (2, 5, 65, 33), (3, 2, 2, 1, 1), (2, 1, 1, 7)])
@pytest.mark.parametrize("mean", [0.0, 30.0])
def test_instance_norm_is_as_exact_as_torchs(shape: tuple[int, ...], mean: float) -> None:
    """Also for maps whose mean is far from 0, where a sum of squares would lose its digits."""
    torch.manual_seed(0)
    x = torch.randn(shape) + mean  # a value's own rounding: 2e-6 of a deviation at 30
    exact = F.instance_norm(x.double())
    layout = torch.channels_last if x.ndim == 4 else torch.channels_last_3d
    mine = instance_norm(x.contiguous(memory_format=layout).clone(), None, None, 1e-5)
    ours, theirs = (float((y - exact).abs().max()) for y in (mine, F.instance_norm(x)))
    assert ours < max(4 * theirs, 1e-5)


def test_gradient_of_instance_norm_is_that_of_torchs() -> None:
    x = torch.randn(2, 3, 5, 4, dtype=torch.float64, requires_grad=True)
    weight, bias = (torch.randn(3, dtype=torch.float64, requires_grad=True) for _ in range(2))
    weights = torch.randn(2, 3, 5, 4, dtype=torch.float64)
    ours = torch.autograd.grad(instance_norm(x, weight, bias, 1e-5), (x, weight, bias), weights)
    theirs = torch.autograd.grad(F.instance_norm(x, weight=weight, bias=bias), (x, weight, bias), weights)
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("name", list_networks())
def test_the_callers_image_is_not_written_to(name: str) -> None:
    """Layers work in place on what they made themselves alone."""
    net, x = small(name, 2).eval(), torch.randn(1, 2, 16, 16)
    before = x.clone()
    with torch.no_grad():
        net(x)
    assert torch.equal(x, before)


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("kernel_size", [1, 3])
@pytest.mark.parametrize("classes", [1, 5, 6])  # up to five, taps become outputs
def test_heads_are_convolutions(classes: int, kernel_size: int, dims: int) -> None:
    head = conv_head(dims, 4, classes, kernel_size)
    assert isinstance(head, nn.Conv2d | nn.Conv3d)
    x = torch.randn(2, 4, *(6, 5, 7)[:dims], requires_grad=True)
    y, expected = head(x), head._conv_forward(x, head.weight, head.bias)
    torch.testing.assert_close(y, expected, rtol=1e-5, atol=1e-5)
    weights = torch.randn_like(expected)
    ours, theirs = (torch.autograd.grad(each, (x, *head.parameters()), weights) for each in (y, expected))
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("shape", [(1, 16, 12, 12, 12), (1, 1, 40, 40, 40), (2, 16, 12, 12, 12)])
def test_small_3d_images_go_the_quick_way_to_the_same_values(shape: tuple[int, ...]) -> None:
    layer, x = ConvLayer(3, shape[1], 8, act=None, norm=None), torch.randn(shape)
    expected = layer.conv._conv_forward(x, layer.conv.weight, layer.conv.bias)
    torch.testing.assert_close(layer(x), expected, rtol=1e-5, atol=1e-5)

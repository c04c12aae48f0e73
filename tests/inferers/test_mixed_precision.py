"""Mixed precision on a CPU: near to float32, in the network's own kind of output, and only where the CPU has it."""

import pytest
import torch
from torch import Tensor

from monai_unetfamily.inferers import MixedPrecisionInferer, mixed_precision
from monai_unetfamily.nets import GuidedOutput, list_networks
from monai_unetfamily.nets.layers import SmallGridsInFloat32
from tests.support.family import heads_of, small

X = torch.randn(1, 2, 16, 24, generator=torch.Generator().manual_seed(0))


@pytest.fixture(params=[True, False], ids=["bfloat16", "float32"])
def made_for_it(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    monkeypatch.setattr(mixed_precision, "cpu_has_bfloat16", lambda: request.param)
    return bool(request.param)


@pytest.mark.parametrize("name", list_networks())
def test_logits_are_float32_and_near_those_of_the_network(name: str, made_for_it: bool) -> None:
    network = small(name, 2).eval()
    exact, mixed = network(X), MixedPrecisionInferer()(X, network)
    assert mixed.dtype == torch.float32
    assert torch.equal(mixed, exact) != made_for_it
    assert (mixed - exact).abs().max() < 0.1 * exact.abs().max()


SMALL_GRIDS = [((2, 4, 4), 3, 1), ((4, 2, 5), 5, 1), ((5, 4, 2), 3, 2), ((3, 3, 3), 3, 3)]  # size, kernel, stride


@pytest.mark.parametrize(("size", "kernel", "stride"), SMALL_GRIDS)
def test_small_grids_are_convolved_in_float32(size: tuple[int, ...], kernel: int, stride: int) -> None:
    """Values and gradients of float32, to the last bit: bfloat16 gradients are wrong there on some CPUs."""
    conv = torch.nn.Conv3d(2, 3, kernel, stride, padding=kernel // 2)
    x = torch.randn(1, 2, *size)
    exact = conv(x)
    expected = torch.autograd.grad(exact.bfloat16().float().square().sum(), conv.weight)
    with torch.autocast("cpu", torch.bfloat16), SmallGridsInFloat32():
        mixed = conv(x)
    assert torch.equal(mixed, exact.bfloat16())
    torch.testing.assert_close(torch.autograd.grad(mixed.float().square().sum(), conv.weight), expected)


def test_autocast_keeps_what_it_does_not_round() -> None:
    conv, x = torch.nn.Conv3d(2, 3, 3, padding=1), torch.randn(2, 2, 4, 4)  # one image without a batch axis
    with torch.autocast("cpu", torch.bfloat16), SmallGridsInFloat32():
        assert torch.equal(conv(x), conv(x[None])[0])
        assert conv.double()(x.double()).dtype == torch.float64


@pytest.mark.parametrize("use_checkpoint", [False, True])
def test_a_network_whose_deepest_grid_is_small_trains_with_finite_gradients(use_checkpoint: bool) -> None:
    network = small("unet3plus", 3, deep_supervision=True, use_checkpoint=use_checkpoint).train()
    with torch.autocast("cpu", torch.bfloat16):
        heads = heads_of(network(torch.randn(1, 2, 8, 8, 16)))
    sum(head.float().square().mean() for head in heads).backward()  # type: ignore[union-attr]
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


def test_every_head_and_the_guide_come_through(made_for_it: bool) -> None:
    network = small("unet3plus", 2, deep_supervision=True, cgm=True).train()
    output = MixedPrecisionInferer()(X, network)
    assert isinstance(output, GuidedOutput)
    assert isinstance(output.logits, list)
    assert {each.dtype for each in (*output.logits, output.presence)} == {torch.float32}
    loss: Tensor = sum(each.square().mean() for each in (*output.logits, output.presence))  # type: ignore[assignment]
    loss.backward()
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in network.parameters())

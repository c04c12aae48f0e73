"""Laws of the plain U-Net: the paper's counts at every depth, one stage alone, residual blocks."""

from typing import Any

import pytest
import torch
from torch import nn

from monai_unetfamily.nets import PlainUNet, create_network
from monai_unetfamily.nets.layers.blocks import ResidualBlock
from tests.support.family import parameters_of, small

WIDTHS = (32, 64, 128, 256, 512)


@pytest.mark.parametrize(
    ("dims", "stages", "count"),
    [(2, 2, 100_961), (2, 3, 465_953), (2, 4, 1_925_025), (2, 5, 7_759_521), (3, 5, 22_575_329)],
)
def test_parameter_counts_of_the_papers(dims: int, stages: int, count: int) -> None:
    net = create_network(
        "unet", spatial_dims=dims, in_channels=1, out_channels=1, preset="paper", features=WIDTHS[:stages]
    )
    assert parameters_of(net) == count


def unet(dims: int = 2, **options: Any) -> PlainUNet:
    net = small("unet", dims, **options)
    assert isinstance(net, PlainUNet)
    return net


@pytest.mark.parametrize("block", ["plain", "residual"])
@pytest.mark.parametrize("dims", [2, 3])
def test_one_stage_is_a_block_and_a_head(dims: int, block: str) -> None:
    net = unet(dims, features=(4,), block=block, deep_supervision=True).eval()
    x = torch.randn(1, 2, *[3] * dims)
    assert torch.equal(net(x), net.head(net.En[0](x)))


def test_stages_without_downsampling_keep_the_grid() -> None:
    net = unet(features=(4, 8, 8), strides=1)
    assert [De.shape[2:] for De in net.nodes(torch.randn(1, 2, 5, 3))] == [(5, 3)] * 3


def test_convolutions_of_each_stage() -> None:
    net = unet(convolutions=[1, 2, 3, 4])
    blocks = [*net.En, net.De[0], net.De[1], net.De[2]]
    assert [sum(isinstance(m, nn.Conv2d) for m in block.modules()) for block in blocks] == [1, 2, 3, 4, 1, 2, 3]


@pytest.mark.parametrize(("convolutions", "message"), [(0, "convolutions"), ([2, 2], "convolutions has 2 entries")])
def test_impossible_convolutions(convolutions: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        unet(convolutions=convolutions)


def test_block_and_upsample_that_do_not_exist() -> None:
    with pytest.raises(ValueError, match="block is 'dense'; allowed are 'plain', 'residual'"):
        unet(block="dense")
    with pytest.raises(ValueError, match="upsample is 'nearest'; allowed are 'transposed', 'linear'"):
        unet(upsample="nearest")


@pytest.mark.parametrize("upsample", ["transposed", "linear"])
def test_skip_carries_what_the_deep_way_cannot(upsample: str) -> None:
    """De[0] sees En[0] itself: with the way up cut off the finest detail still arrives."""
    net = unet(features=(4, 8), norm=None, upsample=upsample).eval()
    with torch.no_grad():
        for p in net.En[1].parameters():
            p.zero_()
        x = torch.randn(1, 2, 8, 8)
        skip = net.En[0](x)
        up = net.U[0](torch.zeros(1, 8, 4, 4), (8, 8))
        torch.testing.assert_close(net(x), net.head(net.De[0](skip, up)))


def test_residual_block_of_zero_convolutions_is_its_activation() -> None:
    block = ResidualBlock(2, 4, 4, act="relu")
    with torch.no_grad():
        for p in block.convs.parameters():
            p.zero_()
    x = torch.randn(1, 4, 5, 5)
    assert torch.equal(block(x), x.relu())


def test_residual_block_is_activation_of_sum() -> None:
    block = ResidualBlock(2, 2, 4, act="relu", norm="instance")
    x = torch.randn(1, 2, 6, 6)
    assert torch.equal(block(x), torch.relu(block.convs(x) + block.shortcut(x)))
    assert (block.convs(x) < 0).any()  # the last convolution has no activation of its own

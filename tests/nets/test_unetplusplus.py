"""Laws of the nested grid: who sees whom, the papers' counts, pruning bit for bit, the ensemble."""

from typing import Any

import pytest
import torch
from torch import Tensor

from monai_unetfamily.nets import PlainUNet, UNetPlusPlus, create_network
from monai_unetfamily.nets.unetplusplus import fan_in, grid
from tests.support.family import parameters_of, small
from tests.support.tiers import sampled

NESTED = ["unet_e", "unet_plus", "unetplusplus"]
WIDTHS = (32, 64, 128, 256, 512)


def nested(name: str = "unetplusplus", dims: int = 2, **options: Any) -> UNetPlusPlus:
    net = small(name, dims, **options)
    assert isinstance(net, UNetPlusPlus)
    return net


def paper(name: str, dims: int, channels: int = 1, **options: Any) -> UNetPlusPlus:
    with torch.device("meta"):
        net = create_network(name, spatial_dims=dims, in_channels=channels, out_channels=1, preset="paper", **options)
    assert isinstance(net, UNetPlusPlus)
    return net


@pytest.mark.parametrize(
    ("dims", "deep", "count"),
    [(2, False, 9_041_601), (2, True, 9_041_700), (3, False, 26_198_273), (3, True, 26_198_273 + 3 * 33)],
)
def test_parameter_counts_of_the_papers(dims: int, deep: bool, count: int) -> None:
    assert parameters_of(paper("unetplusplus", dims, deep_supervision=deep)) == count


def test_parameter_count_with_batch_norm_and_linear_upsampling() -> None:
    net = UNetPlusPlus(2, 3, 1, norm="batch", upsample="linear", deep_supervision=True)
    assert parameters_of(net) == 9_163_428


@pytest.mark.slow
@pytest.mark.parametrize(
    ("dims", "counts"),
    [
        (2, [100_961, 511_105, 2_204_961, 9_041_601]),
        (3, [294_049, 1_482_433, 6_389_601, 26_198_273]),
    ],
)
def test_pruned_parameter_counts(dims: int, counts: list[int]) -> None:
    net = create_network(
        "unetplusplus", spatial_dims=dims, in_channels=1, out_channels=1, preset="paper", deep_supervision=True
    )
    assert isinstance(net, UNetPlusPlus)
    assert [parameters_of(net.pruned(d)) for d in (1, 2, 3, 4)] == counts


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("name", ["unet_e", "unet_plus"])
def test_parameter_counts_follow_from_the_joins(name: str, dims: int) -> None:
    """UNet++ less the first convolution's share of the maps that a node does not see."""
    unseen = sum((j - 1) * WIDTHS[i] ** 2 * 3**dims for i, j in grid(4) if j > 0)
    heads = 3 * 33 if name == "unet_e" else 0
    assert parameters_of(paper(name, dims)) == parameters_of(paper("unetplusplus", dims)) - unseen + heads


@pytest.mark.parametrize("levels", [1, 2, 3, 4, 6])
def test_number_of_nodes(levels: int) -> None:
    assert len(grid(levels)) == (levels + 1) * (levels + 2) // 2
    net = nested(features=(2,) * (levels + 1))
    assert sorted(net.X) == sorted(f"{i}_{j}" for i, j in grid(levels))


# Channels that enter X[i, 0], X[i, 1], ...: widths 32..512, one channel in, by hand from the papers' equations.
FAN_IN = {
    ("unetplusplus", "transposed"): [[1, 64, 96, 128, 160], [32, 128, 192, 256], [64, 256, 384], [128, 512], [256]],
    ("unet_plus", "transposed"): [[1, 64, 64, 64, 64], [32, 128, 128, 128], [64, 256, 256], [128, 512], [256]],
    ("unet_e", "transposed"): [[1, 64, 64, 64, 64], [32, 128, 128, 128], [64, 256, 256], [128, 512], [256]],
    ("unetplusplus", "linear"): [[1, 96, 128, 160, 192], [32, 192, 256, 320], [64, 384, 512], [128, 768], [256]],
    ("unet_plus", "linear"): [[1, 96, 96, 96, 96], [32, 192, 192, 192], [64, 384, 384], [128, 768], [256]],
    ("unet_e", "linear"): [[1, 96, 96, 96, 96], [32, 192, 192, 192], [64, 384, 384], [128, 768], [256]],
}


@pytest.mark.parametrize(("name", "upsample"), FAN_IN)
def test_fan_in_of_every_node(name: str, upsample: str) -> None:
    with torch.device("meta"):
        net = create_network(name, spatial_dims=2, in_channels=1, out_channels=1, features=WIDTHS, upsample=upsample)
    assert isinstance(net, UNetPlusPlus)
    for i, row in enumerate(FAN_IN[name, upsample]):
        assert [net.X[f"{i}_{j}"].convs[0].conv.in_channels for j in range(len(row))] == row
        assert [fan_in(i, j, WIDTHS, 1, upsample, net.joined) for j in range(len(row))] == row


@pytest.mark.slow
@pytest.mark.parametrize("upsample", ["transposed", "linear"])
@pytest.mark.parametrize("norm", sampled(["batch", "instance", None], "batch"))
@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("name", NESTED)
def test_pruned_equals_its_head_bit_for_bit(name: str, dims: int, norm: str | None, upsample: str) -> None:
    features = (4, 8, 8, 16, 16) if dims == 2 else (4, 8, 8, 8, 8)  # L1 to L4
    net = nested(name, dims, features=features, norm=norm, upsample=upsample, deep_supervision=True)
    net.train()(torch.randn(2, 2, *[32] * dims))  # moves batch norm's running statistics off their start
    net.eval()
    x = torch.randn(1, 2, *[33] * dims)
    with torch.no_grad():
        for level, head in zip((4, 3, 2, 1), net.side_outputs(x), strict=True):
            assert torch.equal(net.pruned(level)(x), head)


def test_pruned_keeps_the_type_of_its_weights() -> None:
    net = nested(deep_supervision=True).double().eval()
    x = torch.randn(1, 2, 16, 16, dtype=torch.float64)
    assert torch.equal(net.pruned(1)(x), net.side_outputs(x)[-1])


def test_no_level_without_its_head() -> None:
    with pytest.raises(ValueError, match=r"heads at \[3\]"):
        nested().pruned(1)


@pytest.mark.parametrize("name", NESTED)
def test_accurate_mode_is_the_mean_of_the_heads(name: str) -> None:
    net = nested(name, deep_supervision=True, mode="accurate").eval()
    x = torch.randn(1, 2, 16, 16)
    torch.testing.assert_close(net(x), torch.stack(net.side_outputs(x)).mean(0))


def test_the_ensemble_is_accurate_unless_told_otherwise() -> None:
    assert [UNetPlusPlus(2, 1, 1, features=(2, 2), joined=j).mode for j in ("none", "neighbours", "all")] == [
        "accurate",
        "fast",
        "fast",
    ]


def test_unet_e_is_an_ensemble_of_unets_that_share_their_encoder() -> None:
    net = nested("unet_e").eval()
    x = torch.randn(1, 2, 17, 24)
    for depth, head in zip((3, 2, 1), net.side_outputs(x), strict=True):
        unet = small("unet", 2, features=(4, 8, 8, 8)[: depth + 1]).eval()
        assert isinstance(unet, PlainUNet)
        unet.load_state_dict(unet_weights(net, depth))
        torch.testing.assert_close(unet(x), head)


def unet_weights(net: UNetPlusPlus, depth: int) -> dict[str, Tensor]:
    """The weights of the depth's own U-Net: column 0 is its encoder, the diagonal i + j = depth its decoder."""
    places = {f"X.{i}_0.": f"En.{i}." for i in range(depth + 1)}
    places |= {f"X.{i}_{depth - i}.": f"De.{i}." for i in range(depth)}
    places |= {f"U.{i}_{depth - i}.": f"U.{i}." for i in range(depth)}
    places |= {"head." if depth == net.levels else f"auxiliary_heads.{depth}.": "head."}
    return {
        key.replace(old, new): value
        for key, value in net.state_dict().items()
        for old, new in places.items()
        if key.startswith(old)
    }


def test_fast_ensemble_computes_its_deepest_decoder_alone() -> None:
    net = nested("unet_e", mode="fast").eval()
    ran = []
    for key, node in net.X.items():
        node.register_forward_hook(lambda *_, key=key: ran.append(key))
    net(torch.randn(1, 2, 16, 16))
    assert sorted(ran) == ["0_0", "0_3", "1_0", "1_2", "2_0", "2_1", "3_0"]


BAD = [
    ({"mode": "quick"}, "mode is 'quick'; allowed are 'fast', 'accurate'"),
    ({"mode": "accurate"}, "deep_supervision=True"),
    ({"upsample": "nearest"}, "allowed are 'transposed', 'linear'"),
    ({"features": (8,)}, "at least 2"),
    ({"joined": "some"}, "joined is 'some'; allowed are 'none', 'neighbours', 'all'"),
]


@pytest.mark.parametrize(("change", "message"), BAD)
def test_bad_arguments(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        UNetPlusPlus(**{"spatial_dims": 2, "in_channels": 1, "out_channels": 1, "features": (4, 8)} | change)


def test_a_name_fixes_how_nodes_are_joined() -> None:
    with pytest.raises(ValueError, match="unet_plus has no option joined"):
        nested("unet_plus", joined="all")

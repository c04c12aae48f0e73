"""Laws of UNet 3+: the paper's counts, the guide, grids that floor alike."""

from itertools import pairwise
from typing import Any

import pytest
import torch
from monai.losses import DiceCELoss
from torch import Tensor
from torch.nn import functional as F

from monai_unetfamily.losses import GuidedLoss
from monai_unetfamily.nets import GuidedOutput, UNet3Plus, create_network
from monai_unetfamily.nets.layers.blocks import ResidualBlock
from tests.support.family import heads_of, parameters_of, small


@pytest.mark.parametrize(("options", "count"), [({}, 26_971_777), ({"deep_supervision": True}, 26_989_637)])
def test_parameter_counts_of_the_paper(options: dict[str, Any], count: int) -> None:
    with torch.device("meta"):
        net = create_network("unet3plus", spatial_dims=2, in_channels=3, out_channels=1, preset="paper", **options)
    assert parameters_of(net) == count


@pytest.mark.slow
def test_guide_adds_one_weight_a_class_and_deep_feature() -> None:
    """The authors' guide has two outputs for one organ (2,050); ours one for each class, with bias."""
    plain, guided = (UNet3Plus(2, 3, 3, features=(4, 8, 1024), skip_channels=4, cgm=cgm) for cgm in (False, True))
    assert parameters_of(guided) - parameters_of(plain) == 2 * 1024 + 2


def test_every_node_and_the_bottleneck_have_a_head() -> None:
    net = small("unet3plus", 2, deep_supervision=True)
    assert len(heads_of(net(torch.randn(1, 2, 16, 16)))) == 4
    widths = [head.in_channels for head in (net.head, *net.auxiliary_heads)]
    assert widths == [16, 16, 16, 8]  # four branches of 4 channels; the bottleneck its own


@pytest.mark.slow
def test_fan_in_is_as_many_branches_as_stages() -> None:
    net = UNet3Plus(2, 3, 1, features=(64, 128, 256, 512, 1024))
    for i in range(4):
        sources = [net.C[f"{i}_{k}"] for k in range(5)]
        widths = [next(p for p in branch.parameters() if p.ndim == 4).shape[:2] for branch in sources]
        seen = [64, 128, 256, 512][: i + 1] + [320] * (3 - i) + [1024]  # finer: encoder; coarser: decoder; bottleneck
        assert widths == [(64, width) for width in seen]
        assert net.De[i].convs[0].conv.weight.shape == (320, 320, 3, 3)


def by_the_equation(net: UNet3Plus, x: Tensor) -> list[Tensor]:
    """De[0..N] spelt out, with one voxel-wise formula of each resampling: the oracle of `nodes`."""
    En = [net.En[0](x)]
    for i in range(1, net.N + 1):
        En.append(net.En[i](F.max_pool2d(En[-1], 2)))
    De = [*En[:-1], En[-1]]
    for i in range(net.N - 1, -1, -1):
        branches = []
        for k in range(net.N + 1):
            if k <= i:
                pooled = F.max_pool2d(En[k], 2 ** (i - k)) if k < i else En[k]
                conv = net.C[f"{i}_{k}"][1]
            else:
                pooled = F.interpolate(De[k], En[i].shape[2:], mode="bilinear", align_corners=False)
                conv = net.C[f"{i}_{k}"].conv
            branches.append(conv(pooled))
        De[i] = net.De[i](torch.cat(branches, dim=1))
    return De


def test_nodes_and_their_gradients_are_those_of_the_equation() -> None:
    net = small("unet3plus", 2).double()
    assert isinstance(net, UNet3Plus)
    x = torch.randn(1, 2, 16, 24, dtype=torch.float64)
    nodes, oracle = net.nodes(x), by_the_equation(net, x)
    torch.testing.assert_close(nodes, oracle)
    weights = [p for key, p in net.named_parameters() if "head" not in key]
    ours, theirs = (torch.autograd.grad(De[0].square().sum(), weights) for De in (nodes, oracle))
    torch.testing.assert_close(ours, theirs)


def test_the_guide_drops_half_of_its_features_in_training() -> None:
    net = small("unet3plus", 2, cgm=True)
    x = torch.randn(1, 2, 16, 16)
    assert not torch.equal(net.train()(x).presence, net.train()(x).presence)
    assert net.cgm.dropout.p == 0.5


def test_residual_encoder() -> None:
    net = small("unet3plus", 3, encoder="residual")
    assert all(isinstance(block, ResidualBlock) for block in net.En)
    assert not any(isinstance(block, ResidualBlock) for block in net.De)
    with pytest.raises(ValueError, match="encoder is 'vgg'; allowed are 'plain', 'residual'"):
        small("unet3plus", 3, encoder="vgg")


@pytest.mark.parametrize(("background", "classes"), [(True, 2), (False, 3)])
def test_guide_gates_absent_classes_in_eval_alone(background: bool, classes: int) -> None:
    net = small("unet3plus", 2, cgm=True, background=background)
    assert isinstance(net, UNet3Plus)
    assert net.cgm is not None
    x = torch.randn(1, 2, 16, 16)
    output = net.train()(x)
    assert isinstance(output, GuidedOutput)
    assert output.presence.shape == (1, classes)
    net.eval()
    plain = net.head(net.nodes(x)[0])
    net.cgm.threshold.fill_(0.0)
    assert torch.equal(net(x), plain)  # present everywhere: not a bit is touched
    net.cgm.threshold.fill_(1.0)
    gated = net(x)
    if background:
        assert torch.equal(gated[:, :1], plain[:, :1])
        assert (gated.softmax(1)[:, 1:] < 5e-5).all()
    else:
        assert (gated.sigmoid() < 5e-5).all()


def test_guide_of_one_class_without_background() -> None:
    net = small("unet3plus", 3, cgm=True, background=False, out_channels=1, deep_supervision=True)
    output = net(torch.randn(2, 2, 8, 8, 16))
    assert output.presence.shape == (2, 1)
    assert len(output.logits) == 4


def test_presence_reaches_every_weight_of_the_guide() -> None:
    net = small("unet3plus", 2, cgm=True, deep_supervision=True)
    output = net(torch.randn(2, 2, 16, 16))
    (sum(h.mean() for h in output.logits) + output.presence.sum()).backward()
    assert [k for k, p in net.named_parameters() if p.grad is None] == []


def squares(n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Noise (n, 1, 32, 32), half of it with a bright square, and its label map."""
    x, label = 0.5 * torch.randn(n, 1, 32, 32, generator=generator), torch.zeros(n, 1, 32, 32)
    for image, mask in zip(x[::2], label[::2], strict=True):
        a, b = torch.randint(4, 24, (2,), generator=generator).tolist()
        mask[0, a : a + 6, b : b + 6] = 1
        image += 1.5 * mask
    return x, label


@pytest.mark.slow
def test_guide_learns_which_images_hold_the_organ() -> None:
    generator = torch.Generator().manual_seed(0)
    net = small("unet3plus", 2, in_channels=1, out_channels=2, features=(8, 16, 32), norm="batch", cgm=True)
    assert isinstance(net, UNet3Plus)
    assert net.cgm is not None
    loss = GuidedLoss(DiceCELoss(to_onehot_y=True, softmax=True), presence_weight=0.5)
    optimizer = torch.optim.AdamW(net.parameters(), 1e-2)
    for _ in range(100):
        x, label = squares(8, generator)
        optimizer.zero_grad()
        loss(net(x), label).backward()
        optimizer.step()
    x, label = squares(64, generator)
    present = label.flatten(1).any(dim=1)
    with torch.no_grad():
        labels = net.eval()(x).argmax(dim=1)
        found = net.cgm(net.nodes(x)[-1])[:, 0] > 0
    assert (found == present).float().mean() > 0.95
    assert not labels[~found].any()  # absent: not one voxel


def test_unet3plus_of_one_stage_is_encoder_and_head() -> None:
    net = small("unet3plus", 2, features=(4,))
    assert net(torch.randn(1, 2, 5, 3)).shape == (1, 3, 5, 3)


def test_stage_sizes_floor_alike_on_every_path() -> None:
    net = small("unet3plus", 2, features=(4, 4, 4, 4))
    assert isinstance(net, UNet3Plus)
    sizes = [De.shape[2:] for De in net.nodes(torch.randn(1, 2, 31, 23))]
    assert all(tuple(b) == tuple(n // 2 for n in a) for a, b in pairwise(sizes))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"skip_channels": 0}, "skip_channels is 0"),
        ({"presence_threshold": 0.9}, "presence_threshold is 0.9 without cgm"),
        ({"skip_channels": 3, "norm": ("group", {"num_groups": 2})}, "norm is .*divisible"),
        ({"cgm": True, "out_channels": 1}, "out_channels >= 2"),
        ({"cgm": True, "presence_threshold": [0.5, 0.5, 0.5]}, "each of the 2"),
    ],
)
def test_bad_arguments(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small("unet3plus", 2, **change)

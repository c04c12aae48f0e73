"""Laws that every member keeps: one table over the registry, so that a new network brings its own tests."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest
import torch
from monai.bundle import ConfigParser
from monai.losses import DiceCELoss
from torch import Tensor, nn

from monai_unetfamily.losses import GuidedLoss
from monai_unetfamily.nets import GuidedOutput, UNet3Plus, UNetPlusPlus, create_network, list_networks
from monai_unetfamily.nets.registry import MEMBERS

SIZES = {2: [(16, 16), (13, 17), (9, 24)], 3: [(8, 8, 8), (9, 7, 11), (5, 12, 8)]}
SMALL: dict[str, Any] = {"features": (4, 8, 8), "in_channels": 2, "out_channels": 3}
CASES = [
    pytest.param(name, dims, size, deep, id=f"{name}-{dims}d-{'x'.join(map(str, size))}-{'deep' if deep else 'plain'}")
    for name in list_networks()
    for dims in (2, 3)
    for size in SIZES[dims]
    for deep in (False, True)
]


def small(name: str, dims: int, **options: Any) -> nn.Module:
    torch.manual_seed(0)
    extra = {"skip_channels": 4} if "skip_channels" in MEMBERS[name].options else {}
    return create_network(name, spatial_dims=dims, **SMALL | extra | options)


def heads_of(output: Any) -> list[Tensor]:
    logits = output.logits if isinstance(output, GuidedOutput) else output
    return logits if isinstance(logits, list) else [logits]


@pytest.mark.parametrize(("name", "dims", "size", "deep"), CASES)
def test_shapes_and_gradients(name: str, dims: int, size: tuple[int, ...], deep: bool) -> None:
    net = small(name, dims, deep_supervision=deep)
    x = torch.randn(2, 2, *size)
    output = net.train()(x)
    heads = heads_of(output)
    assert isinstance(output, list) == deep
    assert (len(heads) > 1) == deep
    assert all(h.shape == (2, 3, *size) and torch.isfinite(h).all() for h in heads)
    sum((h**2).mean() for h in heads).backward()  # type: ignore[union-attr]
    without = [k for k, p in net.named_parameters() if p.grad is None or not torch.isfinite(p.grad).all()]
    assert without == []
    with torch.no_grad():
        final = net.eval()(x)
    assert isinstance(final, Tensor)
    # instance norm does not know training from evaluation: the first head of training is the output of eval
    torch.testing.assert_close(final, heads[0])


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("name", list_networks())
def test_plain_takes_supervised_weights_without_the_auxiliary_heads(name: str, dims: int) -> None:
    plain, supervised = small(name, dims), small(name, dims, deep_supervision=True)
    weights = supervised.state_dict()
    extra = set(weights) - set(plain.state_dict())
    assert extra == {k for k in weights if k.startswith("auxiliary_heads")} != set()
    plain.load_state_dict({k: v for k, v in weights.items() if k not in extra})
    x = torch.randn(1, 2, *SIZES[dims][0])
    assert torch.equal(plain.eval()(x), supervised.eval()(x))
    with pytest.raises(RuntimeError, match="auxiliary_heads"):
        supervised.load_state_dict(plain.state_dict())


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("name", list_networks())
def test_learns_a_toy(name: str, dims: int) -> None:
    net = small(name, dims)
    x = torch.randn(2, 2, *SIZES[dims][0])
    target = (x[:, 0] > 0.5).long() + (x[:, 1] > 0.8).long()
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    losses = []
    for _ in range(30):
        loss = nn.functional.cross_entropy(heads_of(net(x))[0], target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.6 * losses[0]


@pytest.mark.parametrize("name", list_networks())
def test_anisotropic_strides_and_kernels(name: str) -> None:
    options = {
        "features": (4, 4, 8, 8),
        "strides": [(1, 2, 2), 1, 2],
        "kernel_size": [(1, 3, 3), (1, 3, 3), 3, 3],
    }
    net = small(name, 3, **options).eval()
    assert net(torch.randn(1, 2, 3, 9, 8)).shape == (1, 3, 3, 9, 8)


@pytest.mark.parametrize("name", list_networks())
def test_batch_mates_do_not_matter(name: str) -> None:
    net = small(name, 2).eval()
    x = torch.randn(3, 2, 13, 17)
    torch.testing.assert_close(net(x)[1:2], net(x[1:2]))


@pytest.mark.parametrize("name", list_networks())
def test_resolves_in_a_monai_config_by_short_name_full_path_and_registry(name: str) -> None:
    cls = MEMBERS[name].network
    arguments = {"spatial_dims": 2, "in_channels": 1, "out_channels": 2, "features": [4, 8]}
    targets: Sequence[dict[str, Any]] = (
        {"_target_": cls.__name__},
        {"_target_": f"{cls.__module__}.{cls.__qualname__}"},
        {"_target_": f"monai_unetfamily.nets.{cls.__name__}"},
        {"_target_": "monai_unetfamily.nets.create_network", "name": name},
    )
    for target in targets:
        parser = ConfigParser({"imports": ["$import monai_unetfamily.nets"], "network_def": target | arguments})
        parser.get_parsed_content("imports")
        assert type(parser.get_parsed_content("network_def")) is cls


@pytest.mark.parametrize("name", list_networks())
def test_export_form_of_eval_is_one_tensor_with_every_option(name: str) -> None:
    deep = small(name, 2, deep_supervision=True).eval()
    assert isinstance(deep(torch.randn(1, 2, 8, 8)), Tensor)


# Parameter counts: UNet++ from its authors' widths without norm and with biases; UNet 3+ from its paper's layers.
COUNTS = [
    ("unetplusplus", 2, 1, {}, 9_041_601),
    ("unetplusplus", 2, 1, {"deep_supervision": True}, 9_041_700),
    ("unetplusplus", 3, 1, {}, 26_198_273),
    ("unet3plus", 2, 3, {}, 26_971_777),
    ("unet3plus", 2, 3, {"deep_supervision": True}, 26_989_637),
]


@pytest.mark.parametrize(("name", "dims", "channels", "options", "count"), COUNTS)
def test_parameter_counts_of_the_papers(
    name: str, dims: int, channels: int, options: dict[str, Any], count: int
) -> None:
    net = create_network(name, spatial_dims=dims, in_channels=channels, out_channels=1, preset="paper", **options)
    assert sum(p.numel() for p in net.parameters()) == count


def test_parameter_count_of_unetplusplus_with_batch_norm_and_linear_upsampling() -> None:
    net = UNetPlusPlus(2, 3, 1, norm="batch", upsample="linear", deep_supervision=True)
    assert sum(p.numel() for p in net.parameters()) == 9_163_428


@pytest.mark.parametrize(("dims", "counts"), [(2, [100_961, 511_105, 2_204_961]), (3, [294_049, 1_482_433, 6_389_601])])
def test_pruned_parameter_counts(dims: int, counts: list[int]) -> None:
    net = create_network(
        "unetplusplus",
        spatial_dims=dims,
        in_channels=1,
        out_channels=1,
        preset="paper",
        deep_supervision=True,
    )
    assert isinstance(net, UNetPlusPlus)
    assert [sum(p.numel() for p in net.pruned(d).parameters()) for d in (1, 2, 3)] == counts


@pytest.mark.parametrize("upsample", ["transposed", "linear"])
@pytest.mark.parametrize("norm", ["batch", "instance", None])
@pytest.mark.parametrize("dims", [2, 3])
def test_pruned_equals_its_head_bit_for_bit(dims: int, norm: str | None, upsample: str) -> None:
    options = {"features": (4, 8, 8, 16), "norm": norm, "upsample": upsample, "deep_supervision": True}
    net = small("unetplusplus", dims, **options)
    assert isinstance(net, UNetPlusPlus)
    net.train()(torch.randn(2, 2, *[16] * dims))  # moves batch norm's running statistics off their start
    net.eval()
    x = torch.randn(1, 2, *[17] * dims)
    with torch.no_grad():
        for level, head in zip((3, 2, 1), net.side_outputs(x), strict=True):
            assert torch.equal(net.pruned(level)(x), head)


def test_pruned_keeps_the_type_of_its_weights() -> None:
    net = small("unetplusplus", 2, deep_supervision=True).double().eval()
    assert isinstance(net, UNetPlusPlus)
    x = torch.randn(1, 2, 16, 16, dtype=torch.float64)
    assert torch.equal(net.pruned(1)(x), net.side_outputs(x)[-1])


def test_accurate_mode_is_the_mean_of_the_heads() -> None:
    net = small("unetplusplus", 2, deep_supervision=True, mode="accurate").eval()
    assert isinstance(net, UNetPlusPlus)
    x = torch.randn(1, 2, 16, 16)
    torch.testing.assert_close(net(x), torch.stack(net.side_outputs(x)).mean(0))


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
    output = net(torch.randn(2, 2, 8, 8, 8))
    assert output.presence.shape == (2, 1)
    assert len(output.logits) == 3


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


BAD = [
    ({"name": "unet4"}, "unet4.*allowed are.*unet3plus"),
    ({"spatial_dims": 4}, "spatial_dims is 4; allowed are 2 and 3"),
    ({"in_channels": 0}, "in_channels is 0"),
    ({"out_channels": 0}, "out_channels is 0"),
    ({"features": ()}, "features is"),
    ({"strides": [2, 2, 2, 2, 2]}, "strides has 5 entries"),
    ({"kernel_size": [(3, 3, 3)] * 3}, "kernel_size"),
    ({"widths": 3}, "no option widths; allowed are .*features"),
    ({"preset": "papers"}, "allowed is 'paper'"),
    ({"preset": "paper", "norm": "batch"}, "fixes norm"),
    ({"norm": "bach"}, "norm is 'bach'; allowed is a name.*BATCH"),
    ({"act": ("relu", {"slope": 1})}, "act is"),
    ({"kernel_size": 2}, "only odd"),
    ({"skip_channels": 0}, "skip_channels is 0"),
    ({"name": "unetplusplus", "mode": "quick"}, "'fast' and 'accurate'"),
    ({"name": "unetplusplus", "mode": "accurate"}, "deep_supervision=True"),
    ({"name": "unetplusplus", "upsample": "nearest"}, "'transposed' and 'linear'"),
    ({"name": "unetplusplus", "features": (8,)}, "at least 2"),
    ({"cgm": True, "out_channels": 1}, "out_channels >= 2"),
    ({"cgm": True, "presence_threshold": [0.5, 0.5, 0.5]}, "each of the 2"),
]


@pytest.mark.parametrize(("change", "message"), BAD)
def test_bad_arguments_say_what_is_allowed(change: dict[str, Any], message: str) -> None:
    arguments = {"name": "unet3plus", "spatial_dims": 2, **SMALL}
    with pytest.raises(ValueError, match=message):
        create_network(**arguments | change)


@pytest.mark.parametrize("name", list_networks())
@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 3, 16, 16), r"takes \(N, 2"),
        ((1, 2, 16, 16, 16), "2 spatial axes"),
        ((1, 2, 3, 16), r"at least \(4, 4\)"),
        ((1, 2, 4, 4), "instance norm needs two"),
    ],
)
def test_bad_inputs_say_the_least_size(name: str, shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small(name, 2)(torch.zeros(shape))


def test_no_level_without_its_head() -> None:
    net = small("unetplusplus", 2)
    assert isinstance(net, UNetPlusPlus)
    with pytest.raises(ValueError, match=r"heads at \[2\]"):
        net.pruned(1)

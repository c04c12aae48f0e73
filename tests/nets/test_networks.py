"""Laws that every member keeps: one table over the registry, so that a new network brings its own tests."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from monai.bundle import ConfigParser
from torch import Tensor, nn

from monai_unetfamily import nets
from monai_unetfamily.nets import MEMBERS, create_network, list_networks
from tests.support.family import SIZES, SMALL, heads_of, small
from tests.support.tiers import sampled

CASES = [
    pytest.param(name, dims, size, deep, id=f"{name}-{dims}d-{'x'.join(map(str, size))}-{'deep' if deep else 'plain'}")
    for name in list_networks()
    for dims in (2, 3)
    for size in SIZES[dims]
    for deep in (False, True)
]
ALWAYS_SUPERVISED = {"unet_e"}


@pytest.mark.parametrize(("name", "dims", "size", "deep"), CASES)
def test_shapes_and_gradients(name: str, dims: int, size: tuple[int, ...], deep: bool) -> None:
    net = small(name, dims, deep_supervision=deep)
    x = torch.randn(2, 2, *size)
    output = net.train()(x)
    heads = heads_of(output)
    assert isinstance(output, list) == (deep or name in ALWAYS_SUPERVISED)
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
    auxiliary = {k for k in weights if k.startswith("auxiliary_heads")}
    assert extra == (set() if name in ALWAYS_SUPERVISED else auxiliary)
    plain.load_state_dict({k: v for k, v in weights.items() if k not in extra})
    x = torch.randn(1, 2, *SIZES[dims][0])
    assert torch.equal(plain.eval()(x), supervised.eval()(x))
    if extra:
        with pytest.raises(RuntimeError, match="auxiliary_heads"):
            supervised.load_state_dict(plain.state_dict())


@pytest.mark.slow
@pytest.mark.parametrize("dims", sampled([2, 3], 2))
@pytest.mark.parametrize("name", list_networks())
def test_learns_a_toy(name: str, dims: int) -> None:
    net = small(name, dims)
    cells = torch.randn(2, 2, *[2] * dims)
    x = nn.functional.interpolate(cells, scale_factor=8)  # cells of 8 voxels: what the coarsest member can show
    target = (x[:, 0] > 0).long() + (x[:, 1] > 0).long()
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


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("name", list_networks())
def test_axes_are_alike(name: str, dims: int) -> None:
    """Turning the image and every kernel turns the logits: no axis is taken for another."""
    net = small(name, dims, norm=None).eval()
    x = torch.randn(1, 2, *SIZES[dims][1])
    with torch.no_grad():
        straight = net(x)
        for tensor in [*net.parameters(), *net.buffers()]:
            if tensor.ndim == dims + 2:
                tensor.data = tensor.data.transpose(-1, -2).contiguous()
        turned = net(x.transpose(-1, -2))
    torch.testing.assert_close(turned.transpose(-1, -2), straight)


@pytest.mark.parametrize("norm", ["batch", "instance"])
@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("name", list_networks())
def test_checkpointing_changes_no_gradient_and_no_statistic(name: str, dims: int, norm: str) -> None:
    options = {"norm": norm, "dropout": 0.3, "deep_supervision": True}
    plain, recomputed = (small(name, dims, use_checkpoint=use, **options).train() for use in (False, True))
    x = torch.randn(2, 2, *SIZES[dims][0])
    for net in (plain, recomputed):
        torch.manual_seed(1)  # of the dropout
        sum((h**2).mean() for h in heads_of(net(x))).backward()  # type: ignore[union-attr]
    for (key, a), b in zip(plain.named_parameters(), recomputed.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, msg=key)
    for (key, a), b in zip(plain.named_buffers(), recomputed.buffers(), strict=True):
        assert torch.equal(a, b), key


@pytest.mark.slow
@pytest.mark.parametrize("norm", ["batch", "syncbatch", ("instance", {"track_running_stats": True}), None])
@pytest.mark.parametrize("name", list_networks())
def test_checkpointing_bears_a_backward_pass_for_each_head(name: str, norm: Any) -> None:
    plain, recomputed = (small(name, 2, use_checkpoint=use, norm=norm, deep_supervision=True) for use in (False, True))
    x = torch.randn(2, 2, 16, 16)
    for net in (plain, recomputed):
        for head in heads_of(net.train()(x)):
            head.square().mean().backward(retain_graph=True)
    for (key, a), b in zip(plain.named_parameters(), recomputed.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, msg=key)
    for (key, a), b in zip(plain.named_buffers(), recomputed.buffers(), strict=True):
        assert torch.equal(a, b), key


@pytest.mark.parametrize("name", list_networks())
@torch.no_grad()
def test_dropout_is_at_work_in_training_alone(name: str) -> None:
    net = small(name, 2, dropout=0.5)
    x = torch.randn(1, 2, 16, 16)
    first, second = (heads_of(net.train()(x))[0] for _ in range(2))
    assert not torch.equal(first, second)
    assert torch.equal(net.eval()(x), net.eval()(x))
    torch.testing.assert_close(net.eval()(x), small(name, 2).eval()(x))


@pytest.mark.parametrize("name", list_networks())
def test_every_layer_has_the_act_and_the_norm_that_was_asked_for(name: str) -> None:
    net = small(name, 2, act="elu", norm=("group", {"num_groups": 2}))
    acts = [m for m in net.modules() if isinstance(m, nn.ELU)]
    norms = [m for m in net.modules() if isinstance(m, nn.GroupNorm)]
    heads = [m for key, m in net.named_modules() if isinstance(m, nn.Conv2d) and ("head" in key or key[0] == "S")]
    convolutions = [m for m in net.modules() if isinstance(m, nn.Conv2d)]
    assert len(acts) == len(norms) == len(convolutions) - len(heads) > 0
    assert not any(isinstance(m, nn.ReLU | nn.LeakyReLU | nn.InstanceNorm2d) for m in net.modules())


def saved_bytes(net: nn.Module, x: Tensor) -> int:
    """What a training step keeps for its way back, weights left out."""
    own = {p.data_ptr() for p in net.parameters()}
    kept: dict[int, int] = {}

    def keep(t: Tensor) -> Tensor:
        if t.data_ptr() not in own:
            kept[t.data_ptr()] = t.untyped_storage().nbytes()
        return t

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        output = net.train()(x)
    assert heads_of(output)
    return sum(kept.values())


@pytest.mark.parametrize("name", list_networks())
def test_checkpointing_keeps_less(name: str) -> None:
    x = torch.randn(1, 2, 64, 64)
    assert saved_bytes(small(name, 2, use_checkpoint=True), x) < 0.7 * saved_bytes(small(name, 2), x)


@pytest.mark.parametrize("name", list_networks())
def test_resolves_in_a_monai_config_by_short_name_full_path_and_registry(name: str) -> None:
    cls = MEMBERS[name].network
    arguments = {"spatial_dims": 2, "in_channels": 1, "out_channels": 2, "features": [4, 8, 8, 8]}
    targets: Sequence[dict[str, Any]] = (
        {"_target_": cls.__name__},
        {"_target_": f"{cls.__module__}.{cls.__qualname__}"},
        {"_target_": "monai_unetfamily.nets.create_network", "name": name},
    )
    for target in targets:
        parser = ConfigParser({"imports": ["$import monai_unetfamily.nets"], "network_def": target | arguments})
        parser.get_parsed_content("imports")
        assert type(parser.get_parsed_content("network_def")) is cls


def test_classes_are_public_names_of_nets() -> None:
    assert {"SkipFCN", "PlainUNet", "UNetPlusPlus", "UNet3Plus"} <= set(nets.__all__)
    classes = {name: found for name in nets.__all__ if isinstance(found := getattr(nets, name), type)}
    assert all(found.__name__ == name for name, found in classes.items())


BAD = [
    ({"name": "unet4"}, "unet4.*allowed are.*unet3plus"),
    ({"spatial_dims": 4}, "spatial_dims is 4; allowed are 2 and 3"),
    ({"in_channels": 0}, "in_channels is 0"),
    ({"out_channels": 0}, "out_channels is 0"),
    ({"features": ()}, "features is"),
    ({"features": [8, "16", 8, 8]}, "features is .*'16'"),
    ({"features": 32}, "features is 32; give one width"),
    ({"strides": "two"}, "strides is 'two'; give a whole number"),
    ({"strides": [2, 2.0, 2]}, "strides is .*whole number"),
    ({"strides": [2, 2, 2, 2, 2]}, "strides has 5 entries"),
    ({"kernel_size": [(3, 3, 3)] * 4}, "kernel_size"),
    ({"widths": 3}, "no option widths; allowed are .*features"),
    ({"preset": "papers"}, "allowed is 'paper'"),
    ({"preset": "paper", "norm": "batch"}, "fixes norm; it leaves .*deep_supervision"),
    ({"norm": "bach"}, "norm is 'bach'; allowed is a name.*BATCH"),
    ({"act": ("relu", {"slope": 1})}, "act is"),
    ({"kernel_size": 2}, "only odd"),
    ({"in_channels": 2.0}, "in_channels is 2.0; a whole number"),
    ({"norm": ("group", {"num_groups": 8}), "features": [8, 16, 12, 16]}, "norm is .*divisible"),
]


@pytest.mark.parametrize(("change", "message"), BAD)
@pytest.mark.parametrize("name", list_networks())
def test_bad_arguments_say_what_is_allowed(name: str, change: dict[str, Any], message: str) -> None:
    arguments = {"name": name, "spatial_dims": 2, **SMALL}
    with pytest.raises(ValueError, match=message):
        create_network(**arguments | change)


@pytest.mark.parametrize("name", list_networks())
@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 3, 16, 16), r"takes \(N, 2"),
        ((1, 2, 16, 16, 16), "2 spatial axes"),
        ((1, 2, 8, 8), "instance norm needs two"),
    ],
)
def test_bad_inputs_say_what_fits(name: str, shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small(name, 2)(torch.zeros(shape))


@pytest.mark.parametrize("name", list_networks())
def test_batch_norm_trains_on_two_voxels_or_more(name: str) -> None:
    net = small(name, 2, norm="batch")
    x = torch.randn(1, 2, 8, 8)
    with pytest.raises(ValueError, match="batch norm needs two"):
        net.train()(x)
    assert heads_of(net.train()(x.repeat(2, 1, 1, 1)))[0].shape == (2, 3, 8, 8)
    assert net.eval()(x).shape == (1, 3, 8, 8)


@pytest.mark.parametrize("name", list_networks())
def test_smaller_than_the_deepest_grid_is_padded_or_refused(name: str) -> None:
    net = small(name, 2)
    if name.startswith("fcn"):
        assert net(torch.zeros(1, 2, 3, 16)).shape == (1, 3, 3, 16)
        return
    with pytest.raises(ValueError, match=r"at least \(8, 8\).*pad the image"):
        net(torch.zeros(1, 2, 3, 16))

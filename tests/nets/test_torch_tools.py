"""Tools that act through a module's call reach every layer of every network, and change no result by being there.

The fast forms read weights directly, so a layer with a hook, a parametrization or a replaced module must be called.
"""

import copy
from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

import pytest
import torch
from monai.visualize import GradCAM
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd
from torch.nn.utils import parametrizations, prune, spectral_norm, weight_norm

from monai_unetfamily.nets import GuidedOutput, list_networks
from tests.support.family import heads_of, small
from tests.support.tiers import sampled

NETWORKS = sampled(product(list_networks(), (2, 3)), ("fcn8s", 2), ("unet", 3), ("unet3plus", 2))
OPTIONS: dict[str, dict[str, Any]] = {
    "unet": {"block": "residual", "deep_supervision": True},
    "unet_e": {"mode": "accurate"},
    "unetplusplus": {"deep_supervision": True},
    "unet3plus": {"deep_supervision": True, "cgm": True},
}
OUT_OF_PLACE = ("leakyrelu", {"inplace": False})


def network_of(name: str, dims: int, **options: Any) -> nn.Module:
    return small(name, dims, **OPTIONS.get(name, {}) | options).train()


def image(dims: int, batch: int = 2) -> Tensor:
    return torch.randn(batch, 2, *[24] * dims)


def outputs(network: nn.Module, x: Tensor) -> list[Tensor]:
    output = network(x)
    presence = [output.presence] if isinstance(output, GuidedOutput) else []
    return [*heads_of(output), *presence]


def loss_of(tensors: list[Tensor]) -> Tensor:
    return torch.stack([tensor.square().mean() for tensor in tensors]).sum()


def layers_of(network: nn.Module) -> dict[str, nn.Module]:
    """Convolutions and norms with weights that training may change."""
    modules = {name: m for name, m in network.named_modules() if isinstance(m, _ConvNd | _NormBase)}
    return {name: m for name, m in modules.items() if any(p.requires_grad for p in m.parameters())}


def convolutions_of(network: nn.Module) -> Iterator[_ConvNd]:
    yield from (m for m in layers_of(network).values() if isinstance(m, _ConvNd))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "dims"), NETWORKS)
@pytest.mark.parametrize("training", [True, False])
def test_forward_hooks_see_every_convolution_and_norm_and_change_nothing(name: str, dims: int, training: bool) -> None:
    network, x = network_of(name, dims).train(training), image(dims)
    if training and name == "unet3plus":
        network.cgm.dropout.p = 0.0  # type: ignore[union-attr]
    before = outputs(network, x)
    seen: set[str] = set()
    for key, layer in layers_of(network).items():
        layer.register_forward_hook(lambda _layer, _inputs, _output, key=key: seen.add(key))
    after = outputs(network, x)
    unused = {key for key in layers_of(network) if not training and "auxiliary" in key}
    assert seen | unused == layers_of(network).keys()
    for a, b in zip(before, after, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "dims"), NETWORKS)
def test_full_backward_hooks_see_every_convolution_and_norm(name: str, dims: int) -> None:
    network = network_of(name, dims, act=OUT_OF_PLACE)
    assert not any(getattr(module, "inplace", False) for module in network.modules())
    seen: set[str] = set()
    for key, layer in layers_of(network).items():
        layer.register_full_backward_hook(lambda _layer, _inputs, _outputs, key=key: seen.add(key))
    loss_of(outputs(network, image(dims).requires_grad_())).backward()
    assert seen == layers_of(network).keys()


class LowRank(nn.Module):
    """An adapter: a convolution plus a product of two thin ones (after LoRA, Hu et al. 2021)."""

    def __init__(self, base: _ConvNd) -> None:
        super().__init__()
        self.base = base
        make = [nn.Conv2d, nn.Conv3d][base.weight.ndim - 4]
        like = type(base) if base.transposed else make
        self.down = like(base.in_channels, 1, base.kernel_size, base.stride, base.padding)
        self.up = make(1, base.out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.base(x) + self.up(self.down(x))
        return y


def adapt(network: nn.Module) -> list[Tensor]:
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, _ConvNd) and child.weight.requires_grad:
                setattr(parent, name, LowRank(child))
    return [m.up.weight for m in network.modules() if isinstance(m, LowRank)]


def each_convolution(wrap: Callable[[_ConvNd], Any], key: str) -> Callable[[nn.Module], list[Tensor]]:
    def wrap_all(network: nn.Module) -> list[Tensor]:
        layers = list(convolutions_of(network))
        for layer in layers:
            wrap(layer)
        return [dict(layer.named_parameters())[key] for layer in layers]

    return wrap_all


TOOLS = {
    "prune": each_convolution(lambda layer: prune.l1_unstructured(layer, "weight", 0.3), "weight_orig"),
    "weight_norm": each_convolution(weight_norm, "weight_v"),
    "spectral_norm": each_convolution(spectral_norm, "weight_orig"),
    "parametrized weight_norm": each_convolution(parametrizations.weight_norm, "parametrizations.weight.original1"),
    "parametrized spectral_norm": each_convolution(parametrizations.spectral_norm, "parametrizations.weight.original"),
    "adapters": adapt,
}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm` is deprecated")
@pytest.mark.parametrize(("name", "dims"), NETWORKS)
@pytest.mark.parametrize("tool", TOOLS)
def test_every_convolution_learns_through_a_tool(name: str, dims: int, tool: str) -> None:
    network = network_of(name, dims)
    weights = TOOLS[tool](network)
    before = [weight.detach().clone() for weight in weights]
    optimizer = torch.optim.SGD(network.parameters(), 1.0)
    for _ in range(2):  # a second step shows that no graph is kept
        optimizer.zero_grad()
        loss_of(outputs(network, image(dims))).backward()
        optimizer.step()
    assert [torch.equal(a, b) for a, b in zip(before, weights, strict=True)] == [False] * len(weights)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "dims"), NETWORKS)
def test_class_activation_maps_of_every_layer(name: str, dims: int) -> None:
    class Scores(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network_of(name, dims).eval()

        def forward(self, x: Tensor) -> Tensor:
            return self.network(x).mean(tuple(range(2, x.ndim)))  # type: ignore[no-any-return]

    x = image(dims, batch=1).requires_grad_()
    used = [key for key in layers_of(Scores()) if "auxiliary" not in key and ".cgm." not in key]
    for layer in used:
        assert GradCAM(nn_module=Scores(), target_layers=layer)(x, class_idx=1).shape == (1, 1, *x.shape[2:])


@pytest.mark.slow
@pytest.mark.parametrize(("name", "dims"), NETWORKS)
def test_functional_gradients_are_autograd_s(name: str, dims: int) -> None:
    network, x = network_of(name, dims).eval().double(), image(dims).double()
    parameters = {key: p.detach() for key, p in network.named_parameters() if p.requires_grad}
    functional = grad(lambda values: loss_of(outputs(_Call(network, values), x)))(parameters)
    loss_of(outputs(network, x)).backward()
    for key, parameter in network.named_parameters():
        if parameter.requires_grad and parameter.grad is not None:
            torch.testing.assert_close(functional[key], parameter.grad)


class _Call(nn.Module):
    """A network that is called with these values in place of its parameters."""

    def __init__(self, network: nn.Module, values: dict[str, Tensor]) -> None:
        super().__init__()
        self.network, self.values = network, values

    def forward(self, x: Tensor) -> Any:
        return functional_call(self.network, self.values, x)


def test_an_ensemble_is_run_by_vmap() -> None:
    networks = [network_of("unet", 2, deep_supervision=False, block="plain").eval() for _ in range(2)]
    with torch.no_grad():
        for parameter in networks[1].parameters():
            parameter.add_(0.01)
    stacked = {k: torch.stack([n.state_dict()[k] for n in networks]) for k in networks[0].state_dict()}
    x, form = image(2), copy.deepcopy(networks[0])
    together = vmap(lambda values: functional_call(form, values, x))(stacked)
    for one, expected in zip(together, networks, strict=True):
        torch.testing.assert_close(one, expected(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("name", "dims"), NETWORKS)
@pytest.mark.parametrize("training", [True, False])
def test_an_empty_batch_gives_an_empty_batch(name: str, dims: int, training: bool) -> None:
    network, x = network_of(name, dims).train(training), image(dims)
    expected = [(0, *output.shape[1:]) for output in outputs(network, x)]
    got = outputs(network, x[:0])
    assert [tuple(output.shape) for output in got] == expected
    loss_of(got).backward()


@pytest.mark.parametrize(
    "act", ["relu", ("relu", {}), ("leakyrelu", {"negative_slope": 0.2}), ("relu", {"inplace": True})]
)
def test_activations_work_in_place_unless_inplace_is_false(act: Any) -> None:
    found = [m.inplace for m in small("unet", 2, act=act).modules() if isinstance(m, nn.ReLU | nn.LeakyReLU)]
    assert found
    assert all(found)

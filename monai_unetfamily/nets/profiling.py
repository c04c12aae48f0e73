"""What a member costs and how far it sees, measured on the network itself.

Cost is measured on meta tensors, which have sizes and no values: it takes neither the memory nor the time of the
network, and counts what the network does, not what a formula says of it.
"""

import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate, count
from math import prod
from operator import mul
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from monai_unetfamily.nets.layers import SPATIAL_DIMS, Axes
from monai_unetfamily.nets.registry import MEMBERS, create_network

# What makes a copy of a network thin and linear; each where the option exists. A guide would look at the whole image.
_LINEAR: dict[str, Any] = {"skip_channels": 1, "act": None, "norm": None, "dropout": 0.0, "cgm": False}
_POOLS: dict[type[nn.Module], type[nn.Module]] = {nn.MaxPool2d: nn.AvgPool2d, nn.MaxPool3d: nn.AvgPool3d}


@dataclass(frozen=True)
class Profile:
    """What a network costs for one image of `size` voxels in float32, and how far it sees.

    Attributes:
        name, preset, size: what was measured.
        parameters: numbers that training may change.
        macs: multiply-accumulate operations of the convolutions, transposed ones included, in the `eval()` pass, each
            at its full size (UNet 3+ does less: `upsampling`); interpolation, pooling, norm and activation are not
            counted.
        inference_bytes: the most bytes of tensors that live at once in the `eval()` pass: image, maps and logits.
        training_bytes: the same over forward and backward pass in `train()`, with what autograd keeps and the
            gradients of maps. Not counted, in both: weights, their gradients and the optimizer's state; the loss;
            a convolution's working space; what an allocator adds.
        strides: voxels of the image to one of each stage's grid, per axis, finest stage first.
        nodes: blocks that compute a node of the paper's graph.
        receptive_field: voxels of the image, per axis, between the first and the last that can change one voxel of the
            logits, both included; the largest over that voxel's places. What a norm's statistics and a guide take from
            the whole image is left out.
    """

    name: str
    preset: str | None
    size: Axes
    parameters: int
    macs: int
    inference_bytes: int
    training_bytes: int
    strides: tuple[Axes, ...]
    nodes: int
    receptive_field: Axes


def profile_network(
    name: str, *, size: Sequence[int], in_channels: int, out_channels: int, preset: str | None = None, **options: Any
) -> Profile:
    """Measure a member of the family; `create_network` documents the arguments, `size` is voxels per axis.

    Raises:
        ValueError: for a name, an option or a size that cannot work; the message says what is allowed.

    >>> profile = profile_network("unet3plus", size=(256, 256), in_channels=3, out_channels=1, preset="paper")
    >>> profile.parameters, round(profile.macs / 1e9, 1)
    (26971777, 197.7)
    """
    if len(size) not in SPATIAL_DIMS or min(size) < 1:
        raise ValueError(f"size is {tuple(size)}; two or three axes, of a voxel or more each, are allowed.")
    with torch.device("meta"):
        network = create_network(
            name, spatial_dims=len(size), in_channels=in_channels, out_channels=out_channels, preset=preset, **options
        )
    shape = (1, in_channels, *size)
    arguments = MEMBERS[name].arguments(len(size), preset, options)
    strides = MEMBERS[name].strides(len(size), preset, options)
    return Profile(
        name=name,
        preset=preset,
        size=tuple(size),
        parameters=sum(p.numel() for p in network.parameters()),
        macs=count_macs(network, shape),
        inference_bytes=_peak_of_inference(network, shape),
        training_bytes=peak_of_training(network, shape),
        strides=_from_the_image(strides, len(size)),
        nodes=sum(len(cast(nn.ModuleList, getattr(network, nodes))) for nodes in MEMBERS[name].nodes),
        receptive_field=_receptive_field(name, strides, arguments, len(size)),
    )


def count_macs(network: nn.Module, shape: Sequence[int]) -> int:
    """Multiply-accumulate operations of the `eval()` pass on an image (N, C, *spatial), as `Profile` counts them.

    The network is left in `eval()`.

    >>> count_macs(nn.Conv2d(1, 8, kernel_size=3, padding=1, device="meta"), (1, 1, 10, 10))
    7200
    """
    from torch.utils.flop_counter import FlopCounterMode  # loads triton where it is installed

    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network.eval()(_image(network, shape))
    return counter.get_total_flops() // 2


def profile_rows(profiles: Sequence[Profile]) -> list[list[str]]:
    """A table of profiles, the header first; a MiB is 2^20 bytes, a receptive field alike along all axes is one number.

    >>> profile = profile_network("unet", size=(256, 256), in_channels=1, out_channels=1, features=(32, 64))
    >>> profile_rows([profile])[1]
    ['unet', 'default', '101,473', '3.48', '44.3', '134.8', '2', '3', '18']
    """
    memory = ["inference MiB", "training MiB"]
    header = ["network", "preset", "parameters", "GMAC", *memory, "stages", "nodes", "receptive field"]
    return [header, *map(_cells, profiles)]


def _cells(profile: Profile) -> list[str]:
    field = profile.receptive_field
    return [
        profile.name,
        profile.preset or "default",
        f"{profile.parameters:,}",
        f"{profile.macs / 1e9:.2f}",
        f"{profile.inference_bytes / 2**20:.1f}",
        f"{profile.training_bytes / 2**20:.1f}",
        str(len(profile.strides)),
        str(profile.nodes),
        str(field[0]) if len(set(field)) == 1 else " x ".join(map(str, field)),
    ]


def _from_the_image(strides: Sequence[Axes], spatial_dims: int) -> tuple[Axes, ...]:
    """The strides multiplied up.

    >>> _from_the_image([(1, 2), (2, 2)], 2)
    ((1, 1), (1, 2), (2, 4))
    """
    return tuple(accumulate(strides, lambda a, b: tuple(map(mul, a, b)), initial=(1,) * spatial_dims))


def _peak_of_inference(network: nn.Module, shape: Sequence[int]) -> int:
    with torch.no_grad(), _Lifetimes(network) as lifetimes:
        network.eval()(_image(network, shape))
    return lifetimes.peak()


def _from_ones(output: Any) -> None:
    heads = tree_leaves(output)
    torch.autograd.backward(heads, [torch.ones_like(head) for head in heads])


def peak_of_training(network: nn.Module, shape: Sequence[int], backward: Callable[[Any], None] = _from_ones) -> int:
    """The most bytes of tensors that live at once while an image (N, C, *spatial) goes forward and backward.

    As `Profile.training_bytes`, and what `backward`, which is given the network's output in `train()`, makes besides.

    >>> net = nn.Conv2d(1, 8, kernel_size=1, device="meta")
    >>> peak_of_training(net, (1, 1, 64, 64), lambda logits: logits.sum().backward()) // 2**10
    144
    """
    with _Lifetimes(network) as lifetimes:
        backward(network.train()(_image(network, shape)))
    return lifetimes.peak(without=[p.grad for p in network.parameters() if p.grad is not None])


def _image(network: nn.Module, shape: Sequence[int]) -> Tensor:
    first = next(network.parameters())
    return torch.zeros(*shape, device=first.device, dtype=first.dtype)


class _Lifetimes(TorchDispatchMode):
    """Follows every storage that operations make, from its birth to its death; the network's own are none of them."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self._events: list[tuple[int, int]] = []  # (storage's number, its bytes at birth, the same negative at death)
        self._numbers = count()
        own = [tensor.untyped_storage() for tensor in (*network.parameters(), *network.buffers())]
        self._alive: dict[int, tuple[int, Any]] = {id(storage): (-1, storage) for storage in own}

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self._follow(tensor.untyped_storage())
        return result

    def _follow(self, storage: torch.UntypedStorage) -> None:
        key = id(storage)
        if key not in self._alive:
            number = next(self._numbers)
            self._events.append((number, storage.nbytes()))
            self._alive[key] = number, weakref.ref(storage, partial(self._end, key, number, storage.nbytes()))

    def _end(self, key: int, number: int, size: int, _: object) -> None:
        self._events.append((number, -size))
        del self._alive[key]

    def peak(self, without: Sequence[Tensor] = ()) -> int:
        """The most bytes that lived at once; those of the tensors `without`, which still live, are left out."""
        left_out = {self._alive[id(tensor.untyped_storage())][0] for tensor in without}
        return max(accumulate(size for number, size in self._events if number not in left_out))


def _receptive_field(name: str, strides: Sequence[Axes], arguments: dict[str, Any], spatial_dims: int) -> Axes:
    """Measure the field as `Profile` states it, one axis at a time, the others being one voxel wide.

    In a copy of the network that has width 1, is linear, has weights of one and pools by the mean, a logit sees the
    voxels where its gradient is not zero.
    """
    fields = []
    for axis in range(spatial_dims):
        along = [tuple(s if a == axis else 1 for a, s in enumerate(stride)) for stride in strides]
        network = _linear_copy(name, spatial_dims, arguments | {"features": (1,) * (len(along) + 1), "strides": along})
        fields.append(_extent(network, axis, spatial_dims, period=prod(stride[axis] for stride in along)))
    return tuple(fields)


def _linear_copy(name: str, spatial_dims: int, arguments: dict[str, Any]) -> nn.Module:
    linear = {key: value for key, value in _LINEAR.items() if key in arguments}
    with torch.random.fork_rng(devices=[]):  # the caller's random numbers stay as they are
        network = MEMBERS[name].network(spatial_dims, 1, 1, **arguments | linear)
    for parameter in network.parameters():
        nn.init.ones_(parameter)
    for path, module in list(network.named_modules()):
        if type(module) in _POOLS:
            network.set_submodule(path, _POOLS[type(module)](module.kernel_size, module.stride))
    return network.double().eval()


def _extent(network: nn.Module, axis: int, spatial_dims: int, period: int) -> int:
    """Voxels along `axis` that one logit depends on: the most over its places within one period of the grids."""
    places = torch.arange(period)
    for length in (8 * period << doublings for doublings in range(8)):
        x = torch.zeros(period, 1, *(length if a == axis else 1 for a in range(spatial_dims)), dtype=torch.float64)
        logits = network(x.requires_grad_()).flatten(1)
        (gradient,) = torch.autograd.grad(logits[places, length // 2 + places].sum(), x)  # one place an image
        seen = gradient.flatten(1) != 0
        first, last = seen.int().argmax(1), length - 1 - seen.flip(1).int().argmax(1)
        if first.min() >= period and last.max() < length - period:  # no edge cuts it
            return int((last - first).max()) + 1
    raise ValueError(f"one logit depends on more than {length - 2 * period} voxels of axis {axis}: on all, it seems.")

"""Tensors that claim to be on a CUDA device, for tests on a machine without one.

torch's `FakeTensorMode` has tensors with a shape, a type and a device and without values, and refuses an operation on
tensors of two devices as CUDA does. In a CPU build autograd cannot run on them: it asks for the CUDA device's streams.
A `StandIn` therefore wraps a fake tensor and shows autograd the device "meta" in place of "cuda", while Python code
sees "cuda:0".

What is computed on the CPU alone runs as ever. Of a tensor that comes from the device no value is known: a question
such as `if mask.any():` takes the answer that the test gives, a mask selects one element, numbers are 0, arrays ones.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import cycle
from typing import Any
from unittest import mock

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch._subclasses import FakeTensor, FakeTensorMode
from torch._subclasses.fake_tensor import unset_fake_temporarily
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)

_aten = torch.ops.aten
_VALUES = (_aten._local_scalar_dense.default, _aten.item.default)
_DECISIONS = (_aten.equal.default, _aten.allclose.default)
_INDEXED = (_aten.index.Tensor, _aten.index_put.default, _aten.index_put_.default, _aten._index_put_impl_.default)


class StandIn(Tensor):
    """A tensor without values, on the CPU or on `CUDA`; exists within `stand_ins` alone."""

    fake: FakeTensor
    is_meta = False

    @staticmethod
    def __new__(cls, fake: FakeTensor) -> "StandIn":
        """Wrap a fake tensor."""
        shown = torch.device("meta") if fake.device.type == "cuda" else CPU
        self: StandIn = Tensor._make_wrapper_subclass(
            cls, fake.shape, fake.stride(), fake.storage_offset(), dtype=fake.dtype, device=shown
        )
        self.fake = fake
        return self

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        """The device that is claimed."""
        return self.fake.device

    @property
    def is_cuda(self) -> bool:  # type: ignore[override]
        """Whether that is a CUDA device."""
        return self.device.type == "cuda"

    def __repr__(self, *, tensor_contents: Any = None) -> str:  # type: ignore[override]
        """Shape, type and device."""
        return f"StandIn({tuple(self.shape)}, {self.dtype}, {self.device})"

    def numpy(self, *, force: bool = False) -> NDArray[Any]:
        """Ones; of a tensor on a CUDA device torch's own error."""
        if self.is_cuda and not force:
            raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() first.")
        return np.ones(self.shape, str(self.dtype).removeprefix("torch."))

    def tolist(self) -> Any:
        """Ones."""
        return np.ones(self.shape).tolist()

    def as_subclass(self, cls: type) -> Tensor:  # type: ignore[override]
        """Itself: a MetaTensor that goes to the device loses its meta data."""
        return self

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        """Refuse what is done without the mode."""
        raise RuntimeError(f"{func} of a stand-in outside of stand_ins().")


class _StandInMode(TorchDispatchMode):
    """Runs an operation on CPU tensors as ever, and makes stand-ins of the others' results."""

    def __init__(self, fakes: FakeTensorMode, answers: Sequence[bool]) -> None:
        super().__init__()
        self.fakes, self.answers = fakes, cycle(answers)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if not any(map(_is_elsewhere, tree_leaves((args, kwargs)))):
            with unset_fake_temporarily():
                return func(*args, **kwargs)
        if func in _VALUES:
            return next(self.answers) if args[0].dtype == torch.bool else 0
        if func in _DECISIONS:
            return next(self.answers)
        if func is _aten.masked_select.default:
            func, args = _aten.index.Tensor, (args[0], [args[1]])
        args, kwargs = _mapped(self._adopted, args), _mapped(self._adopted, kwargs)
        if "conv" in func.__name__:
            _require_one_device(args)
        with self.fakes:
            results = func(*_indices(func, _mapped(_fake, args)), **_mapped(_fake, kwargs))
        wrapped = _mapped(_stand_in, results)
        return return_and_correct_aliasing(func, args, kwargs, wrapped) if func._schema.is_mutable else wrapped

    def _adopted(self, thing: Any) -> Any:
        """What an operation is given, with "cuda" in place of the "meta" that C++ code took a stand-in's device for."""
        if isinstance(thing, torch.device):
            return CUDA if thing.type == "meta" else thing
        if not isinstance(thing, Tensor) or isinstance(thing, StandIn):
            return thing
        with self.fakes:
            fake: Any = self.fakes.from_tensor(thing)
            return _stand_in(torch.empty_like(fake, device=CUDA) if thing.is_meta else fake)


def _require_one_device(args: Any) -> None:
    """Refuse an image and a kernel on two devices: torch's fake convolution looks at the image's alone."""
    devices = {thing.device for thing in tree_leaves(args) if isinstance(thing, Tensor)}
    if len(devices) > 1:
        raise RuntimeError(f"Expected all tensors to be on the same device, but found {devices}")


def _is_elsewhere(thing: Any) -> bool:
    device = thing if isinstance(thing, torch.device) else thing.device if isinstance(thing, Tensor) else CPU
    return isinstance(thing, StandIn) or device.type != "cpu"


def _mapped(change: Callable[[Any], Any], thing: Any) -> Any:
    """Change each part of an operation's arguments or results; `tree_map` copies more than it needs."""
    if isinstance(thing, tuple | list):
        return type(thing)([_mapped(change, each) for each in thing])
    if isinstance(thing, dict):
        return {key: _mapped(change, value) for key, value in thing.items()}
    return change(thing)


def _fake(thing: Any) -> Any:
    return thing.fake if isinstance(thing, StandIn) else thing


def _stand_in(thing: Any) -> Any:
    return StandIn(thing) if isinstance(thing, FakeTensor) else thing


def _indices(func: Any, args: Any) -> Any:
    """The arguments of an operation, with one voxel's place instead of each mask among the indices."""
    if func not in _INDEXED:
        return args
    tensor, indices, *others = args
    places = [
        place
        for index in indices
        for place in (
            [torch.zeros(1, dtype=torch.int64, device=index.device)] * index.ndim
            if index is not None and index.dtype == torch.bool
            else [index]
        )
    ]
    return tensor, places, *others


@contextmanager
def stand_ins(answers: Sequence[bool] = (True,)) -> Iterator[None]:
    """Let every tensor that is made or used be a stand-in, and autocast believe that there is a CUDA device.

    Args:
        answers: to the questions that the code asks of boolean tensors, in order, and then again from the first.
    """
    fakes = FakeTensorMode(allow_non_fake_inputs=True)
    with ExitStack() as stack:
        stack.enter_context(mock.patch("torch.cuda.amp.common.amp_definitely_not_available", return_value=False))
        # the method's C++ code, which torch's decompositions call, asks for the device; the operation's does not
        stack.enter_context(mock.patch.object(FakeTensor, "copy_", lambda *args: _aten.copy_.default(*args)))
        stack.enter_context(fakes)
        stack.enter_context(_StandInMode(fakes, answers))
        yield


def assert_like_on_the_cpu(on_cuda: Any, on_cpu: Any) -> None:
    """Compare results: the same tensors, in shape and type, all of them on `CUDA`."""
    described = [tree_map(_described, results) for results in (on_cuda, on_cpu)]
    assert described[0] == described[1]
    assert {each.device for each in tree_leaves(on_cuda) if isinstance(each, Tensor)} == {CUDA}


def _described(thing: Any) -> Any:
    return (tuple(thing.shape), thing.dtype) if isinstance(thing, Tensor) else thing

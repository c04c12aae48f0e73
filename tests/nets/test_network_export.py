"""The eval form leaves Python: torch.export, ONNX in ONNX Runtime, tracing; for every member, batch and size.

To ONNX the 3-D forms go here; 2-D networks go there as bundles, in bundles/test_monai_tools.py.
"""

import warnings
from pathlib import Path
from typing import Any

import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from monai_unetfamily.nets import UNet3Plus, list_networks
from tests.support.family import small
from tests.support.tiers import sampled

pytestmark = pytest.mark.slow

# torch.export takes a size of 1 for a constant, so every axis of the deepest grid has 2 voxels or more here
SIZES = {2: [(16, 16), (19, 25), (40, 32)], 3: [(16, 16, 16), (17, 25, 19)]}
FORMS = [
    *((name, {}) for name in list_networks()),
    ("unet", {"block": "residual", "upsample": "linear", "use_checkpoint": True}),
    ("unetplusplus", {"mode": "accurate"}),
    ("unet3plus", {"cgm": True, "encoder": "residual"}),
]
GUIDED = FORMS[-1:]  # every kind of layer: `make test` exports this one, `make test-all` each
FEWER = {"fcn32s", "fcn16s", "unet_e", "unet_plus"}  # the nodes of another form here: the exporter to ONNX is slow
IDS = ["-".join([name, *options]) for name, options in FORMS]


def supervised(name: str, dims: int, options: dict[str, Any]) -> nn.Module:
    stages = 4 if name.startswith("fcn") else 3  # the least that has every kind of node: exporters are slow
    return small(name, dims, features=(4, 8, 8, 8)[:stages], deep_supervision=True, **options).eval()


def exported(net: nn.Module, dims: int) -> torch.export.ExportedProgram:
    free = dict.fromkeys([0, *range(2, dims + 2)], torch.export.Dim.AUTO)
    return torch.export.export(net, (torch.randn(2, 2, *[32] * dims),), dynamic_shapes=(free,))


def session(program: torch.export.ExportedProgram, path: Path) -> onnxruntime.InferenceSession:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter's own registry
        onnx = torch.onnx.export(program, dynamo=True, verbose=False)
    if onnx is None:
        pytest.fail("the exporter returned no program")
    onnx.save(path)
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


def run(session: onnxruntime.InferenceSession, x: Tensor) -> Tensor:
    [output] = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    return torch.from_numpy(output)


@pytest.mark.parametrize("dims", sampled([2, 3], 2))
@pytest.mark.parametrize(("name", "options"), sampled(FORMS, *GUIDED), ids=IDS)
@torch.no_grad()
def test_torch_export_and_onnx_equal_eager_at_any_batch_and_size(
    name: str, options: dict[str, Any], dims: int, tmp_path: Path
) -> None:
    net = supervised(name, dims, options)
    program = exported(net, dims)
    module = program.module()
    onnx = session(program, tmp_path / "net.onnx") if dims == 3 and name not in FEWER else None
    for size in SIZES[dims]:
        for batch in (1, 3):
            x = torch.randn(batch, 2, *size)
            expected = net(x)
            torch.testing.assert_close(module(x), expected)
            if onnx is not None:
                torch.testing.assert_close(run(onnx, x), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("background", sampled([True, False], True))
@torch.no_grad()
def test_the_guide_gates_in_onnx_as_in_eager(background: bool, tmp_path: Path) -> None:
    net = supervised("unet3plus", 2, {"cgm": True, "background": background})
    assert isinstance(net, UNet3Plus)
    assert net.cgm is not None
    x = torch.randn(2, 2, 16, 24)
    x[1] *= 5  # unlike the first
    presence = net.cgm(net.nodes(x)[-1]).sigmoid()
    net.cgm.threshold.copy_(presence.mean(dim=0))  # between the two: each class is in one image and not in the other
    absent = presence < net.cgm.threshold
    assert (absent[0] != absent[1]).all()
    onnx = session(exported(net, 2), tmp_path / "net.onnx")
    expected = net(x)
    torch.testing.assert_close(run(onnx, x), expected, rtol=0, atol=1e-4)
    ungated = net.head(net.nodes(x)[0])
    changed = (expected != ungated)[:, int(background) :].flatten(2).any(dim=2)
    assert torch.equal(changed, absent)


@pytest.mark.parametrize("dims", sampled([2, 3], 2))
@pytest.mark.parametrize(("name", "options"), FORMS, ids=IDS)
@pytest.mark.filterwarnings("ignore")  # tracing is deprecated in torch, and still what ckpt_export uses
@torch.no_grad()
def test_a_trace_equals_eager_at_any_batch_and_size(name: str, options: dict[str, Any], dims: int) -> None:
    net = supervised(name, dims, options)
    traced = torch.jit.trace(net, torch.randn(1, 2, *[32] * dims))
    for size in SIZES[dims]:
        x = torch.randn(2, 2, *size)
        torch.testing.assert_close(traced(x), net(x))

"""Mixed precision on a CPU: near to float32, in the network's own kind of output, and only where the CPU has it."""

import pytest
import torch
from family import small
from torch import Tensor

from monai_unetfamily.inference import precision
from monai_unetfamily.inference.precision import MixedPrecisionInferer
from monai_unetfamily.nets import GuidedOutput, list_networks

X = torch.randn(1, 2, 16, 24, generator=torch.Generator().manual_seed(0))


@pytest.fixture(params=[True, False], ids=["bfloat16", "float32"])
def made_for_it(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    monkeypatch.setattr(precision, "cpu_has_bfloat16", lambda: request.param)
    return bool(request.param)


@pytest.mark.parametrize("name", list_networks())
def test_logits_are_float32_and_near_those_of_the_network(name: str, made_for_it: bool) -> None:
    network = small(name, 2).eval()
    exact, mixed = network(X), MixedPrecisionInferer()(X, network)
    assert mixed.dtype == torch.float32
    assert torch.equal(mixed, exact) != made_for_it
    assert (mixed - exact).abs().max() < 0.1 * exact.abs().max()


def test_every_head_and_the_guide_come_through(made_for_it: bool) -> None:
    network = small("unet3plus", 2, deep_supervision=True, cgm=True).train()
    output = MixedPrecisionInferer()(X, network)
    assert isinstance(output, GuidedOutput)
    assert isinstance(output.logits, list)
    assert {each.dtype for each in (*output.logits, output.presence)} == {torch.float32}
    loss: Tensor = sum(each.square().mean() for each in (*output.logits, output.presence))  # type: ignore[assignment]
    loss.backward()
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in network.parameters())

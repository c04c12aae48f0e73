"""Every member under autocast, in float16 and bfloat16: near to float32, with finite gradients."""

import pytest
import torch
from torch import Tensor

from monai_unetfamily.nets import list_networks
from monai_unetfamily.nets.layers import SmallGridsInFloat32
from tests.support.family import SIZES, heads_of, small

DIGITS = {torch.float16: 2e-2, torch.bfloat16: 1e-1}  # of the largest logit: 10 and 7 bits behind some 20 layers


@pytest.mark.parametrize("dtype", DIGITS)
@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("name", list_networks())
def test_autocast_is_near_to_float32(name: str, dims: int, dtype: torch.dtype) -> None:
    extra = {"cgm": True, "presence_threshold": 0.0} if name == "unet3plus" else {}
    net = small(name, dims, deep_supervision=True, **extra)
    x = torch.randn(1, 2, *SIZES[dims][0])
    with torch.autocast("cpu", dtype), SmallGridsInFloat32():
        output = net.train()(x)
        loss = sum((h.float() ** 2).mean() for h in heads_of(output))
    assert isinstance(loss, Tensor)
    loss.backward()
    gradients = [p.grad for key, p in net.named_parameters() if not key.startswith("cgm")]
    assert all(g is not None and torch.isfinite(g).all() for g in gradients)
    with torch.no_grad():
        exact = net.eval()(x)
        with torch.autocast("cpu", dtype):
            close = net(x)
    assert close.dtype == dtype
    assert (close.float() - exact).abs().max() < DIGITS[dtype] * exact.abs().max()

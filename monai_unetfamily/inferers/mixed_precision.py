"""Mixed precision where a CPU is made for it, as a MONAI inferer that bundles name for training."""

from collections.abc import Callable
from typing import Any

import torch
from monai.inferers import SimpleInferer
from torch import Tensor

from monai_unetfamily.nets.layers import SmallGridsInFloat32


class MixedPrecisionInferer(SimpleInferer):
    """Run a network in bfloat16 where the inputs are on a CPU with instructions for it; logits come back in float32.

    The same exponents as float32, so that no gradient needs scaling. Losses are computed in float32, and weights stay
    so; grids smaller than a kernel are convolved in float32, too (`nets.small_grids`). On other CPUs and on GPUs the
    network runs as it is; there MONAI's own `amp` is the switch.

    >>> MixedPrecisionInferer()(torch.ones(1, 1, 4), torch.nn.Conv1d(1, 2, 3)).dtype
    torch.float32
    """

    def __call__(self, inputs: Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """What the network returns: a tensor, or sequences of them."""
        if inputs.device.type != "cpu" or not cpu_has_bfloat16():
            return super().__call__(inputs, network, *args, **kwargs)
        with torch.autocast("cpu", dtype=torch.bfloat16), SmallGridsInFloat32():
            return _in_float32(network(inputs, *args, **kwargs))


def cpu_has_bfloat16() -> bool:
    """Whether this CPU multiplies bfloat16 (AVX-512 BF16 or AMX); emulated, it would be slower than float32."""
    return bool(torch.cpu._is_avx512_bf16_supported())  # torch has no public name for it in all its versions


def _in_float32(output: Any) -> Any:
    if isinstance(output, Tensor):
        return output.float()
    parts = [_in_float32(part) for part in output]
    return type(output)(*parts) if hasattr(output, "_fields") else type(output)(parts)

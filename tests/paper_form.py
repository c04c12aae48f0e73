"""UNet 3+ as its paper computes it, every branch interpolated first and convolved at full size: the oracle."""

from collections.abc import Sequence
from typing import TypeVar, cast

from torch import Tensor, nn

from monai_unetfamily.nets.blocks import Block, UpsampleConv, resize

Network = TypeVar("Network", bound=nn.Module)


class PaperUpsampleConv(Block):
    """`UpsampleConv` in the plain form: conv(resize(x, size)), with the same parameters under the same names."""

    def __init__(self, fast: UpsampleConv) -> None:
        super().__init__(fast.use_checkpoint)
        self.conv = fast.conv
        self.train(fast.training)

    def compute(self, x: Tensor, size: Sequence[int]) -> Tensor:
        return cast(Tensor, self.conv(resize(x, size)))


def paper_form(network: Network) -> Network:
    """Change every `UpsampleConv` of the network to the plain form, in place; its parameters stay the same objects."""
    for path, module in list(network.named_modules()):
        if isinstance(module, UpsampleConv):
            network.set_submodule(path, PaperUpsampleConv(module))
    return network

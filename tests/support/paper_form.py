"""The plain form of a network, which its fast form must equal: the oracle of tests, and the "before" of benchmarks.

Every map is interpolated to full size first, concatenated, and convolved there; norm and activation are torch's own,
one after the other, in torch's usual layout.
"""

from typing import TypeVar

from monai.networks.blocks.convolutions import Convolution
from torch import Tensor, nn

from monai_unetfamily.nets.layers.convolution import ConvLayer, Head2d, Head3d, joined
from monai_unetfamily.nets.layers.upsampling import Upsampled

Network = TypeVar("Network", bound=nn.Module)


class PlainLayer(ConvLayer):
    """MONAI's own `Convolution` of the concatenated maps."""

    def forward(self, *maps: Tensor | Upsampled) -> Tensor:
        return Convolution.forward(self, joined(maps))


def paper_form(network: Network) -> Network:
    """Change the network to the plain form, in place; its parameters stay the same objects under the same names."""
    plain = {ConvLayer: PlainLayer, Head2d: nn.Conv2d, Head3d: nn.Conv3d}
    for module in network.modules():
        if type(module) in plain:
            module.__class__ = plain[type(module)]
        if isinstance(module, nn.ReLU):
            module.inplace = False  # as MONAI makes it; a leaky one is told otherwise by the members' own default
    return network

"""The networks of the family, each file its paper."""

from monai_unetfamily.nets.cgm import ClassificationGuide, GuidedOutput
from monai_unetfamily.nets.registry import create_network, list_networks
from monai_unetfamily.nets.unet3plus import UNet3Plus
from monai_unetfamily.nets.unetplusplus import UNetPlusPlus

__all__ = [
    "ClassificationGuide",
    "GuidedOutput",
    "UNet3Plus",
    "UNetPlusPlus",
    "create_network",
    "list_networks",
]

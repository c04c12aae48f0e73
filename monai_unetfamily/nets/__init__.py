"""The networks of the family, each file its paper."""

from monai_unetfamily.nets.cgm import ClassificationGuide, GuidedOutput
from monai_unetfamily.nets.fcn import SkipFCN
from monai_unetfamily.nets.registry import create_network, list_networks
from monai_unetfamily.nets.unet import PlainUNet
from monai_unetfamily.nets.unet3plus import UNet3Plus
from monai_unetfamily.nets.unetplusplus import UNetPlusPlus

__all__ = [
    "ClassificationGuide",
    "GuidedOutput",
    "PlainUNet",
    "SkipFCN",
    "UNet3Plus",
    "UNetPlusPlus",
    "create_network",
    "list_networks",
]

"""The networks of the family, each file its paper."""

from monai_unetfamily.nets.arguments import per_stage
from monai_unetfamily.nets.cgm import ClassificationGuide, GuidedOutput
from monai_unetfamily.nets.fcn import SkipFCN
from monai_unetfamily.nets.profiling import count_macs, peak_of_training, profile_network, profile_rows
from monai_unetfamily.nets.registry import MEMBERS, create_network, list_networks, read_options
from monai_unetfamily.nets.unet import PlainUNet
from monai_unetfamily.nets.unet3plus import UNet3Plus
from monai_unetfamily.nets.unetplusplus import UNetPlusPlus

__all__ = [
    "MEMBERS",
    "ClassificationGuide",
    "GuidedOutput",
    "PlainUNet",
    "SkipFCN",
    "UNet3Plus",
    "UNetPlusPlus",
    "count_macs",
    "create_network",
    "list_networks",
    "peak_of_training",
    "per_stage",
    "profile_network",
    "profile_rows",
    "read_options",
]

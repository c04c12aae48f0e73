"""The network that a bundle's metadata chooses, for tools that read its inference config and no metadata."""

from pathlib import Path

from monai.bundle import ConfigParser
from torch import nn

from monai_unetfamily.bundles.metadata import read_metadata


def chosen_network(bundle_root: str) -> nn.Module:
    """Build the network that the metadata of a bundle chooses, without its weights.

    An inference config names it under "_meta_", which MONAI's own runs and this package replace by the metadata itself;
    MONAI Label does not, and gives `bundle_root` instead. It runs what the metadata names, as that config does.

    Raises:
        FileNotFoundError, ValueError: metadata that cannot be read.
        KeyError: metadata without a network.

    >>> from monai_unetfamily.bundles.metadata import find_bundle
    >>> type(chosen_network(str(find_bundle("hippocampus_mr")))).__name__
    'PlainUNet'
    """
    parser = ConfigParser({"_meta_": read_metadata(Path(bundle_root))})
    network: nn.Module = parser.get_parsed_content("_meta_#network")
    return network

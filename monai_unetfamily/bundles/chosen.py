"""The network that a bundle's metadata chooses, for tools that read its configs without the metadata."""

from pathlib import Path

from monai.bundle import ConfigParser
from torch import nn
from torch.nn.modules.module import _IncompatibleKeys

from monai_unetfamily.bundles.metadata import read_metadata


def chosen_network(bundle_root: str) -> nn.Module:
    """Build the network that the metadata of a bundle chooses, without its weights.

    A config refers to it under "_meta_", where MONAI and this package put the metadata. MONAI Label does not;
    `.ci/monai_label_task.py` has it call this. It runs what the metadata names, as that config does.

    MONAI Label offers its user each `models/*.pt`, and loads what fits of it, or nothing, with no more than a line in
    its log. So this network refuses to load other weights than its own, `strict` or not.

    Raises:
        FileNotFoundError, ValueError: metadata that cannot be read.
        KeyError: metadata without a network.

    >>> from monai_unetfamily.bundles.metadata import find_bundle
    >>> type(chosen_network(str(find_bundle("hippocampus_mr")))).__name__
    'PlainUNet'
    """
    parser = ConfigParser({"_meta_": read_metadata(Path(bundle_root))})
    network: nn.Module = parser.get_parsed_content("_meta_#network")
    network.register_load_state_dict_post_hook(_require_all)
    return network


def _require_all(network: nn.Module, differences: _IncompatibleKeys) -> None:
    """Refuse what `strict=False` would let pass: a network that keeps some of its random weights."""
    lacking, besides = differences.missing_keys, differences.unexpected_keys
    if lacking or besides:
        raise ValueError(
            f"these weights do not fit {type(network).__name__}: {len(lacking)} of its own are not among them, and "
            f"{len(besides)} are not its own; choose model.pt or model_best.pt, or those of the same network."
        )

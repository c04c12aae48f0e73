"""Choose, define and build the network of a bundle."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser
from torch import nn
from torch.nn.modules.module import _IncompatibleKeys

from monai_unetfamily.bundles.config import read_config
from monai_unetfamily.bundles.config_parts import expand
from monai_unetfamily.bundles.errors import reason_of
from monai_unetfamily.bundles.metadata import METADATA, config_file, read_metadata
from monai_unetfamily.bundles.trust import restricted_parser
from monai_unetfamily.io import atomic_file
from monai_unetfamily.nets import MEMBERS, list_networks

# Which network a bundle is: the one word of its metadata, and what it stands for.


_CHOSEN = "@_meta_#network"
_NETWORKS = "@_meta_#networks#"


def choose_network(root: Path, name: str, *, trust: bool = False) -> None:
    """Change the one word of a bundle's metadata that says which of its networks it is.

    A member of the family that the bundle does not define is added to it, with the current network's arguments as
    far as the member takes them.

    Raises:
        ValueError: what `check_network` raises; then nothing is changed.
    """
    _write(root, check_network(root, name, trust=trust))


def check_network(root: Path, name: str, *, trust: bool = False) -> dict[str, Any]:
    """The bundle's metadata with this network chosen, which has been built once; nothing is written.

    Raises:
        UntrustedBundleError: the network is none of MONAI's or this package's, and the bundle is not trusted.
        ValueError: where neither the bundle nor the family knows that network, or it cannot be built.

    >>> from monai_unetfamily.bundles import find_bundle
    >>> check_network(find_bundle("phantom_ct"), "fcn8s")["networks"]["fcn8s"]["features"]
    [8, 16, 32, 64]
    """
    metadata = read_metadata(root)
    networks = metadata.setdefault("networks", {})
    allowed = dict.fromkeys([*networks, *list_networks()])
    if name not in allowed:
        raise ValueError(f"network {name!r} is unknown to {root}; allowed are {', '.join(allowed)}.")
    if name not in networks:
        networks[name] = _like_the_current(root, metadata, name)
    metadata["network"] = f"{_NETWORKS}{name}"
    _require_buildable(root, metadata, name, trust=trust)
    return metadata


def network_definition(root: Path) -> dict[str, Any]:
    """The definition of the network that a bundle is: its `_target_` and arguments, as its metadata has them.

    Raises:
        ValueError: where the metadata has none, or the inference config defines the network itself.

    >>> from monai_unetfamily.bundles import find_bundle
    >>> network_definition(find_bundle("phantom_2d"))["features"]
    [8, 16, 32, 64]
    """
    file = config_file(root, "inference")
    given = read_config(root, "inference").get("network_def")
    if given != _CHOSEN:
        raise ValueError(f"{file}: network_def is {given!r}; {_CHOSEN!r} is needed: define the network in {METADATA}.")
    return _current(root, read_metadata(root))


def define_network(root: Path, name: str, definition: Mapping[str, Any], *, trust: bool = False) -> None:
    """Make a bundle's network the one of this definition, `_target_` and arguments, under a name in its metadata.

    Raises:
        UntrustedBundleError: the network is none of MONAI's or this package's, and the bundle is not trusted.
        ValueError: where it cannot be built; then nothing is changed.
    """
    metadata = read_metadata(root)
    metadata.setdefault("networks", {})[name] = dict(definition)
    metadata["network"] = f"{_NETWORKS}{name}"
    _require_buildable(root, metadata, name, trust=trust)
    _write(root, metadata)


def redefine_network(root: Path, changes: Mapping[str, Any], *, trust: bool = False) -> None:
    """Change arguments of the network that a bundle is, in its metadata.

    Raises:
        UntrustedBundleError: the network is none of MONAI's or this package's, and the bundle is not trusted.
        ValueError: where the metadata has no definition, or the network cannot be built; then nothing is changed.
    """
    metadata = read_metadata(root)
    _current(root, metadata).update(changes)
    _require_buildable(root, metadata, "the network", trust=trust)
    _write(root, metadata)


def reset_thresholds(root: Path, *, trust: bool = False) -> None:
    """Set the presence thresholds of a bundle's network back to 0.5, if it has any: they belong to its weights."""
    network = _chosen(read_metadata(root))
    if isinstance(network, dict) and "presence_threshold" in network:
        redefine_network(root, {"presence_threshold": 0.5}, trust=trust)


def _like_the_current(root: Path, metadata: dict[str, Any], name: str) -> dict[str, Any]:
    taken = {"spatial_dims", "in_channels", "out_channels", "preset", *MEMBERS[name].options}
    arguments = {key: value for key, value in _current(root, metadata).items() if key in taken}
    return {"_target_": "monai_unetfamily.nets.create_network", "name": name, **arguments}


def _current(root: Path, metadata: dict[str, Any]) -> dict[str, Any]:
    """The part of the metadata that defines the network."""
    current = _chosen(metadata)
    if not isinstance(current, dict):
        raise ValueError(
            f"{root / 'configs' / METADATA}: its network is {current!r}, which shows no arguments; define it under "
            f'"networks" there, by _target_ and arguments, and name it {_NETWORKS}NAME.'
        )
    return current


def _chosen(metadata: dict[str, Any]) -> Any:
    current = metadata.get("network")
    if isinstance(current, str) and current.startswith(_NETWORKS):
        return metadata.get("networks", {}).get(current.removeprefix(_NETWORKS))
    return current


def _require_buildable(root: Path, metadata: dict[str, Any], name: str, *, trust: bool) -> None:
    file = root / "configs" / METADATA
    config = expand({"_meta_": metadata, "network": metadata["network"]})
    parser = restricted_parser(config, ["network"], file, trust=trust)
    try:
        with torch.device("meta"):
            parser.get_parsed_content("network")
    except (RuntimeError, ValueError, TypeError, KeyError, ImportError) as error:
        raise ValueError(f"{file}: {name} cannot be built: {reason_of(error)}") from error


def _write(root: Path, metadata: dict[str, Any]) -> None:
    with atomic_file(root / "configs" / METADATA) as stream:
        stream.write(f"{json.dumps(metadata, indent=2)}\n".encode())


# The network that a bundle's metadata chooses, for tools that read its configs without the metadata.


def build_chosen_network(bundle_root: str) -> nn.Module:
    """Build the network that the metadata of a bundle chooses, without its weights.

    A config refers to it under "_meta_", where MONAI and this package put the metadata. MONAI Label does not;
    `.ci/monai_label_task.py` has it call this. It runs what the metadata names, as that config does.

    MONAI Label offers its user each `models/*.pt`, and loads what fits of it, or nothing, with no more than a line in
    its log. So this network refuses to load other weights than its own, `strict` or not.

    Raises:
        FileNotFoundError, ValueError: metadata that cannot be read.
        KeyError: metadata without a network.

    >>> from monai_unetfamily.bundles import find_bundle
    >>> type(build_chosen_network(str(find_bundle("hippocampus_mr")))).__name__
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

"""Which network a bundle is: the one word of its metadata, and what it stands for."""

import json
import re
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser

from monai_unetfamily.bundles.bundle import METADATA, read_metadata, reason_of
from monai_unetfamily.nets import list_networks
from monai_unetfamily.nets.registry import MEMBERS
from monai_unetfamily.volumes.files import atomic_file

_NETWORKS = "@_meta_#networks#"
_DECODER = json.JSONDecoder()


def choose_network(root: Path, name: str) -> None:
    """Change the one word of a bundle's metadata that says which of its networks it is.

    A member of the family that the bundle does not define is added to it, with the current network's arguments as
    far as the member takes them.

    Raises:
        ValueError: what `check_network` raises; then nothing is changed.
    """
    metadata = check_network(root, name)
    with atomic_file(root / "configs" / METADATA) as stream:
        stream.write(f"{json.dumps(metadata, indent=2)}\n".encode())


def check_network(root: Path, name: str) -> dict[str, Any]:
    """The bundle's metadata with this network chosen, which has been built once; nothing is written.

    Raises:
        ValueError: where neither the bundle nor the family knows that network, or it cannot be built.

    >>> from monai_unetfamily.bundles.bundle import find_bundle
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
    _require_buildable(root, metadata, name)
    return metadata


def forget_thresholds(root: Path) -> None:
    """Set the presence thresholds of a bundle's network back to 0.5, if it has any: they belong to its weights."""
    network = _current(read_metadata(root))
    if isinstance(network, dict) and "presence_threshold" in network:
        store_thresholds(root, 0.5)


def store_thresholds(root: Path, thresholds: float | Sequence[float]) -> None:
    """Write presence thresholds, one probability or one for each foreground class, into a bundle's network.

    The file is replaced whole, and not another byte of it changes.

    Raises:
        ValueError: where the metadata does not hold the network's arguments.
    """
    file = root / "configs" / METADATA
    text, metadata = file.read_text(encoding="utf-8"), read_metadata(root)
    network = _current(metadata)
    if not isinstance(network, dict):
        raise ValueError(f"{file}: its network is {network!r}; give its arguments there, which hold the thresholds.")
    start, stop = _span(text, str(metadata["network"]).removeprefix(_NETWORKS), network)
    changed = text[:start] + _with_entry(text[start:stop], "presence_threshold", thresholds) + text[stop:]
    with atomic_file(file) as stream:
        stream.write(changed.encode())


def _span(text: str, name: str, network: dict[str, Any]) -> tuple[int, int]:
    """Where this object stands in a JSON text, under its name, or under "network" itself."""
    for entry in re.finditer(rf"({re.escape(json.dumps(name))}|\"network\")\s*:\s*(?=\{{)", text):
        found, stop = _DECODER.raw_decode(text, entry.end())
        if found == network:
            return entry.end(), stop
    raise ValueError(f"network {name!r} is not written out in {METADATA}; write it without escapes.")


def _with_entry(text: str, key: str, value: Any) -> str:
    """The text of a JSON object with `key` set, all else as it was written.

    >>> _with_entry('{"a": [1,2], "b": 3}', "a", 0.5), _with_entry('{"b": 3}', "a", [1])
    ('{"a": 0.5, "b": 3}', '{"b": 3, "a": [1]}')
    """
    entry = re.search(rf'"{key}"\s*:\s*', text)
    if entry:
        _, stop = _DECODER.raw_decode(text, entry.end())
        return f"{text[: entry.end()]}{json.dumps(value)}{text[stop:]}"
    body = text[:-1].rstrip()
    space = text[1 : len(text) - len(text[1:].lstrip())] or " "  # before the first entry: a line break, and how deep
    return f'{body},{space}"{key}": {json.dumps(value)}{text[len(body) :]}'


def _current(metadata: dict[str, Any]) -> Any:
    """The arguments of the network that the metadata chooses, where it gives them."""
    current = metadata.get("network")
    if isinstance(current, str) and current.startswith(_NETWORKS):
        return metadata["networks"].get(current.removeprefix(_NETWORKS))
    return current


def _like_the_current(root: Path, metadata: dict[str, Any], name: str) -> dict[str, Any]:
    current = _current(metadata)
    if not isinstance(current, dict):
        raise ValueError(
            f"{root / 'configs' / METADATA}: its network is {current!r}, of which {name} cannot take its arguments; "
            f'define {name} under "networks" there.'
        )
    taken = {"spatial_dims", "in_channels", "out_channels", "preset", *MEMBERS[name].options}
    arguments = {key: value for key, value in current.items() if key in taken}
    return {"_target_": "monai_unetfamily.nets.create_network", "name": name, **arguments}


def _require_buildable(root: Path, metadata: dict[str, Any], name: str) -> None:
    parser = ConfigParser(deepcopy({"_meta_": metadata, "network": metadata["network"]}))  # it writes into its own
    try:
        with torch.device("meta"):
            parser.get_parsed_content("network")
    except (RuntimeError, ValueError, TypeError, KeyError, ModuleNotFoundError) as error:
        raise ValueError(f"{root / 'configs' / METADATA}: {name} cannot be built: {reason_of(error)}") from error

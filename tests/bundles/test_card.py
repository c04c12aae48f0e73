"""What a bundle says of itself: the shipped ones, one in the style of MONAI's model zoo, and broken ones."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from monai_unetfamily.bundles import METADATA, Card, find_bundle, read_card, read_config, resolved_part, shipped_bundles


def edit(file: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


@pytest.fixture
def zoo(tmp_path: Path) -> Path:
    """Configs in JSON, a definition by reference, no key "name": as MONAI's model zoo writes them."""
    image = {"modality": "CT", "num_channels": 2, "spatial_shape": [96, 96, 96], "value_range": [0, 1]}
    image["channel_def"] = {"1": "venous", "0": "arterial"}
    metadata = {
        "task": "Decathlon spleen\n segmentation",
        "network_data_format": {
            "inputs": {"image": image},
            "outputs": {"pred": {"channel_def": {"0": "background", "1": "spleen"}}},
        },
    }
    config = {
        "network_def": "@net",
        "net": {"_target_": "monai.networks.nets.UNet"},
        "inferer": {"_target_": "SlidingWindowInferer"},
        "preprocessing": {"_target_": "Compose", "transforms": [{"_target_": "LoadImaged", "keys": "image"}]},
    }
    (tmp_path / "spleen/configs").mkdir(parents=True)
    (tmp_path / "spleen/configs" / METADATA).write_text(json.dumps(metadata))
    (tmp_path / "spleen/configs/inference.json").write_text(json.dumps(config))
    (tmp_path / "spleen/LICENSE").write_text("\n   MIT License\n\nCopyright\n")
    return tmp_path / "spleen"


def test_a_bundle_of_the_zoo(zoo: Path) -> None:
    assert read_card(zoo) == Card(
        root=zoo,
        name="spleen",
        task="Decathlon spleen segmentation",
        classes={0: "background", 1: "spleen"},
        modality="CT",
        axes=3,
        channels=("arterial", "venous"),
        network="UNet",
        license="MIT License",
        phantoms_only=False,
        weights=False,
        pictures=False,
        intended_use="",
    )


def test_the_shipped_ones() -> None:
    cards = {card.root.name: card for card in map(read_card, shipped_bundles())}
    assert {name for name, card in cards.items() if card.phantoms_only} == {"phantom_2d", "phantom_ct"}
    assert {name for name, card in cards.items() if card.pictures} == {"phantom_2d"}
    assert [cards[name].axes for name in ("hippocampus_mr", "phantom_2d", "phantom_ct")] == [3, 2, 3]
    assert {card.license for card in cards.values()} == {"Apache License 2.0"}
    assert cards["hippocampus_mr"].weights
    assert cards["hippocampus_mr"].channels == ("T1w",)
    assert cards["phantom_ct"].classes[5] == "spine"


def test_a_2d_network_takes_volumes_where_it_slides_over_them(zoo: Path) -> None:
    metadata, config = zoo / "configs" / METADATA, zoo / "configs/inference.json"
    edit(metadata, lambda m: m["network_data_format"]["inputs"]["image"].update(spatial_shape=["16*n", "16*n"]))
    assert read_card(zoo).axes == 2
    edit(config, lambda c: c.update(inferer={"_target_": "monai.inferers.SliceInferer"}))
    assert read_card(zoo).axes == 3


def test_what_is_unknown_is_empty(zoo: Path) -> None:
    def forget(metadata: dict[str, Any]) -> None:
        metadata["network_data_format"]["inputs"]["image"].pop("channel_def")
        metadata["network_data_format"]["inputs"]["image"]["modality"] = "n/a"

    edit(zoo / "configs" / METADATA, forget)
    edit(zoo / "configs/inference.json", lambda c: c.update(network_def="$torch.load(@arch)"))
    (zoo / "LICENSE").unlink()
    card = read_card(zoo)
    assert (card.modality, card.channels, card.network, card.license) == ("", ("", ""), "", "")


def test_a_network_of_the_registry_is_named_as_there(zoo: Path) -> None:
    definition = {"_target_": "monai_unetfamily.nets.create_network", "name": "unet_e"}
    edit(zoo / "configs/inference.json", lambda c: c.update(net=definition))
    assert read_card(zoo).network == "unet_e"


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        (METADATA, "{", "metadata.json: cannot be read .*; mend the file"),
        (METADATA, "[]", "metadata.json: holds list; an object is needed"),
        (METADATA, "{}", "channel_def .*; add it"),
        ("inference.json", "[", "inference.json: cannot be read .*; mend the file"),
        ("inference.json", "3", "inference.json: holds int; an object is needed"),
        ("inference.json", '{"net": {}, "net#name": 1}', "inference.json: 'net#name' changes another part of the file"),
        ("inference.json", '{"net": {}, "+net": {}}', "inference.json: '[+]net' changes another part of the file"),
        ("inference.json", "{}", "has no preprocessing; .*complete the bundle"),
        ("inference.json", '{"preprocessing": "@a", "a": ["@a"]}', "preprocessing refers to itself without end"),
    ],
)
def test_what_cannot_be_read_is_one_clear_line(zoo: Path, file: str, text: str, message: str) -> None:
    (zoo / "configs" / file).write_text(text)
    with pytest.raises(ValueError, match=message):
        read_card(zoo)


def test_what_is_missing_is_one_clear_line(zoo: Path) -> None:
    (zoo / "configs/inference.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"no configs/inference.yaml or .json; complete it"):
        read_card(zoo)
    (zoo / "configs" / METADATA).unlink()
    with pytest.raises(FileNotFoundError, match=r"no configs/metadata.json; give a bundle's folder"):
        read_card(zoo)


def test_references_are_followed_to_their_end() -> None:
    assert resolved_part(find_bundle("phantom_2d"), "network_def")["_target_"] == "monai_unetfamily.nets.UNet3Plus"
    assert read_config(find_bundle("phantom_2d"), "train")["patch_size"].startswith("@_meta_")

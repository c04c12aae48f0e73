"""What a user asks of a bundle holds for a copy of it, and what it cannot do is refused."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.inferers import SlidingWindowInferer

from monai_unetfamily.bundles import METADATA, Bundle, open_bundle
from monai_unetfamily.inferers import WindowInferer
from monai_unetfamily.nets import UNetPlusPlus, create_network
from monai_unetfamily.prediction import (
    BundleOptions,
    Settings,
    adapt,
    adapt_all,
    choices,
    predict_volume,
    request_of,
    watch_guides,
)

CPU = torch.device("cpu")


@pytest.fixture
def opened(bundle: Path) -> Bundle:
    return open_bundle(bundle, CPU)


@pytest.fixture
def nested(opened: Bundle) -> Bundle:
    """The bundle with a UNet++ of random weights."""
    torch.manual_seed(0)
    options = {"in_channels": 1, "out_channels": len(opened.names), "features": (4, 8, 8), "deep_supervision": True}
    return replace(opened, network=create_network("unetplusplus", spatial_dims=3, **options).eval())


def first(phantoms: Path) -> Path:
    return sorted((phantoms / "imagesTr").glob("*.nii.gz"))[0]


@pytest.mark.slow
def test_a_level_is_that_head_of_the_network(nested: Bundle, phantoms: Path) -> None:
    assert isinstance(nested.network, UNetPlusPlus)
    one = adapt(nested, Settings(level=1))
    head = replace(nested, network=nested.network.pruned(1).eval())
    np.testing.assert_array_equal(predict_volume(one, first(phantoms)), predict_volume(head, first(phantoms)))
    assert nested.network.levels == 2


@pytest.mark.parametrize("level", [0, 3])
def test_a_level_that_is_not_there_is_refused(nested: Bundle, level: int) -> None:
    with pytest.raises(ValueError, match=f"level is {level}; .* allows 1 to 2"):
        adapt(nested, Settings(level=level))


@pytest.mark.slow
def test_overlap_and_mirroring_are_the_inferers(opened: Bundle, phantoms: Path) -> None:
    file = opened.root / "configs" / METADATA
    file.write_text(json.dumps(json.loads(file.read_text()) | {"mirror_axes": [2]}))
    changed = adapt(opened, Settings(overlap=0.6, mirror=True))
    direct = open_bundle(opened.root, CPU)
    direct.inferer.overlap, direct.inferer.mirror_axes = 0.6, (2,)  # type: ignore[attr-defined]
    labels = [predict_volume(bundle, first(phantoms)) for bundle in (changed, direct, opened)]
    np.testing.assert_array_equal(labels[0], labels[1])
    assert (labels[0] != labels[2]).any()


@pytest.fixture
def guided(opened: Bundle) -> Bundle:
    """The bundle with a guided UNet 3+ of random weights and a threshold a class."""
    torch.manual_seed(0)
    thresholds = [0.1 * c for c in range(1, len(opened.names))]
    options = {"features": (4, 8), "skip_channels": 4, "cgm": True, "presence_threshold": thresholds}
    network = create_network("unet3plus", spatial_dims=3, in_channels=1, out_channels=len(opened.names), **options)
    return replace(opened, network=network.eval())


def test_what_may_be_chosen_is_what_is_accepted(opened: Bundle, nested: Bundle, guided: Bundle) -> None:
    assert isinstance(opened.inferer, WindowInferer)
    organs = [name for label, name in opened.names.items() if label]
    assert choices(nested) == BundleOptions(opened.inferer.overlap, (), (1, 2), {})
    assert choices(adapt(nested, Settings(level=1))).levels == ()
    assert choices(guided).presence == {name: pytest.approx(0.1 * c) for c, name in enumerate(organs, start=1)}
    uneven = adapt(opened, Settings(overlap=0.3))
    uneven.inferer.overlap = (0.1, 0.4, 0.2)  # type: ignore[attr-defined]
    assert choices(uneven).overlap == 0.4
    assert choices(replace(opened, inferer=SlidingWindowInferer((8, 8, 8)))).overlap is None
    file = opened.root / "configs" / METADATA
    file.write_text(json.dumps(json.loads(file.read_text()) | {"mirror_axes": [0, 2]}))
    assert choices(opened).mirror_axes == (0, 2)
    assert choices(replace(opened, inferer=SlidingWindowInferer((8, 8, 8)))).mirror_axes == ()
    with pytest.raises(ValueError, match="thresholds for 5 classes, channel_def .* names .*; make the two agree"):
        choices(replace(guided, names={0: "background", 1: "heart"}))


@pytest.mark.slow
def test_presence_is_the_guides_threshold_and_no_bundle_is_changed(guided: Bundle, phantoms: Path) -> None:
    before, (first_organ, *_) = choices(guided), list(choices(guided).presence)
    changed = adapt(guided, Settings(presence={first_organ: 0.7}))
    assert choices(changed).presence == before.presence | {first_organ: pytest.approx(0.7)}
    assert choices(guided) == before
    assert all(a is b for a, b in zip(guided.network.parameters(), changed.network.parameters(), strict=True))
    assert not changed.network.training
    image = first(phantoms)
    for p, empty in ((0.0, False), (1.0, True)):
        bundle = adapt(guided, Settings(presence=dict.fromkeys(before.presence, p)))
        assert bool((predict_volume(bundle, image) == 0).all()) == empty


@pytest.mark.parametrize(
    ("presence", "message"),
    [
        ({"liver": 1.5}, r"presence is {'liver': 1.5}; probabilities from 0 to 1 are allowed"),
        ({"liver": float("nan")}, "probabilities from 0 to 1"),
        ({"background": 0.5}, r"got classes \['background'\]"),
        ({"heart": 0.5}, r"got classes \['heart'\]"),
    ],
)
def test_presence_that_cannot_be_is_refused(guided: Bundle, presence: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        adapt(guided, Settings(presence=presence))


def test_of_an_ensemble_the_guided_networks_take_presence(guided: Bundle, nested: Bundle) -> None:
    asked = Settings(presence={"liver": 0.9})
    plain, other = adapt_all([nested, guided], asked)
    assert plain is nested
    assert choices(other).presence["liver"] == pytest.approx(0.9)
    with pytest.raises(ValueError, match="a UNetPlusPlus without a classification-guided module"):
        adapt_all([nested, nested], asked)


def test_what_decides_the_labels_decides_the_request(opened: Bundle) -> None:
    requests = [
        request_of([opened], settings)
        for settings in (
            *(Settings(), Settings(overlap=0.5), Settings(roi=("liver",))),
            *(Settings(box=((0, 2), (0, 3), (0, 4))), Settings(presence={"liver": 0.2})),
        )
    ]
    assert len({str(request) for request in requests}) == 5
    assert request_of([opened], Settings()) == requests[0]
    assert [name for name, _ in request_of([opened, opened], Settings()).bundles] == ["bundle", "bundle"]


def test_presence_is_the_most_that_a_guide_says_of_any_window() -> None:
    torch.manual_seed(0)
    options = {"in_channels": 1, "out_channels": 3, "features": (4, 8), "skip_channels": 4, "cgm": True}
    network = create_network("unet3plus", spatial_dims=3, **options).eval()
    windows = [torch.randn(2, 1, 8, 8, 8) for _ in range(3)]
    with watch_guides([network]) as presence, torch.inference_mode():
        for window in windows:
            network(window)
    with torch.inference_mode():
        logits = torch.cat([network.cgm(network.encode(window)[-1]) for window in windows])
    expected = logits.sigmoid().amax(0).tolist()
    assert list(presence.probabilities().values()) == pytest.approx(expected, abs=1e-6)
    network(windows[0])  # nobody listens any more
    assert list(presence.probabilities().values()) == pytest.approx(expected, abs=1e-6)


def test_a_network_without_guide_says_nothing() -> None:
    with watch_guides([torch.nn.Conv3d(1, 1, 1)]) as presence:
        pass
    assert presence.probabilities() == {}

"""What all tests share: the folder of real volumes, tiny phantoms, tiny bundles, and the skip of GPU tests."""

import json
import os
from pathlib import Path

import pytest

PHANTOM_SHAPE = (32, 26, 16)  # voxels of 10 x 10 x 12.5 mm: a whole abdomen in a blink


@pytest.fixture(scope="session")
def data_dir() -> Path:
    beside_the_checkout = Path(__file__).parents[2] / "shared" / "data"
    folder = Path(os.environ.get("UNETFAMILY_DATA", beside_the_checkout))
    if not folder.is_dir():
        pytest.skip(f"no test data: {folder} is absent; set UNETFAMILY_DATA to the folder that holds them")
    return folder


@pytest.fixture(scope="session")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from monai_unetfamily.volumes.phantom import write_phantoms

    folder = tmp_path_factory.mktemp("data") / "phantoms"
    write_phantoms(folder, 6, shape=PHANTOM_SHAPE, spacing=(10.0, 10.0, 12.5))
    return folder


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Slices of 26 rows and 32 columns: two patients for training, one for validation."""
    from monai_unetfamily.volumes.phantom_pictures import write_phantom_pictures

    folder = tmp_path_factory.mktemp("data") / "pictures"
    write_phantom_pictures(folder, 3, shape=PHANTOM_SHAPE, spacing=(10.0, 10.0, 12.5))
    return folder


@pytest.fixture
def untrained(tmp_path: Path) -> Path:
    """A copy of phantom_ct, small enough to train in seconds."""
    small = {"spacing: [5.0, 5.0, 5.0]": "spacing: [12.0, 12.0, 12.0]", "[64, 56, 40]": "[24, 24, 16]"}
    return small_copy("phantom_ct", tmp_path / "bundle", [24, 24, 12], small)


@pytest.fixture
def untrained_2d(tmp_path: Path) -> Path:
    """A copy of phantom_2d, small enough to train in seconds."""
    return small_copy("phantom_2d", tmp_path / "bundle_2d", [24, 32], {"[128, 160]": "[32, 24]"})


@pytest.fixture
def bundle(untrained: Path) -> Path:
    """The small phantom_ct with random weights, ready to predict."""
    return with_random_weights(untrained)


@pytest.fixture
def bundle_2d(untrained_2d: Path) -> Path:
    """The small phantom_2d with random weights, ready to predict."""
    return with_random_weights(untrained_2d)


def small_copy(name: str, bundle: Path, patch: list[int], changes: dict[str, str]) -> Path:
    from monai_unetfamily.bundles.bundle import METADATA, copy_bundle, find_bundle

    copy_bundle(find_bundle(name), bundle)
    file = bundle / "configs" / METADATA
    metadata = json.loads(file.read_text())
    for network in metadata["networks"].values():
        network["features"] = [4, 8, 8]
    metadata["network_data_format"]["inputs"]["image"]["spatial_shape"] = patch
    file.write_text(json.dumps(metadata))
    for config in (bundle / "configs").glob("*.yaml"):
        text = config.read_text()
        for old, new in changes.items():
            text = text.replace(old, new)
        config.write_text(text)
    return bundle


def with_random_weights(untrained: Path) -> Path:
    import torch
    from monai.bundle import ConfigParser

    from monai_unetfamily.bundles.bundle import METADATA
    from monai_unetfamily.bundles.checkpoint import WEIGHTS, save_whole

    torch.manual_seed(0)
    parser = ConfigParser()
    parser.read_meta(untrained / "configs" / METADATA)
    network = parser.get_parsed_content("_meta_#network")
    (untrained / "models").mkdir(exist_ok=True)
    save_whole(network.state_dict(), untrained / "models" / WEIGHTS)
    return untrained


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    gpu_tests = [item for item in items if item.get_closest_marker("gpu")]
    if gpu_tests and not _has_cuda():
        for item in gpu_tests:
            item.add_marker(pytest.mark.skip(reason="no CUDA device here: see make test-gpu"))


def _has_cuda() -> bool:
    import torch  # seconds: only when a test asks for a device

    return torch.cuda.is_available()

"""What all tests share: the folder of real volumes, and the skip of GPU tests where there is no GPU."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def data_dir() -> Path:
    beside_the_checkout = Path(__file__).parents[2] / "shared" / "data"
    folder = Path(os.environ.get("UNETFAMILY_DATA", beside_the_checkout))
    if not folder.is_dir():
        pytest.skip(f"no test data: {folder} is absent; set UNETFAMILY_DATA to the folder that holds them")
    return folder


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    gpu_tests = [item for item in items if item.get_closest_marker("gpu")]
    if gpu_tests and not _has_cuda():
        for item in gpu_tests:
            item.add_marker(pytest.mark.skip(reason="no CUDA device here: see make test-gpu"))


def _has_cuda() -> bool:
    import torch  # seconds: only when a test asks for a device

    return torch.cuda.is_available()

"""Load linknet.py as a module of monai_unetfamily.nets: by a call, or as a plugin (-p tests.support.add_linknet)."""

from importlib import import_module
from pathlib import Path

import pytest

from monai_unetfamily import nets

NAME = "monai_unetfamily.nets.linknet"


def load() -> None:
    nets.__path__.append(str(Path(__file__).parent))
    import_module(NAME)
    nets.__path__.pop()


def pytest_configure() -> None:
    load()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Every test, before -k leaves some out."""
    for item in items:
        config.get_terminal_writer().line(f"collected {item.nodeid}")

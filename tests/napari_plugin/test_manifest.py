"""What napari is told of the plugin, and that looking at it loads no torch."""

import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import pytest
from npe2 import PluginManifest

ROOT = Path(__file__).parents[2]
MANIFEST = PluginManifest.from_file(ROOT / "napari_plugin" / "napari.yaml")


def test_npe2_finds_the_manifest_where_the_package_is_installed() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    ((name, place),) = project["entry-points"]["napari.manifest"].items()
    package, file = place.split(":")
    assert name == MANIFEST.name == project["name"]
    assert (ROOT / package / file).is_file()


def test_every_command_is_there() -> None:
    commands = MANIFEST.contributions.commands or []
    assert all(callable(getattr(import_module(module), name)) for module, name in map(_place, commands))


@pytest.mark.slow
def test_no_module_loads_torch() -> None:
    modules = ", ".join(f"napari_plugin.{file.stem}" for file in (ROOT / "napari_plugin").glob("*.py"))
    code = f"import sys, {modules}; sys.exit(bool({{'torch', 'monai'}} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def _place(command: object) -> list[str]:
    return str(command.python_name).split(":")

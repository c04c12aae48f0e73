"""What napari keeps of a user's choices: Preferences > Plugins > MONAI U-Net family."""

import os
from pathlib import Path
from typing import Any

from napari.settings import get_plugin_settings

PLUGIN = "monai-unetfamily"
_RECENT = 8  # folders that are remembered


def preferences() -> Any:
    """What `configurations` in napari.yaml declares: `device`, `overlap`, `bundles`, `recent`; saved as they change."""
    return get_plugin_settings(PLUGIN).prediction


def recent_bundles() -> list[Path]:
    """Folders of bundles that were used last, the last first, as far as they are still there."""
    folders = [Path(name) for name in preferences().recent.split(os.pathsep) if name]
    return [folder for folder in folders if folder.is_dir()]


def remember_bundle(folder: Path) -> None:
    """Put a folder before all others."""
    folder = folder.absolute()
    others = [other for other in recent_bundles() if other != folder]
    preferences().recent = os.pathsep.join(map(str, [folder, *others][:_RECENT]))

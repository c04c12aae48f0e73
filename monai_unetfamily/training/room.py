"""Where a training lives: the bundle itself or a copy of it, and the log beside it."""

import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from monai_unetfamily.bundles.bundle import copy_bundle
from monai_unetfamily.bundles.metadata import WEIGHTS
from monai_unetfamily.volumes.files import make_folder


@contextmanager
def opened_room(bundle: Path, output: Path | None) -> Iterator[Path]:
    """The folder to train in; a copy that gets no weights does not stay behind."""
    room = output or bundle
    if output:
        copy_bundle(bundle, output)
    try:
        yield room
    finally:
        if output and not (output / "models" / WEIGHTS).exists():
            shutil.rmtree(output, ignore_errors=True)


@contextmanager
def logged_to(file: Path) -> Iterator[None]:
    """Whatever MONAI and ignite log meanwhile, in a file as well."""
    make_folder(file.parent)
    handler = logging.FileHandler(file)
    handler.setFormatter(logging.Formatter("%(asctime)s %(name)s %(levelname)s %(message)s"))
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    logging.getLogger("monai.bundle.workflows").setLevel(logging.ERROR)  # warns that its own logging is off
    try:
        yield
    finally:
        root.setLevel(level)
        root.removeHandler(handler)
        handler.close()

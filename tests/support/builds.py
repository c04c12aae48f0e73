"""Bundles and reports that several tests only read, built once per run and shared by pytest's workers."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock


def built_once(factory: pytest.TempPathFactory, name: str, build: Callable[[Path], object]) -> Path:
    """Return the read-only directory `name`, in which `build` has written; the first of pytest's workers calls it.

    A test that changes files copies them first.
    """
    base = factory.getbasetemp()
    shared = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "built_once"
    shared.mkdir(exist_ok=True)
    folder, done = shared / name, shared / f"{name}.done"
    with FileLock(shared / f"{name}.lock"):
        if not done.exists():
            shutil.rmtree(folder, ignore_errors=True)  # of a build that failed
            folder.mkdir()
            build(folder)
            for file in folder.rglob("*"):
                if file.is_file():
                    file.chmod(0o444)
            done.touch()
    return folder

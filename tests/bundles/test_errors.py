"""Unclear errors of libraries become one line with the cause and the fix."""

import shutil
import warnings
from pathlib import Path

import pytest
from monai.utils import OptionalImportError

from monai_unetfamily.bundles import SHIPPED, explained, reason_of
from monai_unetfamily.cli import main
from monai_unetfamily.cli.options import one_line

SHM, DIED, MEMORY = "too little shared memory", "a process that loads cases died", "out of memory"
SAID = {
    "unable to open shared memory object </torch_12_3_0> in read-write mode: No space left on device (28)": SHM,
    "unable to allocate shared memory(shm) for file </torch_12_3_0>: No space left on device (28)": SHM,
    "unable to write to file </torch_12_3_0>: No space left on device (28)": SHM,
    "DataLoader worker (pid 7) is killed by signal: Bus error. It is possible that dataloader's workers are ...": SHM,
    "[Errno 28] No space left on device: '/dev/shm/sem.a'": SHM,
    "DataLoader worker (pid(s) 7, 8) exited unexpectedly": DIED,
    "DataLoader worker (pid 7) is killed by signal: Killed. ": DIED,
    "could not create a primitive": MEMORY,
    "could not execute a primitive": MEMORY,
    "could not create a primitive descriptor for a convolution forward propagation primitive": MEMORY,
    "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried ...": MEMORY,
    "[enforce fail at alloc_cpu.cpp:117] data. DefaultCPUAllocator: not enough memory: you tried ...": MEMORY,
    "CUDA out of memory. Tried to allocate 2.00 GiB.": MEMORY,
}
EINOPS = """from einops import rearrange (No module named 'einops').

For details about installing the optional dependencies, please visit:
    https://monai.readthedocs.io/en/latest/installation.html

Original traceback:
Traceback (most recent call last):
ModuleNotFoundError: No module named 'einops'
"""
ITK = "required package `itk` is not installed or the version doesn't match requirement."


@pytest.mark.parametrize("said", SAID)
def test_a_shortage_is_named_once_with_the_librarys_own_words(said: str) -> None:
    try:
        raise RuntimeError("Caught in an engine") from RuntimeError(said)
    except RuntimeError as error:
        reason = reason_of(error)
    assert reason.startswith(SAID[said])
    assert reason.endswith(f"({said.strip()})")
    assert one_line(ValueError(f"train.yaml: {reason}")) == f"train.yaml: {reason}"


@pytest.mark.parametrize(("text", "package"), [(EINOPS, "einops"), (ITK, "itk"), ("No module named 'nrrd'", "pynrrd")])
def test_a_missing_package_is_named_without_the_traceback(text: str, package: str) -> None:
    assert explained(OptionalImportError(text)).endswith(f"pip install -U {package}")


@pytest.mark.parametrize("text", ["ct.nii: has no voxel", "Ray is needed: pip install 'monai-unetfamily[cluster]'."])
def test_what_says_enough_stays_as_it_is(text: str) -> None:
    assert explained(ImportError(text)) == explained(ValueError(text)) == text


@pytest.mark.slow
@pytest.mark.parametrize(
    ("made", "text", "part", "package"),
    [
        ("monai.data.NibabelReader.__init__", ITK, "preprocessing", "itk"),
        ("monai_unetfamily.nets.unet.PlainUNet.__init__", EINOPS, "network_def", "einops"),
    ],
)
def test_the_part_that_wants_a_missing_package_is_blamed(
    made: str,
    text: str,
    part: str,
    package: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def refuse(*arguments: object, **settings: object) -> None:
        raise OptionalImportError(text)

    monkeypatch.setattr(made, refuse)
    shutil.copytree(SHIPPED / "hippocampus_mr", tmp_path / "bundle")
    (tmp_path / "ct.nii").touch()
    command = ["predict", str(tmp_path / "bundle"), str(tmp_path / "ct.nii"), "-o", str(tmp_path / "out")]
    assert main(command) == 2
    assert capsys.readouterr().err == (
        f"unetfamily: {tmp_path}/bundle/configs/inference.yaml: {part} cannot be built: the package '{package}' is "
        f"missing, or too old: pip install -U {package}\n"
    )


@pytest.mark.parametrize("debug", [False, True])
@pytest.mark.filterwarnings("always")
def test_monais_own_warnings_reach_the_terminal_for_debugging_alone(
    debug: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def warn(*arguments: object, **settings: object) -> None:
        for module in ("monai.transforms.io.array", "monai_unetfamily.cli"):
            warnings.warn_explicit(f"of {module}", UserWarning, f"{module}.py", 1, module)

    monkeypatch.setattr("monai_unetfamily.data.phantom.write_phantoms", warn)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert main(["phantom", str(tmp_path / "new"), "-n", "1", *["--debug"] * debug]) == 0
    said = [str(each.message) for each in caught]
    assert said == ["of monai.transforms.io.array"] * debug + ["of monai_unetfamily.cli"]

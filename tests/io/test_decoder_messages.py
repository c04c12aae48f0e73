"""Laws of compressed slices: every transfer syntax gives the same voxels, and what a decoder only prints is refused."""

import os
from pathlib import Path

import numpy as np
import pytest

from monai_unetfamily.io.dicom import open_slice
from monai_unetfamily.io.dicom.slices import read_slice
from monai_unetfamily.io.image2d import refuse_damaged_jpeg

LOSSLESS_JPEG = ("5.dcm", "6.dcm")


def syntaxes(data_dir: Path) -> Path:
    return data_dir / "dicom" / "transfer_syntaxes" / "In"


@pytest.mark.parametrize("name", [f"{number}.dcm" for number in range(2, 10)])
def test_every_transfer_syntax_gives_the_same_voxels(name: str, data_dir: Path) -> None:
    plain, packed = (read_slice(open_slice(syntaxes(data_dir) / file)) for file in ("1.dcm", name))
    np.testing.assert_array_equal(packed, plain)


@pytest.mark.parametrize("name", LOSSLESS_JPEG)
def test_a_damaged_jpeg_is_refused(
    name: str, data_dir: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    content = bytearray((syntaxes(data_dir) / name).read_bytes())
    start = content.rfind(b"\xff\xda")  # of the entropy-coded data
    content[start + 20_000 : start + 20_004] = b"\xff\xd9\xff\xd9"  # its end, far too early
    damaged = tmp_path / name
    damaged.write_bytes(content)
    with pytest.raises(ValueError, match=rf"{name}: its pixel data are damaged \(Corrupt JPEG data"):
        read_slice(open_slice(damaged))
    assert capfd.readouterr().err == ""


def test_other_lines_reach_standard_error(capfd: pytest.CaptureFixture[str]) -> None:
    with refuse_damaged_jpeg(Path("IM1")):
        os.write(2, b"epoch 3\n")
    damaged = pytest.raises(ValueError, match=r"IM2: its pixel data are damaged \(Premature end of JPEG file\)")
    with damaged, refuse_damaged_jpeg(Path("IM2")):
        os.write(2, b"epoch 4\nPremature end of JPEG file\nepoch 5\n")
    os.write(2, b"epoch 6\n")
    assert capfd.readouterr().err == "epoch 3\nepoch 4\nepoch 5\nepoch 6\n"

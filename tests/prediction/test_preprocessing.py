"""Laws of preprocessing: an image of which nothing is left to see is refused, with its spacing and unit."""

import numpy as np
import pytest
import torch
from monai.data.meta_tensor import MetaTensor
from monai.transforms import (
    Compose,
    CropForegroundd,
    NormalizeIntensityd,
    Orientationd,
    ScaleIntensityRanged,
    Spacingd,
)

from monai_unetfamily.prediction.preprocessing import run_preprocessing

SCAN = np.random.default_rng(0).normal(0, 100, (1, 35, 51, 35)).astype(np.float32)
BLOCK = np.pad(np.ones((1, 4, 4, 4), np.float32), ((0, 0), (10, 21), (20, 27), (15, 16)))
TO_MM = Compose(
    [str, Orientationd("image", "RAS", labels=None), Spacingd("image", (1, 1, 1)), NormalizeIntensityd("image")]
)
CT = Compose([str, ScaleIntensityRanged("image", -1000, 1000, 0, 1, clip=True)])


def placed(voxels: np.ndarray, *spacing: float) -> MetaTensor:
    return MetaTensor(torch.from_numpy(voxels), affine=torch.diag(torch.tensor([*spacing, 1.0], dtype=torch.float64)))


def sparse(count: int, background: float = 0) -> np.ndarray:
    """So many voxels of 1 to 2, in one block of a background."""
    voxels = np.full_like(SCAN, background)
    voxels.reshape(-1)[20000 : 20000 + count] += np.linspace(1, 2, count, dtype=np.float32)
    return voxels


@pytest.mark.parametrize(
    ("spacing", "message"),
    [
        (
            (1e3, 1e3, 1e3),
            r"makes 34001 x 50001 x 34001 voxels of 35 x 51 x 35, 9.25e\+08 times as many; less than 4096",
        ),
        ((20, 20, 20), "less than 4096 times and at most 2147483648 are allowed, mend the header's spacing"),
        ((0.001, 0.001, 0.001), "leaves 1 x 1 x 1 voxels of 35 x 51 x 35; 16 or more"),
        ((1, 1, 0.001), "leaves 35 x 51 x 1 voxels of 35 x 51 x 35; .* more than one along an axis"),
    ],
    ids=["1 m", "2 cm", "1 micron", "slices of 1 micron"],
)
def test_absurd_spacings_are_refused_with_the_spacing_and_the_unit(
    spacing: tuple[float, float, float], message: str
) -> None:
    """No voxel is resampled to too many: 1000 mm would take 231 terabytes."""
    with pytest.raises(ValueError, match=message) as caught:
        run_preprocessing(TO_MM, placed(SCAN, *spacing), "micron")
    sizes = " x ".join(f"{size:.4g}" for size in spacing)
    assert str(caught.value).startswith(
        f"voxels of {sizes} mm (unit of the header: micron): resampling to the bundle's 1"
    )
    assert "\n" not in str(caught.value)


def test_the_most_voxels_are_those_that_a_header_may_claim(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("monai_unetfamily.prediction.preprocessing.MAX_VOXELS", 8 * SCAN.size)
    with pytest.raises(ValueError, match=f"makes 103 x 151 x 103 voxels .* at most {8 * SCAN.size} are allowed"):
        run_preprocessing(TO_MM, placed(SCAN, 3, 3, 3))


def test_memory_that_resampling_does_not_get_is_about_spacing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:119] DefaultCPUAllocator: can't allocate memory: 12 bytes")

    refusing = Compose([str, Spacingd("image", (1, 1, 1)), refuse])
    with pytest.raises(ValueError, match=r"voxels of 2 x 2 x 2 mm: .* makes 69 x 101 x 69 voxels .*: out of memory"):
        run_preprocessing(refusing, placed(SCAN, 2, 2, 2))


@pytest.mark.parametrize(
    ("preprocess", "voxels", "message"),
    [
        (TO_MM, sparse(64), "0.10% of the voxels differ from the value -0.0"),
        (TO_MM, sparse(120), "0.19% of the voxels differ"),
        (CT, SCAN + 5000, "0.00% of the voxels differ from the value 1 after"),  # above the window
        (CT, SCAN / 1000, "0.00% of the voxels differ from the value 0.5 after"),  # no HU
        (Compose([str, CropForegroundd("image", "image")]), BLOCK, "0.00% of the voxels"),
    ],
    ids=["lesion mask", "larger mask", "MR for CT", "no HU", "cropped mask"],
)
def test_what_is_constant_or_nearly_is_refused(preprocess: Compose, voxels: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=f"{message}.* there is nothing to segment; 0.2% are needed, give an image"):
        run_preprocessing(preprocess, placed(voxels, 1, 1, 1))


@pytest.mark.parametrize(
    ("preprocess", "voxels", "spacing", "note"),
    [
        (TO_MM, SCAN, (1, 1, 1), ""),
        (TO_MM, SCAN, (0.7, 0.7, 5), ""),
        (TO_MM, SCAN[:, :8, :8, :5], (4, 4, 10), ""),  # 160 times as many
        (TO_MM, SCAN[..., :1], (1, 1, 0.5), ""),  # one slice
        (TO_MM, SCAN[:, :3, :3, :3], (1, 1, 1), ""),  # small, but on the bundle's own grid
        (TO_MM, SCAN, (0.1, 0.1, 0.1), "leaves 4 x 6 x 4 voxels of 35 x 51 x 35: check the spacing"),
        (TO_MM, SCAN[:, :4, :4, :4], (15, 15, 15), "times as many: check the spacing"),
        (CT, SCAN, (1, 1, 1), ""),
        (CT, sparse(800) * 100 - 1024, (1, 1, 1), ""),
        (CT, sparse(200) * 100 - 1000, (1, 1, 1), "0.32% of the voxels differ from the value 0 after"),
        (CT, np.concatenate([sparse(0), SCAN]), (1, 1, 1), ""),  # one flat channel of two
    ],
    ids=[
        *("as the bundle's", "thick slices", "coarse and small", "one slice", "27 voxels", "fine", "coarse", "CT"),
        *("some structure", "little structure", "one flat channel of two"),
    ],
)
def test_what_may_be_meant_is_kept_and_noted_where_it_is_odd(
    preprocess: Compose, voxels: np.ndarray, spacing: tuple[float, float, float], note: str
) -> None:
    image = placed(np.ascontiguousarray(voxels), *spacing)
    prepared, notes = run_preprocessing(preprocess, image)
    torch.testing.assert_close(prepared, preprocess({"image": image}, start=1)["image"], rtol=0, atol=0)
    assert [note in line for line in notes] == [True] * bool(note), notes


def test_an_empty_slice_is_noted() -> None:
    image = MetaTensor(torch.zeros(1, 20, 30), affine=torch.eye(3))
    _, notes = run_preprocessing(Compose([str, NormalizeIntensityd("image")]), image)
    assert [line.startswith("0.00% of the voxels differ") for line in notes] == [True]

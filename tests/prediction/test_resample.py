"""Labels that come slab by slab are those of MONAI's Invertd and AsDiscreted, on every grid that is undone by axes."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.data.meta_tensor import MetaTensor
from monai.transforms import (
    AsDiscreted,
    BorderPadd,
    CenterSpatialCropd,
    Compose,
    CropForegroundd,
    DivisiblePadd,
    EnsureTyped,
    Flipd,
    Invertd,
    Orientationd,
    Resized,
    ResizeWithPadOrCropd,
    Rotated,
    Spacingd,
    SpatialCropd,
    SpatialPadd,
    Zoomd,
)
from scipy.spatial.transform import Rotation
from torch import Tensor, nn

from monai_unetfamily.bundles import Bundle
from monai_unetfamily.inferers import WindowInferer
from monai_unetfamily.nets.profiling import _Lifetimes
from monai_unetfamily.prediction import Case, segment
from monai_unetfamily.prediction.prediction import predict_image, prepare
from monai_unetfamily.prediction.resample import NotSeparable, Restoration, Rule, inversion

K = "image"
TURN = Rotation.from_euler("xyz", (20, -15, 30), degrees=True).as_matrix()


def affine(letters: str, spacing: tuple[float, float, float], turn: Any = None) -> Any:
    """Of a grid whose axes point to these letters, all turned by a rotation: an oblique scan."""
    matrix = np.diag([0.0, 0.0, 0.0, 1.0])
    for axis, letter in enumerate(letters):
        matrix["RLAPSI".index(letter) // 2, axis] = 1 if letter in "RAS" else -1
    matrix[:3, :3] = (np.eye(3) if turn is None else turn) @ matrix[:3, :3] @ np.diag(spacing)
    matrix[:3, 3] = 3, -7, 11
    return matrix


GRIDS = {
    "RAS": affine("RAS", (0.8, 0.9, 2.5)),
    "LPS": affine("LPS", (3.0, 0.7, 1.2)),
    "ASR": affine("ASR", (0.8, 2.9, 1.3)),
    "PIL": affine("PIL", (0.8, 2.9, 1.3)),
    "oblique": affine("RAS", (0.8, 0.9, 2.5), TURN),
    "oblique PIL": affine("PIL", (0.8, 2.9, 1.3), TURN),
}
SIZES = {"even": (12, 16, 10), "odd": (7, 23, 11)}
RAS = Orientationd(K, "RAS", labels=None)


def spacing(*mm: float, **options: Any) -> Spacingd:
    return Spacingd(K, mm, mode="bilinear", **options)


WAYS: dict[str, list[Any]] = {
    "nothing": [EnsureTyped(K)],
    "orientation": [RAS],
    "up- and downsampled": [RAS, spacing(1.5, 1.5, 1.5)],
    "spacing first": [spacing(1.5, 1.1, 1.3), RAS],
    "to LPS": [Orientationd(K, "LPS", labels=None), spacing(1, 2, 3)],
    "corners aligned": [RAS, spacing(1.5, 1.5, 1.5, align_corners=True)],
    "extent kept": [RAS, spacing(1.5, 1.5, 1.5, align_corners=True, scale_extent=True)],
    "zeros outside": [RAS, spacing(1.5, 1.5, 1.5, padding_mode="zeros")],
    "single precision": [RAS, spacing(1.5, 1.5, 1.5, dtype=np.float32)],
    "almost its own spacing": [RAS, spacing(0.8003, 0.9, 2.5)],
    "foreground": [RAS, CropForegroundd(K, K, k_divisible=8), spacing(1.2, 1.2, 1.2)],
    "foreground, last": [RAS, spacing(1.2, 1.2, 1.2), CropForegroundd(K, K, margin=2)],
    "foreground, padded": [CropForegroundd(K, K, margin=2, allow_smaller=False), RAS],
    "pads": [SpatialPadd(K, (20, 21, 22)), RAS, DivisiblePadd(K, 8), BorderPadd(K, (1, 2, 3)), spacing(1.7, 1.7, 1.7)],
    "resized by areas": [RAS, Resized(K, (10, 20, 13))],
    "resized linearly": [RAS, Resized(K, (10, 20, 13), mode="trilinear")],
    "resized by corners": [Resized(K, (10, 20, 13), mode="trilinear", align_corners=True), RAS, spacing(1.4, 1.4, 1.4)],
    "longest": [Resized(K, 24, size_mode="longest", mode="trilinear")],
    "zoomed in its size": [RAS, Zoomd(K, (1.3, 0.7, 1.0), keep_size=True)],
    "zoomed": [RAS, Zoomd(K, 1.3, keep_size=False, mode="trilinear")],
    "pad or crop": [RAS, spacing(1.5, 1.5, 1.5), ResizeWithPadOrCropd(K, (8, 30, 12))],
    "crop of the centre": [CenterSpatialCropd(K, (5, -1, 6)), RAS],
    "crop": [SpatialCropd(K, roi_start=(2, 1, 0), roi_end=(9, 9, 9)), spacing(1, 1, 1)],
    "flips": [Flipd(K, 0), RAS, Flipd(K, (-1,)), spacing(1.3, 1.3, 1.3), Flipd(K)],
    "interpolated twice": [
        *(RAS, spacing(1.5, 1.5, 1.5)),
        *(Resized(K, (14, 14, 14), mode="trilinear"), spacing(0.9, 2, 1)),
    ],
}


class Smooth(nn.Module):
    """Random smooth scores, which look at a window's neighbourhood and at the image."""

    def __init__(self, classes: int, dims: int = 3, channels: int = 1) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(classes)
        Conv: Any = (nn.Conv2d, nn.Conv3d)[dims - 2]
        self.conv = Conv(channels, classes, 3, padding=1)
        with torch.no_grad():
            self.conv.weight.copy_(torch.randn(self.conv.weight.shape, generator=generator) * 3)
            self.conv.bias.copy_(torch.randn(classes, generator=generator))

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


def volume(size: tuple[int, ...], grid: Any, seed: int = 0) -> MetaTensor:
    """Smooth intensities (1, *size), with a rim of zeros: what CropForegroundd crops."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 1, *[-(-n // 3) + 1 for n in size], generator=generator)
    image = nn.functional.interpolate(coarse, size=size, mode="trilinear" if len(size) == 3 else "bilinear")[0]
    image[:, :1] = 0
    image[..., -2:] = 0
    return MetaTensor(image, affine=grid)


def opened(
    way: list[Any], classes: int = 4, *, overlap: bool = False, roi: tuple[int, ...] = (8, 7, 6), **options: Any
) -> Bundle:
    """A bundle as opened; its reader, which `prepare` leaves out, is any transform."""
    preprocess = Compose([EnsureTyped(K), *way])
    last = {"threshold": 0.6} if overlap else {"argmax": True}
    back = Invertd("pred", preprocess, K, nearest_interp=False)
    names = {c + overlap: f"class {c}" for c in range(classes)}
    network = Smooth(classes, len(roi)).eval()
    inferer = WindowInferer(roi, background=not overlap, overlap=0.25, **options)
    post = Compose([back, AsDiscreted("pred", **last)])  # type: ignore[arg-type]
    return Bundle(Path("bundle"), names, torch.device("cpu"), network, preprocess, inferer, post)


def monais(bundle: Bundle, image: MetaTensor) -> Any:
    """Labels (*source), or masks (*source, classes), by MONAI's own way: everything whole."""
    case = bundle.preprocess({K: image.clone()}, start=1)
    with torch.no_grad():
        case["pred"] = MetaTensor(bundle.inferer(case[K].as_tensor()[None], bundle.network)[0])
    *back, last = bundle.postprocess.flatten().transforms  # type: ignore[attr-defined]
    case = Compose(back)(case)
    case["pred"][case["pred"].abs() < 1e-9] = 0  # what rounding brings over the border of a crop
    labels = last(case)["pred"].as_tensor().numpy()
    return labels[0] if len(labels) == 1 else np.moveaxis(labels, 0, -1)


def by_slabs(bundle: Bundle, image: MetaTensor, **options: Any) -> Any:
    """The same by ours, which must not have taken the other way."""

    def refuse(line: str) -> None:
        raise AssertionError(line)

    return predict_image(bundle, image.clone(), log=refuse, **options)


def agree(ours: Any, reference: Any) -> None:
    """The contract of the design, and the smallest type."""
    assert ours.shape == reference.shape
    assert ours.dtype == np.uint8
    differing = np.count_nonzero(ours != reference)
    assert differing <= 1e-3 * np.count_nonzero((ours > 0) | (reference > 0))


@pytest.mark.slow
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("way", WAYS)
def test_labels_are_those_of_invertd(way: str, size: str) -> None:
    bundle, seen = opened(WAYS[way]), set()
    for grid in GRIDS.values():
        image = volume(SIZES[size], grid)
        ours = by_slabs(bundle, image)
        agree(ours, monais(bundle, image))
        seen |= set(np.unique(ours))
    assert len(seen) > 2  # the network does tell voxels apart


@pytest.mark.parametrize(
    "way", ["up- and downsampled", "foreground", "resized by areas", "interpolated twice", "zeros outside"]
)
@pytest.mark.parametrize("grid", GRIDS)
def test_scores_are_those_of_invertd_to_rounding(way: str, grid: str) -> None:
    bundle, image = opened(WAYS[way]), volume((9, 14, 11), GRIDS[grid])
    case = prepare(bundle, image)
    scores = torch.rand(3, *case.image.shape[1:])
    back = inversion(case.image)
    ours = scores.double().numpy()
    for axis, matrix in enumerate(back.matrices, start=1):
        ours = np.moveaxis(np.tensordot(matrix.toarray(), ours, (1, axis)), 0, axis)
    ours = ours.transpose(0, *(axis + 1 for axis in back.axes))
    (invertd, _) = bundle.postprocess.transforms  # type: ignore[attr-defined]
    expected = invertd({K: case.image, "pred": MetaTensor(scores)})["pred"]
    np.testing.assert_allclose(ours, expected, atol=2e-6)


@pytest.mark.parametrize(
    "window",
    [
        {"roi": (40, 40, 40)},
        {"roi": (5, 40, 40)},
        {"roi": (40, 40, 5), "mirror_axes": (0,)},
        {"roi": (30, 6, 30), "sw_batch_size": 3},
        {"roi": (3, 3, 3)},
    ],
)
@pytest.mark.parametrize("way", ["up- and downsampled", "foreground", "flips"])
def test_the_windows_change_nothing(way: str, window: dict[str, Any]) -> None:
    """Slabs along each axis, volumes smaller than the window, slabs of one plane."""
    bundle = opened(WAYS[way], **window)
    for grid in ("PIL", "oblique"):
        image = volume((13, 9, 17), GRIDS[grid])
        agree(by_slabs(bundle, image), monais(bundle, image))


@pytest.mark.parametrize("way", ["nothing", "up- and downsampled", "foreground", "pads"])
@pytest.mark.parametrize("classes", [1, 3])
def test_overlapping_classes_are_masks_above_their_threshold(way: str, classes: int) -> None:
    bundle = opened(WAYS[way], classes, overlap=True)
    for grid in ("LPS", "oblique"):
        image = volume((9, 14, 11), GRIDS[grid])
        ours = by_slabs(bundle, image)
        assert ours.shape == ((9, 14, 11) if classes == 1 else (9, 14, 11, 3))
        agree(ours, monais(bundle, image))
        assert 0 < ours.mean() < 1


@pytest.mark.parametrize("overlap", [False, True])
def test_a_threshold_that_nothing_reaches_marks_what_was_cropped(overlap: bool) -> None:
    """Below 0 a threshold holds for the zeros outside, too."""
    bundle = opened(WAYS["foreground"], 3, overlap=True)
    bundle.postprocess.transforms[-1].threshold = [-0.5 if overlap else 2.0]  # type: ignore[attr-defined]
    ours = by_slabs(bundle, volume((9, 14, 11), GRIDS["RAS"]))
    assert (ours == int(overlap)).all()


def test_pictures_and_their_channels() -> None:
    bundle = opened([Resized(K, (20, 30), mode="bilinear"), Flipd(K, 1)], roi=(8, 9))
    image = MetaTensor(volume((27, 19), np.eye(3)).as_tensor(), affine=torch.eye(3))
    agree(by_slabs(bundle, image), monais(bundle, image))
    rgb = replace(bundle, network=Smooth(4, 2, channels=3))
    agree(by_slabs(rgb, image.repeat(3, 1, 1)), monais(rgb, image.repeat(3, 1, 1)))


def test_a_class_that_is_nowhere_likely_is_left_out_without_a_difference() -> None:
    bundle = opened(WAYS["up- and downsampled"], 300)  # of random ones, few are ever the best
    with torch.no_grad():
        bundle.network.conv.bias[7:299] = -30  # type: ignore[union-attr,index]
    image = volume((9, 14, 11), GRIDS["LPS"])
    ours = by_slabs(bundle, image)
    assert ours.dtype == np.uint16
    assert np.array_equal(ours, monais(bundle, image))
    assert {*np.unique(ours).tolist()} <= {*range(7), 299}


UNDONE_WHOLE: dict[str, tuple[Callable[[Bundle], Bundle], str]] = {
    "a rotation": (lambda b: opened([RAS, Rotated(K, 0.2)]), "Rotate is not undone axis by axis"),
    "a shear": (lambda b: opened([RAS, spacing(1.5, 1.5, 1.5, diagonal=True)]), "turns or shears the grid"),
    "nearest voxels": (lambda b: opened([Spacingd(K, (1.5,) * 3, mode="nearest")]), "mode nearest"),
    "two ends": (
        lambda b: replace(b, postprocess=Compose([*b.postprocess.transforms, EnsureTyped("pred")])),  # type: ignore[attr-defined]
        "its postprocessing is not Invertd",
    ),
    "labels interpolated": (
        lambda b: replace(b, postprocess=Compose([Invertd("pred", b.preprocess, K), AsDiscreted("pred", argmax=True)])),  # type: ignore[arg-type]
        "its postprocessing is not Invertd",
    ),
}


@pytest.mark.parametrize("case", UNDONE_WHOLE)
def test_anything_else_goes_the_bundles_own_way_and_says_so(case: str) -> None:
    change, reason = UNDONE_WHOLE[case]
    bundle, image, said = change(opened(WAYS["up- and downsampled"])), volume((9, 14, 11), GRIDS["oblique"]), []
    ours = predict_image(bundle, image.clone(), log=said.append)
    assert len(said) == 1
    assert reason in said[0]
    agree(ours, monais(bundle, image))


def test_a_lazy_preprocessing_is_not_undone_by_axes() -> None:
    image = Compose([RAS, spacing(1.5, 1.5, 1.5)], lazy=True)({K: volume((9, 14, 11), GRIDS["LPS"])})[K]
    with pytest.raises(NotSeparable, match="run lazily"):
        inversion(image)


def test_a_step_tells_how_far_the_run_is_and_which_labels_are_there() -> None:
    bundle, image = opened(WAYS["up- and downsampled"]), volume((9, 14, 31), GRIDS["PIL"])
    expected, counts, done = by_slabs(bundle, image), np.zeros(image.shape[1:], int), []
    for step in segment(bundle, prepare(bundle, image)):
        done.append(step.done)
        if step.where is not None:
            counts[step.where] += 1
            assert np.array_equal(step.labels[step.where], expected[step.where])
    assert (counts == 1).all()
    assert done == sorted(done)
    assert done[-1] == step.total > 1


def test_a_closed_run_calls_the_network_no_more() -> None:
    calls: list[int] = []
    bundle = opened(WAYS["nothing"], roi=(4, 4, 4))
    bundle.network.register_forward_hook(lambda *_: calls.append(1))
    steps = segment(bundle, prepare(bundle, volume((9, 14, 11), GRIDS["RAS"])))
    next(steps)
    steps.close()
    assert len(calls) == 1


def peak(slices: int) -> int:
    """The most bytes that tensors take at once, of a run that makes of each bundle voxel eight of the source."""
    bundle = opened([spacing(2, 2, 2)], 40, roi=(8, 8, 8))
    case = prepare(bundle, MetaTensor(torch.rand(1, 32, 32, slices), affine=np.eye(4)))
    with _Lifetimes(nn.Identity()) as lifetimes:
        for _ in segment(bundle, case):
            pass
    return lifetimes.peak(without=[case.image])


@pytest.mark.slow
def test_memory_is_that_of_a_windows_planes_however_many_slices() -> None:
    scores_of_a_windows_planes = 40 * 16 * 16 * 8 * 4  # bytes; all scores on the source take 50 and 200 times that
    assert peak(400) == peak(100) < 2 * scores_of_a_windows_planes


def test_labels_on_another_grid_are_refused_before_the_network_runs() -> None:
    bundle = opened(WAYS["up- and downsampled"])
    case = prepare(bundle, volume((9, 14, 11), GRIDS["RAS"]))
    with pytest.raises(ValueError, match=r"labels have \(9, 14, 11\) voxels, the image \(9, 14, 12\)"):
        next(segment(bundle, Case(case.image, (9, 14, 12))))


def test_scores_that_are_not_finite_are_counted() -> None:
    bundle = opened(WAYS["nothing"], 2)
    image = prepare(bundle, volume((9, 14, 11), GRIDS["RAS"])).image
    restoration = Restoration(inversion(image), 0, 2, Rule())
    slab = next(s for s in bundle.inferer.slabs(image.as_tensor()[None], bundle.network, 0) if s.scores.numel())
    slab.scores[0, 1, 0, 0, :3] = torch.tensor([np.nan, np.inf, -np.inf])
    with pytest.raises(ValueError, match="gave 3 scores that are not finite"):
        next(restoration.add(slab))

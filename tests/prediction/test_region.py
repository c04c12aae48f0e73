"""In a box labels are those of the whole run, bit for bit; outside they are 0; other windows are not run."""

from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data.meta_tensor import MetaTensor
from monai.inferers import SlidingWindowInferer
from monai.transforms import Flipd, NormalizeIntensityd, Resized, Rotated
from torch import Tensor, nn

from monai_unetfamily.bundles import Bundle, open_bundle
from monai_unetfamily.cohort import plan_lines
from monai_unetfamily.data import find_studies
from monai_unetfamily.inferers import WindowInferer
from monai_unetfamily.io import Box, parse_box, slices_of
from monai_unetfamily.nets import create_network
from monai_unetfamily.prediction import Settings, adapt, segment
from monai_unetfamily.prediction.options import guide_of
from monai_unetfamily.prediction.prediction import predict_image, prepare
from tests.prediction.test_resample import GRIDS, RAS, WAYS, K, Smooth, by_slabs, opened, volume
from tests.support.runs import predict
from tests.support.tiers import sampled

pytestmark = pytest.mark.slow

SHAPE = (13, 21, 17)
CPU = torch.device("cpu")


def boxes(shape: tuple[int, ...], n: int, seed: int = 0) -> list[Box]:
    """A voxel at each of two corners, the whole, and random ones."""
    random = np.random.default_rng(seed)
    ends = [tuple(sorted(random.choice(size + 1, 2, replace=False).tolist()) for size in shape) for _ in range(n)]
    corners = tuple((0, 1) for _ in shape), tuple((size - 1, size) for size in shape)
    return [*corners, tuple((0, size) for size in shape), *(tuple((a, b) for a, b in box) for box in ends)]


def outside(labels: Any, box: Box) -> Any:
    """The labels without those in the box."""
    left = labels.copy()
    left[slices_of(box, labels.shape[: len(box)])] = 0
    return left


def obeys(bundle: Bundle | list[Bundle], image: MetaTensor, *, n: int = 4, seed: int = 0) -> None:
    """The law."""
    whole = by_slabs(bundle, image)  # type: ignore[arg-type]
    assert len(np.unique(whole)) > 1
    for box in boxes(tuple(image.shape[1:]), n, seed):
        ours, where = by_slabs(bundle, image, box=box), slices_of(box, image.shape[1:])  # type: ignore[arg-type]
        assert ours.dtype == whole.dtype
        np.testing.assert_array_equal(ours[where], whole[where])
        assert not outside(ours, box).any()


@pytest.mark.parametrize("way", sampled(WAYS, "foreground", "up- and downsampled"))
def test_labels_in_a_box_are_those_of_the_whole_run(way: str) -> None:
    for seed, grid in enumerate(GRIDS.values()):
        obeys(opened(WAYS[way]), volume(SHAPE, grid), n=2, seed=seed)


WINDOWS: dict[str, dict[str, Any]] = {
    "batches": {"sw_batch_size": 3},
    "batches larger than the run": {"sw_batch_size": 1000},
    "mirror": {"mirror_axes": (0, 2), "sw_batch_size": 3},
    "larger than the volume": {"roi": (40, 40, 40)},
    "larger along two axes": {"roi": (40, 5, 40)},
    "of one voxel": {"roi": (1, 3, 3)},
    "constant": {"mode": "constant"},
    "half precision": {"dtype": "float16"},
    "windows skipped": {"skip_below": 0.7},
    "batches skipped": {"skip_below": 0.7, "sw_batch_size": 4, "mirror_axes": (1,)},
}


@pytest.mark.parametrize("window", sampled(WINDOWS, "mirror", "batches skipped", "larger along two axes"))
@pytest.mark.parametrize("overlap", sampled([False, True], False))
def test_whatever_the_windows(window: str, overlap: bool) -> None:
    bundle = opened(WAYS["up- and downsampled"], overlap=overlap, **WINDOWS[window])
    for grid in ("PIL", "oblique"):
        obeys(bundle, volume(SHAPE, GRIDS[grid]))


def test_an_ensemble() -> None:
    members = [opened(WAYS["foreground"]), replace(opened(WAYS["foreground"]), network=Smooth(4).double().float())]
    with torch.no_grad():
        members[1].network.conv.weight.mul_(-1)  # type: ignore[operator,union-attr]
    obeys(members, volume(SHAPE, GRIDS["oblique PIL"]))


@pytest.mark.parametrize("options", [{}, {"neighbours": 1}, {"slice_axis": 0, "sw_batch_size": 4}])
def test_slices_of_a_volume(options: dict[str, Any]) -> None:
    bundle = opened(WAYS["up- and downsampled"], roi=(8, 7), **options)
    network = Smooth(4, 2, channels=1 + 2 * options.get("neighbours", 0))
    obeys(replace(bundle, network=network.eval()), volume(SHAPE, GRIDS["LPS"]))


def test_pictures_of_several_channels() -> None:
    bundle = opened([Resized(K, (20, 30), mode="bilinear"), Flipd(K, 1)], roi=(8, 9))
    image = MetaTensor(volume((27, 19), np.eye(3)).as_tensor(), affine=torch.eye(3)).repeat(3, 1, 1)
    obeys(replace(bundle, network=Smooth(4, 2, channels=3)), image, n=8)


def test_a_normalisation_is_that_of_the_whole_image() -> None:
    obeys(opened([NormalizeIntensityd(K), *WAYS["foreground"]]), volume(SHAPE, GRIDS["ASR"]))


def test_a_box_where_the_bundle_cropped_is_background() -> None:
    bundle, image = opened(WAYS["foreground"]), volume(SHAPE, GRIDS["RAS"])
    assert not by_slabs(bundle, image, box=((0, 13), (0, 21), (16, 17))).any()
    masks = opened(WAYS["foreground"], 3, overlap=True)
    masks.postprocess.transforms[-1].threshold = [-0.5]  # type: ignore[attr-defined]
    labelled = by_slabs(masks, image, box=((0, 13), (0, 21), (16, 17)))
    assert labelled[:, :, 16].all()
    assert not labelled[:, :, :16].any()


@pytest.mark.parametrize("batch", [1, 3])
def test_the_early_exit_of_a_guided_network(batch: int) -> None:
    torch.manual_seed(0)
    options = {"features": (4, 8), "skip_channels": 4, "cgm": True, "exit_when_absent": True}
    network = create_network("unet3plus", spatial_dims=3, in_channels=1, out_channels=4, **options).eval()
    bundle = replace(opened(WAYS["up- and downsampled"], roi=(8, 8, 8), sw_batch_size=batch), network=network)
    image, said, decoded = volume((19, 33, 17), GRIDS["oblique"]), [], []
    guide: Any = guide_of(network)
    hook = guide.register_forward_hook(lambda module, _, logits: said.append(logits.sigmoid()))
    by_slabs(bundle, image)
    hook.remove()
    guide.threshold.copy_(torch.cat(said).median(dim=0).values)
    network.De[0].register_forward_hook(lambda module, _, maps: decoded.append(len(maps)))  # type: ignore[operator,union-attr,index]
    by_slabs(bundle, image)
    assert 0 < sum(decoded) < len(torch.cat(said))  # some windows exit, some do not
    obeys(bundle, image)


def test_the_windows_alone_are_run_that_the_box_hangs_on() -> None:
    """Against the definition: a window is needed if and only if a change of its scores changes the box's."""
    bundle, image = opened(WAYS["up- and downsampled"]), volume(SHAPE, GRIDS["oblique PIL"])
    case, inferer = prepare(bundle, image), bundle.inferer
    assert isinstance(inferer, WindowInferer)
    windows = inferer.windows(tuple(case.image.shape[1:]))
    grid = np.stack(np.meshgrid(*map(np.arange, case.image.shape[1:]), indexing="ij"))  # the bundle's voxels
    position = MetaTensor(torch.from_numpy(grid).float()).copy_meta_from(case.image)
    position.applied_operations = case.image.applied_operations
    back = bundle.postprocess.transforms[0]({K: case.image, "pred": position})["pred"].numpy()  # type: ignore[attr-defined]
    for box in boxes(SHAPE, 4, seed=3):
        places = back[:, *slices_of(box, SHAPE)].reshape(3, -1)  # of the box's voxels on the bundle's grid
        rounded = np.where(abs(places - places.round()) < 1e-3, places.round(), places)
        low, high = np.floor(rounded).min(1), np.ceil(rounded).max(1)
        needed = [
            start
            for start in product(*windows.starts)
            if all(s <= b and a < s + n for s, n, a, b in zip(start, windows.roi, low, high, strict=True))
        ]
        seen: list[Tensor] = []
        hook = bundle.network.register_forward_pre_hook(lambda module, args, into=seen: into.append(args[0]))
        *_, last = segment(bundle, prepare(bundle, image), box=box)
        hook.remove()
        padded = windows.pad(case.image.as_tensor()[None], "constant", 0.0)
        assert len(seen) == last.done == last.total == len(needed)
        for window, start in zip(seen, sorted(needed, key=lambda s: s[windows.thinnest()]), strict=True):
            assert torch.equal(window, windows.crop(padded, start, 0, ()))


def test_steps_complete_the_box_once() -> None:
    bundle, image = opened(WAYS["up- and downsampled"]), volume((9, 14, 31), GRIDS["PIL"])
    box = ((2, 8), (0, 14), (5, 22))
    expected, counts = by_slabs(bundle, image, box=box), np.zeros(image.shape[1:], int)
    for step in segment(bundle, prepare(bundle, image), box=box):
        assert step.total < len(list(product(*bundle.inferer.windows((9, 14, 31)).starts))) * 2  # type: ignore[attr-defined]
        if step.where is not None:
            counts[step.where] += 1
            np.testing.assert_array_equal(step.labels[step.where], expected[step.where])
    assert (counts[slices_of(box, counts.shape)] == 1).all()
    assert not outside(counts, box).any()


def scores_of(bundle: Bundle, image: MetaTensor, box: Box | None) -> Any:
    """Scores (classes, *source) that the sink is told; NaN where it is told none."""
    scores = np.full((len(bundle.names), *image.shape[1:]), np.nan, np.float32)

    def sink(where: Any, c: int, values: Any) -> None:
        scores[c][where] = values

    predict_image(bundle, image.clone(), box=box, sink=sink, log=lambda line: None)
    return scores


SCORED = {name: WAYS[name] for name in ("flips", "pads", "zoomed")} | {"rotated": [RAS, Rotated(K, 0.2)]}


@pytest.mark.parametrize("window", [{}, {"roi": (40, 5, 40)}, {"roi": (8, 7), "slice_axis": 1}, WINDOWS["mirror"]])
@pytest.mark.parametrize("way", sampled(SCORED, "flips", "rotated"))
def test_scores_in_a_box_are_those_of_the_whole_run_too(way: str, window: dict[str, Any]) -> None:
    bundle, image = opened(SCORED[way], **window), volume((17, 21, 33), GRIDS["LPS"])
    whole = scores_of(bundle, image, None)
    for box in boxes((17, 21, 33), 2):
        where = (slice(None), *slices_of(box, (17, 21, 33)))
        scores = scores_of(bundle, image, box)
        assert scores[where].tobytes() == whole[where].tobytes()
        scores[where] = np.nan
        assert np.isnan(scores).all()


class Halves(nn.Module):
    """A network that MONAI's own inferer runs."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([0.5 - x, x - 0.5], dim=1)


def undone_whole() -> dict[str, Bundle]:
    plain = opened(WAYS["orientation"], 2)
    sliding = replace(plain, inferer=SlidingWindowInferer((8, 8, 8)), network=Halves())
    return {"Rotate": opened([RAS, Rotated(K, 0.2)]), "no WindowInferer": sliding}


@pytest.mark.parametrize("case", undone_whole())
def test_where_all_is_run_the_box_is_cut_out_and_it_is_said(case: str) -> None:
    bundle, image, box, said = undone_whole()[case], volume(SHAPE, GRIDS["PIL"]), ((3, 9), (4, 21), (0, 5)), []
    whole = predict_image(bundle, image.clone(), log=lambda line: None)
    *_, last = segment(bundle, prepare(bundle, image), box=box, log=said.append)
    assert len(said) == 1
    assert case in said[0]
    assert "for the box, too, all windows are run" in said[0]
    where = slices_of(box, SHAPE)
    assert last.where == where
    assert whole[where].any()
    np.testing.assert_array_equal(last.labels[where], whole[where])
    assert not outside(last.labels, box).any()


@pytest.mark.parametrize(
    "box",
    [
        ((0, 13), (0, 21)),
        ((0, 13), (0, 21), (0, 18)),
        ((-1, 13), (0, 21), (0, 17)),
        ((4, 4), (0, 21), (0, 17)),
        ((0, 13), (9, 3), (0, 17)),
    ],
)
def test_a_box_that_is_none_of_the_images_is_refused_before_the_network_runs(box: Box) -> None:
    bundle = replace(opened(WAYS["nothing"]), network=nn.Identity())
    with pytest.raises(ValueError, match=r"the image has 13x21x17 voxels, .* at most 0:13,0:21,0:17\."):
        next(segment(bundle, prepare(bundle, volume(SHAPE, GRIDS["RAS"])), box=box))


@pytest.mark.parametrize("text", ["", "1:2,", "1:2,:", "a:b", "-1:4", "1:2:3", "1.5:2", "3"])
def test_what_is_no_box_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="first:stop for each axis is allowed"):
        parse_box(text)


def test_a_cohort_within_a_box(bundle: Path, phantoms: Path, tmp_path: Path) -> None:
    """Labels, notes, the dry run's windows, and the same command again."""
    plain = open_bundle(bundle, CPU)
    files, box = sorted((phantoms / "imagesTr").iterdir())[:2], ((4, 14), (3, 20), (1, 7))
    for name, settings in (("whole", {}), ("box", {"box": box})):
        for case_result in predict(plain, files, tmp_path / name, **settings):
            assert case_result.output is not None, case_result.error
    assert case_result.record.notes == ("segmented within 4:14,3:20,1:7 alone: volumes are of what lies there",)
    for file in files:
        whole, part = (np.asarray(nib.load(tmp_path / name / file.name).dataobj) for name in ("whole", "box"))
        where = slices_of(box, whole.shape)
        np.testing.assert_array_equal(part[where], whole[where])
        assert not outside(part, box).any()
    asked = Settings(previews=False, box=box)
    *lines, sums = plan_lines([plain], find_studies(files).studies, tmp_path / "box", asked)
    assert sums == "2 cases, 2 finished already, 0 that would fail; nothing was done"
    assert all(case_result.skipped for case_result in predict(plain, files, tmp_path / "box", box=box))
    image = nib.load(files[0])
    voxels = MetaTensor(torch.from_numpy(image.get_fdata(dtype=np.float32))[None], affine=image.affine)
    *_, last = segment(plain, prepare(plain, voxels), box=box)
    assert f" {last.total} windows" in lines[0]


def test_a_case_that_the_box_does_not_fit_fails_alone(bundle: Path, phantoms: Path, tmp_path: Path) -> None:
    opened_, files = open_bundle(bundle, CPU), sorted((phantoms / "imagesTr").iterdir())[:1]
    small = tmp_path / "small.nii.gz"
    nib.save(nib.Nifti1Image(np.arange(4800, dtype=np.int16).reshape(20, 20, 12), np.diag([10, 10, 12.5, 1])), small)
    box = ((0, 32), (0, 20), (0, 12))
    fine, failed = predict(opened_, [*files, small], tmp_path / "out", box=box)
    assert fine.error is None
    assert "box is 0:32,0:20,0:12; the image has 20x20x12 voxels" in str(failed.error)
    _, line, sums = plan_lines([opened_], find_studies([*files, small]).studies, tmp_path / "dry", Settings(box=box))
    assert "would fail: box is 0:32,0:20,0:12" in line
    assert "1 that would fail" in sums


def test_thresholds_of_presence_and_a_box_together(bundle: Path, phantoms: Path) -> None:
    guided = adapt(open_bundle(bundle, CPU), Settings(presence={"liver": 0.0, "spleen": 1.0}))
    image = nib.load(sorted((phantoms / "imagesTr").iterdir())[0])
    obeys(guided, MetaTensor(torch.from_numpy(image.get_fdata(dtype=np.float32))[None], affine=image.affine), n=2)

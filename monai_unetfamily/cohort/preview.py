"""What a run would do: its cases, their sizes, windows and memory, and what is finished already."""

from collections.abc import Iterator, Sequence
from math import ceil, floor, prod
from pathlib import Path
from typing import Any

from monai.transforms import Orientationd, Spacingd
from monai.utils import ensure_tuple_rep

from monai_unetfamily.bundles import Bundle
from monai_unetfamily.cohort.outputs import outputs_of
from monai_unetfamily.cohort.records import Record, hash_study, is_finished, read_record, record_file
from monai_unetfamily.inferers import WindowInferer
from monai_unetfamily.io import Box, Probe, Study, probe_study, slices_of
from monai_unetfamily.prediction import Request, Settings, adapt_all, check_ensemble, request_of

_FLOAT = 4  # bytes


def plan_lines(
    bundles: Sequence[Bundle], studies: Sequence[Study], output: Path, settings: Settings, overwrite: bool = False
) -> Iterator[str]:
    """A line for each study, from its header alone, then the sums; what `predict_cohort` refuses is refused here.

    Windows and memory are estimates: of the preprocessing an `Orientationd`, as if to RAS, and a `Spacingd` are taken
    into account alone. Memory is that of the image, as read and on the bundle's grid, of the labels, and of the scores
    of one layer of windows. With `overwrite`, nothing is finished already.

    Raises:
        FileExistsError: files in the way that no run with these bundles and settings wrote.
        ValueError: settings that the bundles cannot meet, outputs that would replace inputs.
    """
    notes: list[str] = []
    check_ensemble(bundles, notes.append)
    request = request_of(bundles, settings)
    bundle, *_ = adapt_all(bundles, settings)
    outputs_of(bundles, output, settings, request).require_no_conflict(studies, request, overwrite)
    yield from notes
    finished = failed = 0
    for number, study in enumerate(studies, start=1):
        done = not overwrite and _is_done(study, request, output)
        finished += done
        try:
            what = _described(bundle, probe_study(study, settings.max_voxels), settings.box)
        except (ValueError, OSError) as error:
            failed += 1
            what = f"would fail: {error}"
        yield f"{number}/{len(studies)} {study.name}: {what}{', finished already' if done else ''}"
    yield f"{len(studies)} cases, {finished} finished already, {failed} that would fail; nothing was done"


def _is_done(study: Study, request: Request, output: Path) -> bool:
    before = read_record(record_file(output, study.name))
    return before is not None and is_finished(before, Record(study.name, request, (), hash_study(study)), output)


def _described(bundle: Bundle, probe: Probe, box: Box | None) -> str:
    shape, spacing = "x".join(map(str, probe.shape)), "x".join(f"{mm:.4g}" for mm in probe.spacing)
    text = f"{shape} voxels of {spacing} mm" if len(probe.shape) == 3 else f"{shape} pixels"
    grid, part = _grid(bundle, probe, slices_of(box, probe.shape))
    if isinstance(bundle.inferer, WindowInferer):
        windows = bundle.inferer.windows(grid)
        axis = windows.thinnest()
        planes = min(windows.roi[axis], grid[axis])
        layer = len(bundle.names) * planes * prod(grid) // grid[axis]
        memory = _FLOAT * (prod(probe.shape) + prod(grid) + layer) + prod(probe.shape)
        passes = prod(map(len, windows.touching(part))) * 2 ** len(bundle.inferer.mirror_axes)
        text += f", {passes} windows, about {memory / 2**30:.1f} GiB"
    return text


def _grid(bundle: Bundle, probe: Probe, box: Sequence[slice]) -> tuple[tuple[int, ...], tuple[slice, ...]]:
    """Voxels per axis as the network sees them, and what of them a box of the study touches, but for flips."""
    transforms: Sequence[Any] = getattr(bundle.preprocess, "transforms", ())
    turned = any(isinstance(step, Orientationd) for step in transforms)
    order = [probe.axes.index(axis) for axis in range(len(probe.axes))] if turned else range(len(probe.axes))
    spacing = next((step.spacing_transform.pixdim for step in transforms if isinstance(step, Spacingd)), None)
    wanted = probe.spacing if spacing is None else ensure_tuple_rep(tuple(spacing), len(probe.shape))
    kept = [spacing is None or mm <= 0 for mm in wanted]  # Spacingd takes 0 for "as it is"
    scales = [1.0 if k else probe.spacing[a] / mm for a, mm, k in zip(order, wanted, kept, strict=True)]
    grid = tuple(max(1, round(probe.shape[a] * scale)) for a, scale in zip(order, scales, strict=True))
    spans = [(box[a].start * scale, (box[a].stop - 1) * scale) for a, scale in zip(order, scales, strict=True)]
    return grid, tuple(slice(floor(first), ceil(last) + 1) for first, last in spans)

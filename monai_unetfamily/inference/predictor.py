"""A bundle and a volume or picture in, labels on its own grid out."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from monai.data.meta_tensor import MetaTensor
from numpy.typing import NDArray

from monai_unetfamily.bundles.bundle import Bundle, reason_of
from monai_unetfamily.bundles.inputs import check_source, takes_pictures
from monai_unetfamily.volumes.files import make_folder, require_free
from monai_unetfamily.volumes.label_table import label_table
from monai_unetfamily.volumes.masks import may_overlap, write_masks, write_split
from monai_unetfamily.volumes.nifti import Labels
from monai_unetfamily.volumes.sources import (
    Affine,
    is_picture,
    label_name,
    list_sources,
    passed_over,
    read_image,
    stem,
    write_label_map,
)

_LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outcome:
    """What became of one input: its file of labels (a folder of masks, split), or the error that stopped it."""

    source: Path
    output: Path | None = None
    error: Exception | None = None


@torch.inference_mode()
def predict_volume(bundle: Bundle, path: Path) -> Labels:
    """Labels of a NIfTI file (x, y, z) or a picture (rows, columns), on its own grid.

    Where classes may overlap they are masks, 0 or 1, with a last axis of classes.

    The bundle's preprocessing, its inferer, then its postprocessing, which brings class scores (not labels) back to
    the source grid and takes the best, or each above its threshold; on a GPU under autocast.

    Raises:
        FileNotFoundError, ValueError: the file cannot be segmented; the message names it and says why.
    """
    check_source(bundle.root, path)
    values, affine = read_image(path)  # NaN voxels, and damage that only a checksum shows, end here
    shape = values.shape[: len(affine) - 1]  # without the channels of a picture
    pixels = values if is_picture(path) else None
    del values  # frees a volume's memory before its prediction
    try:
        case = _load(bundle, path, affine, pixels)
        case["pred"] = _scores(bundle, case["image"])
        labels = bundle.postprocess(case)["pred"]
    except (RuntimeError, ValueError) as error:
        raise ValueError(f"{path}: {reason_of(error)}") from error
    return _checked(labels, shape, path, bundle)


def predict_files(
    bundle: Bundle,
    inputs: Sequence[Path],
    output: Path,
    log: Callable[[str], None] = _LOGGER.info,
    *,
    split: bool = False,
    overwrite: bool = False,
) -> Iterator[Outcome]:
    """Predict files, or the NIfTI files and pictures of folders, into `output`; a bad one does not stop the others.

    Each label map is `<name>.nii.gz`, 4-D where classes may overlap, and `<name>.png` for a picture; with `split`, each
    class's mask is `<name>/<class>.nii.gz` or `.png`. A file, or such a folder, is written whole or not at all; `log`
    is given a line as each case begins, and one before of the images in folders that are of other kinds. What is there
    already is replaced with `overwrite` alone, an input of the run or a folder of masks never.

    Raises:
        FileNotFoundError, FileExistsError, ValueError, OSError: at once, where the inputs or the output folder cannot
            be used, or labels would replace a file.
    """
    sources = list_sources(inputs)
    targets = [output / (stem(source) if split else label_name(source)) for source in sources]
    _check_output(sources, targets, output)
    if split:
        _require_free_folders(targets, overwrite)
    else:
        _require_one_map(bundle, sources)
        if not overwrite:
            _require_new(targets)
    make_folder(output)
    if others := passed_over(inputs):
        log(f"passed over, since they are no NIfTI (.nii, .nii.gz), PNG or TIFF: {', '.join(p.name for p in others)}")
    write = _writer(bundle.names, split)
    for number, (source, target) in enumerate(zip(sources, targets, strict=True), start=1):
        log(f"{number}/{len(sources)} {source} -> {target}")
        try:
            write(predict_volume(bundle, source), source, target)
        except (ValueError, OSError, MemoryError) as error:
            yield Outcome(source, error=error)
        else:
            yield Outcome(source, target)


def _load(bundle: Bundle, path: Path, affine: Affine, pixels: NDArray[np.float32] | None) -> dict[str, torch.Tensor]:
    """Run the preprocessing, with a look at where its reader (the first step) puts the patient."""
    loaded = bundle.preprocess({"image": str(path)}, end=1)
    if pixels is not None:
        _require_pixels(loaded["image"], pixels)
    elif not np.allclose(np.asarray(loaded["image"].affine), affine, atol=1e-3):
        raise ValueError(
            "the bundle's reader takes another affine than the header's: make sform, qform and pixdim agree."
        )
    case: dict[str, torch.Tensor] = bundle.preprocess(loaded, start=1)
    return case


def _require_pixels(image: torch.Tensor, pixels: NDArray[np.float32]) -> None:
    """A picture has no affine that would tell: MONAI's own reader swaps rows and columns."""
    expected = pixels[None] if pixels.ndim == 2 else np.moveaxis(pixels, -1, 0)
    if not np.array_equal(np.asarray(image), expected):
        raise ValueError(
            "the bundle's reader turns or changes the picture: name "
            "monai_unetfamily.volumes.readers.PictureReader in its LoadImaged."
        )


def _scores(bundle: Bundle, image: torch.Tensor) -> torch.Tensor:
    """Class scores (C, *spatial) on the bundle's grid; a MetaTensor, since Invertd passes plain ones over."""
    with torch.autocast(bundle.device.type, enabled=bundle.device.type == "cuda"):
        scores = bundle.inferer(image[None].to(bundle.device), bundle.network)[0].float().cpu()
    bad = scores.numel() - int(torch.isfinite(scores).sum())
    if bad:
        raise ValueError(
            f"the network gave {bad} scores that are not finite: its weights are damaged; train them anew."
        )
    if scores.shape[0] != len(bundle.names):
        raise ValueError(
            f"{bundle.root}: the network gives {scores.shape[0]} channels, channel_def in metadata.json names "
            f"{len(bundle.names)}: {list(bundle.names.values())}; make the two agree."
        )
    return MetaTensor(scores)


def _checked(labels: torch.Tensor, shape: tuple[int, ...], path: Path, bundle: Bundle) -> Labels:
    """(1, *spatial) as label ids (*spatial), or (classes, *spatial) as masks (*spatial, classes)."""
    overlap = may_overlap(bundle.names)
    if overlap and labels.shape[0] != len(bundle.names):
        raise ValueError(
            f"{bundle.root}: gives {labels.shape[0]} maps for the {len(bundle.names)} classes that channel_def names; "
            "its postprocessing must keep one map for each (AsDiscreted with a threshold)."
        )
    if not overlap and labels.shape[0] != 1:
        raise ValueError(
            f"{bundle.root}: gives {labels.shape[0]} overlapping maps, which one label map cannot hold; use a bundle "
            "whose postprocessing takes the best class (AsDiscreted with argmax), or whose channel_def names no "
            "background."
        )
    if tuple(labels.shape[1:]) != tuple(shape):
        raise ValueError(
            f"{path}: labels have {tuple(labels.shape[1:])} voxels, the image {tuple(shape)}: the bundle's "
            "postprocessing must end on the source grid (Invertd)."
        )
    _require_ids(labels, 1 if overlap else max(bundle.names), bundle)
    voxels = labels.numpy()
    return np.moveaxis(voxels.astype(np.uint8), 0, -1) if overlap else voxels[0].astype(np.uint16)


def _require_ids(labels: torch.Tensor, largest: int, bundle: Bundle) -> None:
    if labels.min() < 0 or labels.max() > largest or not torch.equal(labels, labels.round()):
        raise ValueError(
            f"{bundle.root}: postprocessing gives values between {float(labels.min()):g} and {float(labels.max()):g}; "
            f"whole numbers from 0 to {largest} are labels here: end it with AsDiscreted, after Invertd."
        )


def _writer(names: Mapping[int, str], split: bool) -> Callable[[Labels, Path, Path], None]:
    """What writes (labels, like, path)."""
    if split:
        return lambda labels, like, folder: write_split(labels, names, like, folder)
    if may_overlap(names):
        return lambda labels, like, path: write_masks(labels, names, like, path)
    table = label_table(names)
    return lambda labels, like, path: write_label_map(labels, like, path, table)


def _require_one_map(bundle: Bundle, sources: Sequence[Path]) -> None:
    picture = next(filter(is_picture, sources), None)
    if picture and may_overlap(bundle.names) and takes_pictures(bundle.root):
        raise ValueError(
            f"{picture}: one PNG cannot hold the classes {list(bundle.names.values())}, which may overlap; write one "
            "mask a class (--split, split=True)."
        )


def _check_output(sources: Sequence[Path], targets: Sequence[Path], output: Path) -> None:
    overwritten = {s.resolve() for s in sources} & {t.resolve() for t in targets}
    if overwritten:
        raise ValueError(
            f"{output}: predictions would replace the inputs there ({min(overwritten).name}); choose another."
        )


def _require_free_folders(targets: Sequence[Path], overwrite: bool) -> None:
    if overwrite:
        raise ValueError("overwrite replaces label maps, not the folders of masks of split; choose one of the two.")
    for target in targets:
        require_free(target)


def _require_new(targets: Sequence[Path]) -> None:
    there = [target for target in targets if target.exists()]
    if there:
        raise FileExistsError(
            f"{there[0]}: exists, the first of {len(there)} label maps that would be replaced; choose another folder, "
            "or replace them (--overwrite, overwrite=True)."
        )

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
from monai_unetfamily.inference.segment import predict_image
from monai_unetfamily.volumes.files import make_folder, require_free
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


def predict_volume(bundle: Bundle, path: Path) -> Labels:
    """Labels of a NIfTI file (x, y, z) or a picture (rows, columns), on its own grid.

    Where classes may overlap they are masks, 0 or 1, with a last axis of classes. The bundle's own reader loads the
    file; then it goes as `segment.segment` says.

    Raises:
        FileNotFoundError, ValueError: the file cannot be segmented; the message names it and says why.
        MemoryError: a GPU that one window is too large for.
    """
    check_source(bundle.root, path)
    values, affine = read_image(path)  # NaN voxels, and damage that only a checksum shows, end here
    pixels = values if is_picture(path) else None
    del values  # frees a volume's memory before its prediction
    try:
        return predict_image(bundle, _load(bundle, path, affine, pixels))
    except (RuntimeError, ValueError) as error:
        raise ValueError(f"{path}: {reason_of(error)}") from error


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


def _load(bundle: Bundle, path: Path, affine: Affine, pixels: NDArray[np.float32] | None) -> MetaTensor:
    """Run the preprocessing's reader (the first step), with a look at where it puts the patient."""
    image: MetaTensor = bundle.preprocess({"image": str(path)}, end=1)["image"]
    if pixels is not None:
        _require_pixels(image, pixels)
    elif not np.allclose(np.asarray(image.affine), affine, atol=1e-3):
        raise ValueError(
            "the bundle's reader takes another affine than the header's: make sform, qform and pixdim agree."
        )
    return image


def _require_pixels(image: torch.Tensor, pixels: NDArray[np.float32]) -> None:
    """A picture has no affine that would tell: MONAI's own reader swaps rows and columns."""
    expected = pixels[None] if pixels.ndim == 2 else np.moveaxis(pixels, -1, 0)
    if not np.array_equal(np.asarray(image), expected):
        raise ValueError(
            "the bundle's reader turns or changes the picture: name "
            "monai_unetfamily.volumes.readers.PictureReader in its LoadImaged."
        )


def _writer(names: Mapping[int, str], split: bool) -> Callable[[Labels, Path, Path], None]:
    """What writes (labels, like, path)."""
    if split:
        return lambda labels, like, folder: write_split(labels, names, like, folder)
    if may_overlap(names):
        return lambda labels, like, path: write_masks(labels, names, like, path)
    return write_label_map


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

"""The volumes within one DICOM series: slices told apart by what they show, and when it was.

A series may hold magnitude and phase, echoes, b-values or time points of one region, at the same positions or at
positions that interleave. Headers tell which slices belong together; names and order of files tell nothing.
"""

from collections import defaultdict
from collections.abc import Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from monai_unetfamily.volumes.dicom_slices import Slice, sort_slices
from monai_unetfamily.volumes.dicom_stack import number_positions

# what a slice shows: slices of one volume share it
_SHOWN = (
    *("EchoTime", "EchoNumbers", "DiffusionBValue", "TemporalPositionIdentifier", "KVP", "ConvolutionKernel"),
    *("RescaleType", "Units", "ImageType", "RescaleSlope"),
)
# what may differ from slice to slice of one volume (interleaved and gated acquisition, PET), and counts only where it
# gives every position to each volume
_VARYING = (
    *("AcquisitionNumber", "TriggerTime", "InversionTime", "FlipAngle", "DiffusionGradientOrientation"),
    *("AcquisitionTime", "ContentTime"),
)
_COMPONENTS = {name[0].upper(): name for name in ("magnitude", "phase", "real", "imaginary")}  # in this order
_Groups = list[tuple[str, list[int]]]  # a value, and the numbers of the slices that have it


def split_volumes(slices: Sequence[Slice], told: str = "") -> list[tuple[str, list[Slice]]]:
    """Take the parallel slices of one series apart into volumes, each with the words that tell it from the others.

    - Magnitude, phase, real and imaginary parts of MR are never one volume.
    - Another attribute of what is shown (echo time, b-value, time point, voltage, kernel, units, image type)
      separates slices if each of its values has two positions or more, and those of two values coincide or
      interleave. Where they follow each other as blocks along the normal, or differ from slice to slice, they do not.
      The slope, which often is a slice's own, does so only where each of its values has evenly spaced positions.
    - Acquisition number and times separate slices if each of their values has every position once.

    What nothing separates stays together: several slices at one position are then for the caller to refuse.

    Args:
        slices: of one series, in any order; `dicom_slices.why_unusable` has nothing against any of them.
        told: words ahead of those that are found.

    Returns:
        a list of words and slices by position; one item with the words `told` where nothing separates the slices. The
        order is magnitude ahead of phase, original ahead of derived, and numbers rising.
    """
    if not slices:
        return []
    slices, offsets = sort_slices(slices)
    places = number_positions(offsets)
    groups = _grouped([component(image) for image in slices])
    if len(groups) > 1:
        return _split(slices, groups, told, "")
    for keyword in _SHOWN:
        groups = _grouped([_value(image, keyword) for image in slices])
        taken = [np.unique(places[group]) for _, group in groups]
        if _share_space(taken) and (keyword != "RescaleSlope" or all(map(_is_even, taken))):
            return _split(slices, groups, told, keyword)
    for keyword in _VARYING if places[-1] + 1 < len(slices) else ():
        groups = _grouped([image.tags.get(keyword, "") for image in slices])
        if len(groups) > 1 and all(np.array_equal(places[group], np.arange(places[-1] + 1)) for _, group in groups):
            return _split(slices, groups, told, keyword)
    return [(told, slices)]


def component(image: Slice) -> str:
    """What of the complex signal an MR image shows: "magnitude" where it does not say; "" of other modalities.

    >>> from pathlib import Path
    >>> component(Slice(Path("IM1"), {"Modality": "MR", "ImageType": "ORIGINAL\\\\PRIMARY\\\\P_FFE"}, (4, 3)))
    'phase'
    """
    if image.tags.get("Modality") != "MR":
        return ""
    said = [image.tags.get("ComplexImageComponent", ""), *image.tags.get("ImageType", "").split("\\")[2:]]
    for word in (text.strip().upper().replace("_", " ").partition(" ")[0] for text in said):
        for letter, name in _COMPONENTS.items():
            if word in (letter, name.upper()):
                return name
    return "magnitude"


def differing(slices: Sequence[Slice]) -> str:
    """Which attributes differ between slices at one position, as words for a message."""
    slices, offsets = sort_slices(slices)
    places = number_positions(offsets)
    twice = [slices[k] for k in np.flatnonzero(np.bincount(places)[places] > 1)]
    found = [word for word in (*_SHOWN, *_VARYING) if len({image.tags.get(word, "") for image in twice}) > 1]
    return f"that differ in {', '.join(found)}" if found else "that nothing in their headers tells apart"


def _split(slices: Sequence[Slice], groups: _Groups, told: str, keyword: str) -> list[tuple[str, list[Slice]]]:
    """Each group, taken apart further."""
    return [
        volume
        for value, group in groups
        for volume in split_volumes([slices[k] for k in group], " ".join(filter(None, (told, keyword, value))))
    ]


def _value(image: Slice, keyword: str) -> str:
    """Text of a tag, the same for all ways to write its numbers; rounding of the fifth digit tells nothing."""
    text = image.tags.get(keyword, "").upper()
    number = image.numbers(keyword)
    return text if number is None else f"{number[0]:.4g}"


def _grouped(values: Sequence[str]) -> _Groups:
    groups: dict[str, list[int]] = defaultdict(list)
    for k, value in enumerate(values):
        groups[value].append(k)
    return sorted(groups.items(), key=lambda item: _rank(item[0]))


def _rank(value: str) -> tuple[float, bool, str]:
    names = list(_COMPONENTS.values())
    try:
        number = float(names.index(value) if value in names else value)
    except ValueError:
        return np.inf, not value.startswith("ORIGINAL"), value
    return number, False, value


def _share_space(groups: Sequence[NDArray[np.intp]]) -> bool:
    """Whether groups of positions, each more than one, coincide or interleave, two of them at least."""
    return min(map(len, groups)) > 1 and any(_interleave(*pair) for pair in combinations(groups, 2))


def _interleave(one: NDArray[np.intp], other: NDArray[np.intp]) -> bool:
    """Whether positions along the normal change from one group to the other more often than those of blocks do."""
    owner = np.repeat([0, 1], [len(one), len(other)])
    owner = owner[np.lexsort((owner, np.concatenate([one, other])))]
    return bool(np.count_nonzero(np.diff(owner)) > min(len(one), len(other)))


def _is_even(positions: NDArray[np.intp]) -> bool:
    return bool(np.ptp(np.diff(positions)) == 0)

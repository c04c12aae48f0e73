"""What was measured in one case."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Intensity:
    """Values of foreground voxels, as stored and scaled by the header: percentiles, mean, standard deviation."""

    p00_5: float
    p01: float
    p50: float
    p99: float
    p99_5: float
    mean: float
    std: float


@dataclass(frozen=True)
class CaseFacts:
    """One case, its axes turned to run right, front and up as far as they do (RAS); a picture's are rows and columns.

    Volumes are in ml; of pictures, whose pixels are 1 by 1, in thousands of pixels. A class that is not in the case
    has 0.
    """

    name: str
    size: tuple[int, ...]  # voxels
    spacing: tuple[float, ...]  # mm, or 1 pixel
    orientation: str  # of the axes as stored: "RAS", "LPS", ...; "" of a picture
    dtype: str  # of the image as stored
    label_dtype: str
    volumes_ml: dict[str, float]  # class -> ml, background left out
    extent_mm: tuple[float, ...]  # the box about all foreground; zeros without any
    ranges: tuple[tuple[float, float], ...]  # least and largest value of each channel, all voxels
    intensity: tuple[Intensity, ...]  # of each channel; empty without foreground

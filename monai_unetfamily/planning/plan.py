"""A plan: everything that a bundle needs to know, as values, with the reasons."""

from dataclasses import dataclass
from typing import Literal

from monai_unetfamily.nets.layers import Axes
from monai_unetfamily.planning.decisions import Decision
from monai_unetfamily.planning.memory import Network


@dataclass(frozen=True)
class Scaling:
    """How values are brought to the network: "range" clips to low..high and scales to 0..1, "z-score" is per image."""

    kind: Literal["range", "z-score"]
    low: float = 0.0
    high: float = 0.0


@dataclass(frozen=True)
class Augmentation:
    """Random changes while training, along the axes of the cropped image: radians about each, share of the scale."""

    rotation: tuple[float, ...]
    scale: tuple[float, ...]
    noise: float
    contrast: bool


@dataclass(frozen=True)
class Window:
    """The sliding window of prediction and validation."""

    size: Axes
    overlap: float


@dataclass(frozen=True)
class Schedule:
    """How long training goes on, and how it is watched."""

    learning_rate: float
    epochs: int
    epoch_batches: int
    minutes: float | None
    val_interval: int
    val_cases: int


@dataclass(frozen=True)
class Plan:
    """What is decided for a data set.

    Attributes:
        network: with its stages; of 2.5-D it takes all slices' channels.
        slice_axis, neighbours: of a 2-D network on volumes (RAS); None and 0 otherwise.
        spacing: of the resampled image, mm, 0 along an axis that is not resampled; None of pictures.
        patch: voxels along the network's axes.
        batch_size, accumulation: patches a step, and steps of which the gradients are summed.
        scaling, augmentation, window, schedule: as their classes say.
        balanced: whether half the patches are centred on a class; otherwise a patch is anywhere.
        mirror_axes: of the image, along which training mirrors and prediction may.
        batch_dice: whether Dice is taken over the whole batch.
        decisions: what was decided, with reasons.
    """

    network: Network
    slice_axis: int | None
    neighbours: int
    spacing: tuple[float, ...] | None
    patch: Axes
    batch_size: int
    accumulation: int
    scaling: Scaling
    augmentation: Augmentation
    balanced: bool
    mirror_axes: tuple[int, ...]
    batch_dice: bool
    window: Window
    schedule: Schedule
    decisions: tuple[Decision, ...]

    @property
    def spatial_dims(self) -> int:
        """Axes of the network."""
        return self.network.spatial_dims

    @property
    def crop(self) -> Axes:
        """What training cuts from the image: the patch, with the slices beside it."""
        if self.slice_axis is None:
            return self.patch
        return (*self.patch[: self.slice_axis], 2 * self.neighbours + 1, *self.patch[self.slice_axis :])

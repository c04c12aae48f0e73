"""Sliding-window inference as a MONAI inferer: windows are run through networks and their scores blended."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, compress, product
from typing import Any, NamedTuple

import torch
from monai.data.meta_tensor import MetaTensor
from monai.data.utils import compute_importance_map
from monai.inferers import Inferer
from monai.utils import BlendMode, PytorchPadMode, ensure_tuple, ensure_tuple_rep, fall_back_tuple, look_up_option
from torch import Tensor

from monai_unetfamily.inferers.slabs import ScoreAccumulator, Slab
from monai_unetfamily.inferers.windows import Start, Windows, window_starts

# Windows on their way through a network: cut out, flipped, skipped, run, turned into scores.


Network = Callable[[Tensor], Tensor | list[Tensor]]


class Pass(NamedTuple):
    """A window of an item of the batch, flipped along some spatial axes."""

    start: Start
    item: int
    flips: tuple[int, ...]


@dataclass(frozen=True)
class WindowRunner:
    """Runs networks on windows of an image (N, channels, *spatial), padded as `windows` need it.

    Of several networks the scores are averaged. The other arguments are those of `WindowInferer`.
    """

    image: Tensor
    windows: Windows
    networks: Sequence[Network]
    background: bool | None
    skip_below: float | None
    sw_device: torch.device | str

    def run(self, batch: Sequence[Pass], skip: bool) -> list[Tensor | None]:
        """Each window's scores (classes, *roi), flipped as it is; None where it is skipped, if `skip` allows it."""
        crops = [self.windows.crop(self.image, *one) for one in batch]
        skipped = [skip and self._is_background(crop) for crop in crops]
        seen = [self.windows.stack(crop) for crop, without in zip(crops, skipped, strict=True) if not without]
        scores = iter(self._mean(torch.cat(seen).to(self.sw_device)) if seen else ())
        return [None if without else next(scores) for without in skipped]

    def upright(self, one: Pass, scores: Tensor | None, classes: int) -> Tensor:
        """A window's scores (classes, *roi), flipped back, from what `run` gave for it."""
        if scores is None:
            of_class = torch.zeros(classes, device=self.image.device)
            of_class[0] = float(bool(self.background))
            return of_class.reshape(-1, *[1] * len(self.windows.roi)).expand(-1, *self.windows.roi)
        return scores.flip([axis + 1 for axis in one.flips]) if one.flips else scores

    def _is_background(self, crop: Tensor) -> bool:
        return self.skip_below is not None and bool(crop.amax() <= self.skip_below)

    def _mean(self, x: Tensor) -> Tensor:
        """The mean of the networks' scores (N, classes, *roi)."""
        first, *others = self.networks
        scores = self._activated(self._logits(x, first))
        for network in others:
            scores = scores + self._activated(self._logits(x, network))
        return scores / len(self.networks) if others else scores

    def _activated(self, logits: Tensor) -> Tensor:
        if self.background is None:
            return logits
        return logits.float().softmax(dim=1) if self.background else logits.float().sigmoid()

    def _logits(self, x: Tensor, network: Network) -> Tensor:
        logits = _final(network(x))
        if logits.shape != (len(x), logits.shape[1], *x.shape[2:]):
            raise ValueError(
                f"the network gives {tuple(logits.shape)} for windows of {tuple(x.shape)}; (N, classes, *spatial) of "
                "the same N and voxels is needed: choose another window, or another network."
            )
        if self.background and logits.shape[1] < 2:
            raise ValueError("the network gives 1 channel, which softmax turns into ones: use background=False.")
        return self.windows.unstack(logits)


def _final(output: Tensor | list[Tensor]) -> Tensor:
    """A network's one map; MONAI's BasicUNetPlusPlus without deep supervision returns it in a list.

    Raises:
        ValueError: several maps, of which nobody knows the final one.
    """
    if not isinstance(output, list):
        return output
    if len(output) != 1:
        raise ValueError(f"the network gives {len(output)} maps; one is needed: build it without deep supervision.")
    return output[0]


# The sliding window, as a MONAI inferer that a bundle names in its config.

_DTYPES = {name: getattr(torch, name) for name in ("float32", "float16")}  # bfloat16 errs ten times more


class WindowInferer(Inferer):
    """Slide a network over a volume and blend its windows, whole or slab by slab.

    Windows, weights and padding are those of MONAI's SlidingWindowInferer, whose names these are, with one difference:
    windows are evenly spread (`windows.spread`). Blended are probabilities: the windows of a guided network must not be
    blended as logits, a mean of which would let a few windows that say "absent" veto their neighbours.

    A 2-D `roi_size` on a 3-D volume runs slice by slice along `slice_axis` (as MONAI's SliceInferer), with `neighbours`
    slices from either side as further channels (2.5-D): channels (z-n, ..., z, ..., z+n), the outermost slices
    repeated at the ends.

    Args:
        roi_size: window, in voxels: as many numbers as the network has spatial axes, or one for all axes; None, or a
            number below 1, is the whole axis.
        background: whether channel 0 is background (softmax), or every channel a class of its own (sigmoid); None
            blends what the network returns.
        overlap: of neighbouring windows, as a fraction of the window: one number, or one an axis.
        mode: blending weights, "gaussian" or "constant".
        sigma_scale: standard deviation of the Gaussian, as a fraction of the window: one number, or one an axis.
        sw_batch_size: windows that go through the network at once.
        padding_mode, cval: of volumes smaller than the window, in the words of `torch.nn.functional.pad`.
        sw_device: where the network is; by default the device of the inputs.
        device: where scores are summed and returned; by default the device of the inputs.
        dtype: in which scores are summed and returned: "float32", or "float16", which halves the memory and errs by
            0.002 of a probability (0.008 at an overlap of 0.75): so it changes labels only where two classes tie.
        skip_below: a window without any value above this, in the units of the preprocessed image, is not run: all of it
            is background, or no class. Exact where the network says so of every such window. The first batch is always
            run, since it tells the number of classes.
        mirror_axes: spatial axes of the image; scores are the mean over all 2^n ways to flip each window along them.
        slice_axis: 0, 1 or 2, for 2-D networks on volumes.
        neighbours: slices from either side, for 2-D networks on volumes.

    Raises:
        ValueError: for parameters outside these, inputs whose axes the window does not fit, a network whose output is
            no map of its input's size, and one channel where there is a background.

    >>> inferer = WindowInferer((4, 4), neighbours=1)
    >>> inferer(torch.zeros(1, 1, 6, 5, 3), lambda x: torch.cat([x[:, :1], x[:, 1:2]], dim=1)).shape
    torch.Size([1, 2, 6, 5, 3])
    """

    def __init__(
        self,
        roi_size: Sequence[int | None] | int,
        *,
        background: bool | None = True,
        overlap: Sequence[float] | float = 0.5,
        mode: str = "gaussian",
        sigma_scale: Sequence[float] | float = 0.125,
        sw_batch_size: int = 1,
        padding_mode: str = "constant",
        cval: float = 0.0,
        sw_device: torch.device | str | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | str = torch.float32,
        skip_below: float | None = None,
        mirror_axes: Sequence[int] = (),
        slice_axis: int = 2,
        neighbours: int = 0,
    ) -> None:
        super().__init__()
        self.roi_size = roi_size if isinstance(roi_size, int) else tuple(roi_size)
        self.background = background
        self.overlap = overlap
        self.mode = look_up_option(mode, BlendMode)
        self.sigma_scale = sigma_scale
        self.sw_batch_size = sw_batch_size
        self.padding_mode = look_up_option(padding_mode, PytorchPadMode)
        self.cval = cval
        self.sw_device = sw_device
        self.device = device
        _require(str(dtype).removeprefix("torch.") in _DTYPES, f"dtype is {dtype}", ", ".join(_DTYPES))
        self.dtype = _DTYPES[str(dtype).removeprefix("torch.")]
        self.skip_below = skip_below
        self.mirror_axes = tuple(mirror_axes)
        self.slice_axis = slice_axis
        self.neighbours = neighbours
        self.check()

    def __call__(self, inputs: Tensor, network: Callable[..., Tensor], *args: Any, **kwargs: Any) -> Tensor:
        """Scores (N, classes, *spatial) of (N, channels, *spatial); those of a MetaTensor are one.

        `args` and `kwargs` are for the network.
        """
        image, windows = _plain(inputs), self.windows(inputs.shape[2:])
        axis = windows.thinnest()
        accumulator = self._front(image, windows, axis, windows.size[axis])
        for _ in self._slide(image, [lambda x: network(x, *args, **kwargs)], accumulator):
            pass
        return (
            MetaTensor(accumulator.sums).copy_meta_from(inputs, False)
            if isinstance(inputs, MetaTensor)
            else accumulator.sums
        )

    def slabs(
        self,
        inputs: Tensor,
        network: Network | Sequence[Network],
        axis: int | None = None,
        part: Sequence[slice] | None = None,
    ) -> Iterator[Slab]:
        """The same scores in slabs along a spatial axis, each as soon as no later window changes it.

        Of several networks, an ensemble, each window's scores are the mean.

        Slabs come in order and cover the volume once. Memory is that of a window's planes along `axis`, by default the
        one where that is least, however long the axis. An empty slab follows each batch of windows, with which a caller
        may show how far the run is, or close the generator: the network is not called again. No gradients are kept.

        Where a `part` is wanted alone, one slice per spatial axis, slabs are the same, and so are their scores in it to
        the last bit; outside they mean nothing. Batches of which no window touches the part are not run.

        >>> volume, labels = torch.rand(1, 1, 9, 4, 4), torch.zeros(1, 9, 4, 4)
        >>> for slab in WindowInferer((4, 4, 4)).slabs(volume, lambda x: torch.cat([0.5 - x, x - 0.5], dim=1)):
        ...     labels[:, *slab.where] = slab.scores.argmax(dim=1).float()
        >>> f"{slab.done} of {slab.total}", bool((labels == (volume[:, 0] > 0.5)).all())
        ('4 of 4', True)
        """
        image, windows = _plain(inputs), self.windows(inputs.shape[2:])
        if axis is None:
            axis = windows.thinnest()
        if axis not in range(len(windows.size)):
            raise ValueError(f"axis is {axis}; the image's spatial axes are 0 to {len(windows.size) - 1}.")
        networks = network if isinstance(network, Sequence) else [network]
        accumulator = self._front(image, windows, axis, windows.roi[axis], part)
        return torch.no_grad()(self._slide)(image, networks, accumulator)

    def _slide(self, inputs: Tensor, networks: Sequence[Network], accumulator: ScoreAccumulator) -> Iterator[Slab]:
        windows = accumulator.windows
        image = windows.pad(inputs, self.padding_mode, self.cval)
        runner = WindowRunner(
            image, windows, networks, self.background, self.skip_below, self.sw_device or image.device
        )
        batches = self._batches(accumulator)
        accumulator.total = sum(map(len, batches))
        for batch in batches:
            yield from _blend(batch, runner, accumulator)
            yield accumulator.report()
        yield from accumulator.close(windows.size[accumulator.axis])

    def _batches(self, accumulator: ScoreAccumulator) -> list[list[Pass]]:
        """The batches that are run, each whole, so that rounding is the same whatever part is wanted."""
        axes, windows = self.mirror_axes, accumulator.windows
        mirrors = [flips for n in range(len(axes) + 1) for flips in combinations(axes, n)]
        starts = windows.along(accumulator.axis)
        passes = [
            Pass(start, item, flips) for start in starts for item in range(accumulator.items) for flips in mirrors
        ]
        batches = [passes[first : first + self.sw_batch_size] for first in range(0, len(passes), self.sw_batch_size)]
        touching = set(product(*windows.touching(accumulator.part)))
        wanted = [any(one.start in touching for one in batch) for batch in batches]
        wanted[0] |= self.skip_below is not None or not any(wanted)  # it tells the number of classes
        return list(compress(batches, wanted))

    def _front(
        self, image: Tensor, windows: Windows, axis: int, planes: int, part: Sequence[slice] | None = None
    ) -> ScoreAccumulator:
        sigma = self._along(self.sigma_scale, windows.size, across=1.0)
        device = self.device or image.device
        weight = compute_importance_map(windows.roi, self.mode, sigma, device)
        part = part or [slice(0, size) for size in windows.size]
        return ScoreAccumulator(windows, len(image), weight, 2 ** len(self.mirror_axes), axis, planes, self.dtype, part)

    def windows(self, size: tuple[int, ...]) -> Windows:
        """The windows of a volume of `size` voxels per axis."""
        self._check_axes(len(size))
        roi = fall_back_tuple(self._along(self.roi_size, size, across=1), size)
        overlap = self._along(self.overlap, size, across=0.0)
        starts = tuple(map(window_starts, size, roi, overlap))
        return Windows(size, roi, starts, self.slice_axis if self._is_flat(size) else None, self.neighbours)

    def _is_flat(self, size: Sequence[int]) -> bool:
        """Whether a 2-D window slides over a volume."""
        return len(size) == 3 and not isinstance(self.roi_size, int) and len(self.roi_size) == 2

    def _along(self, values: Any, size: Sequence[int], across: float) -> tuple[Any, ...]:
        """One value for each axis of the volume, `across` for the slices of a 2-D window."""
        flat = self._is_flat(size)
        along = ensure_tuple_rep(values, len(size) - flat)
        return (*along[: self.slice_axis], across, *along[self.slice_axis :]) if flat else along

    def _check_axes(self, axes: int) -> None:
        window = self.roi_size
        if not isinstance(window, int) and len(window) != axes and (len(window), axes) != (2, 3):
            raise ValueError(
                f"image has {axes} spatial axes; a window of {window} voxels takes {len(window)}"
                f"{' or 3' if len(window) == 2 else ''}: choose a bundle for such images."
            )
        if self.neighbours and not self._is_flat(range(axes)):
            raise ValueError(
                f"neighbours is {self.neighbours}, for slices of a volume under a window of two axes; the image has "
                f"{axes} spatial axes, the window is {window}: use neighbours=0."
            )
        if any(axis >= axes for axis in self.mirror_axes):
            raise ValueError(f"mirror_axes are {self.mirror_axes}; the image's spatial axes are 0 to {axes - 1}.")

    def check(self) -> None:
        """Refuse what fits no image."""
        lengths = {1, 1 if isinstance(self.roi_size, int) else len(self.roi_size)}
        overlap, sigma, mirrors = ensure_tuple(self.overlap), ensure_tuple(self.sigma_scale), self.mirror_axes
        each = "one, or one for each axis of roi_size"
        _require(all(0 <= o < 1 for o in overlap), f"overlap is {self.overlap}", "fractions from 0 to below 1")
        _require(len(overlap) in lengths, f"overlap is {self.overlap}", each)
        _require(all(s > 0 for s in sigma), f"sigma_scale is {self.sigma_scale}", "fractions above 0")
        _require(len(sigma) in lengths, f"sigma_scale is {self.sigma_scale}", each)
        _require(self.sw_batch_size >= 1, f"sw_batch_size is {self.sw_batch_size}", "1 or more")
        _require(self.slice_axis in (0, 1, 2), f"slice_axis is {self.slice_axis}", "0, 1 or 2")
        _require(self.neighbours >= 0, f"neighbours is {self.neighbours}", "0 or more")
        _require(
            len({*mirrors}) == len(mirrors) and all(a >= 0 for a in mirrors),
            f"mirror_axes are {mirrors}",
            "different axes, from 0 up",
        )
        _require(
            self.skip_below is None or self.background is not None,
            "skip_below is given with background=None",
            "True or False: what a skipped window holds",
        )


def _blend(batch: Sequence[Pass], runner: WindowRunner, accumulator: ScoreAccumulator) -> Iterator[Slab]:
    for one, scores in zip(batch, runner.run(batch, skip=accumulator.classes > 0), strict=True):
        yield from accumulator.add(one.item, one.start, runner.upright(one, scores, accumulator.classes))


def _plain(inputs: Tensor) -> Tensor:
    return inputs.as_tensor() if isinstance(inputs, MetaTensor) else inputs


def _require(holds: bool, got: str, allowed: str) -> None:
    if not holds:
        raise ValueError(f"{got}; allowed: {allowed}.")

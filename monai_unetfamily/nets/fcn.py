"""FCN-32s, FCN-16s and FCN-8s.

Long, Shelhamer, Darrell: "Fully Convolutional Networks for Semantic Segmentation", CVPR 2015 (arXiv 1411.4038). With
stages counted from 0, the classifier (fc6, fc7) as the last one N, and D max pooling:

    En[0] = H(x),   En[i] = H(D(En[i-1])),   En[N] = fc7(fc6(D(En[N-1])))
    S[N] = score(En[N]),   S[i] = score(D(En[i-1])) + U(S[i+1])

The prediction is U(S[N - skips]): with five poolings, skips = 0, 1, 2 are strides 32, 16, 8. U multiplies the grid by s
with a transposed convolution of size 2s, one kernel for each class and no bias, set to linear interpolation.

A network's weights start one with more skips, as in the paper: `start_from` takes them, and the finer scores start at
zero.

Deviations, each by an argument except the last four:
- any number of stages, any stride and kernel per stage and axis, norm (paper: VGG-16, without norm);
- supervision of the coarser predictions too (paper: of the final one);
- the kernels of U are fixed, all of them, as in the reference code, or all learned (paper: those between stages);
- the classifier convolves with zero padding, and the image is padded with zeros at its far edges to a multiple of the
  deepest stride (reference code: by 100 on every side, and cropped);
- a kernel for an odd factor s has size 2s - 1, as size 2s cannot be symmetric about its voxel there;
- three dimensions: trilinear kernels; `preset="paper"` shrinks fc6 to 3x3x3 and fc6 and fc7 to 512 channels, since the
  literal 7x7x7 to 4096 would have 719 million weights;
- nothing is pretrained.
"""

from collections.abc import Mapping, Sequence
from functools import partial, reduce
from math import prod
from typing import Any

import torch
from monai.networks.layers.factories import Conv
from torch import Tensor, nn
from torch.nn import functional as F

from monai_unetfamily.nets.arguments import check_construction, check_input, check_shape, per_stage, per_stage_count
from monai_unetfamily.nets.layers import Axes, ConvBlock, Layer, PerStage, conv_head, fit, max_pool


class SkipFCN(nn.Module):
    """An encoder that classifies coarse cells, its scores refined by those of finer stages, and upsampled.

    `forward` takes (N, in_channels, *spatial) and returns logits (N, out_channels, *spatial): one tensor in `eval()`;
    in `train()` with deep supervision the list of predictions from S[N - skips], ..., S[N], all at input size.

    Args:
        spatial_dims: 2 or 3.
        in_channels: channels of the image.
        out_channels: classes, the background included where there is one.
        skips: finer stages whose scores are added: at most len(features) - 2.
        features: widths of the stages, finest first; the last one is the classifier's.
        strides: pooling between stages: a number, or one entry for each step (1 = none; or per axis).
        kernel_size: of the convolutions: a number, or one entry for each stage (or per axis), odd; of the classifier's
            two convolutions the second is 1x1.
        convolutions: in a block: a number, or one for each stage but the classifier.
        act, norm: as MONAI's factories take them: a name, or a name with its arguments.
        dropout: probability after each of the classifier's two convolutions.
        learned_upsampling: train the kernels of U, which are fixed otherwise.
        deep_supervision: train the predictions of the skipped stages too; it needs no further weights, save U's where
            these are learned (`full.*`).
        use_checkpoint: activation checkpointing: less memory in training, more time, the same gradients.

    Raises:
        ValueError: for arguments or inputs that cannot work; the message says what is allowed.

    >>> net = SkipFCN(2, 1, 3, skips=1, features=(4, 8, 8, 16), norm=None, deep_supervision=True)
    >>> [tuple(prediction.shape) for prediction in net(torch.zeros(1, 1, 9, 12))]
    [(1, 3, 9, 12), (1, 3, 9, 12)]
    >>> net.eval()(torch.zeros(1, 1, 9, 12)).shape
    torch.Size([1, 3, 9, 12])
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        *,
        skips: int = 2,
        features: Sequence[int] = (32, 64, 128, 256, 512, 512),
        strides: PerStage = 2,
        kernel_size: PerStage = 3,
        convolutions: int | Sequence[int] = 2,
        act: Layer = ("leakyrelu", {"inplace": True}),
        norm: Layer = ("instance", {"affine": True}),
        dropout: float = 0.5,
        learned_upsampling: bool = False,
        deep_supervision: bool = False,
        use_checkpoint: bool = False,
    ) -> None:
        super().__init__()
        check_construction(spatial_dims, in_channels, out_channels, features, norm, act)
        self.spatial_dims, self.in_channels = spatial_dims, in_channels
        self.N = N = len(features) - 1
        _check_skips(skips, len(features))
        self.strides = per_stage(strides, N, spatial_dims, "strides")
        kernels = per_stage(kernel_size, N + 1, spatial_dims, "kernel_size", odd=True)
        counts = per_stage_count(convolutions, N, "convolutions")
        self._check = partial(
            check_input, spatial_dims=spatial_dims, in_channels=in_channels, strides=self.strides, norm=norm
        )
        self.deep_supervision = deep_supervision
        self.learned_upsampling = learned_upsampling
        layers: dict[str, Any] = {"act": act, "norm": norm, "use_checkpoint": use_checkpoint}

        self.D = nn.ModuleList(max_pool(spatial_dims, stride) for stride in self.strides)
        self.En = nn.ModuleList(
            ConvBlock(spatial_dims, a, b, kernel_size=kernel, convolutions=count, **layers)
            for a, b, kernel, count in zip([in_channels, *features], features, kernels, counts, strict=False)
        )
        fc: dict[str, Any] = {"convolutions": 1, "dropout": dropout, **layers}
        self.En.append(
            nn.Sequential(
                ConvBlock(spatial_dims, features[N - 1], features[N], kernel_size=kernels[N], **fc),
                ConvBlock(spatial_dims, features[N], features[N], kernel_size=1, **fc),
            )
        )
        self.scored = list(range(N, N - skips - 1, -1))  # coarsest first
        self.S = nn.ModuleDict()
        self.full = nn.ModuleDict()
        upsample = partial(LinearTransposed, spatial_dims, out_channels, learned=learned_upsampling)
        for i in self.scored:
            up = upsample(self.strides[i]) if i < N else None
            self.S[str(i)] = Score(conv_head(spatial_dims, features[i if i == N else i - 1], out_channels, 1), up)
        for i in self.scored if deep_supervision else self.scored[-1:]:
            self.full[str(i)] = upsample(_total(self.strides[:i], spatial_dims))

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        """Logits of (N, in_channels, *spatial); see the class."""
        S = self.nodes(x)
        final, *coarser = (fit(self.full[str(i)](S[i]), x.shape[2:]) for i in self._wanted())
        return [final, *coarser] if self.training and self.deep_supervision else final

    def nodes(self, x: Tensor) -> dict[int, Tensor]:
        """S[i] by i, each (N, out_channels, *grid of stage i)."""
        check_shape(x, self.spatial_dims, self.in_channels)
        x = _pad_to_multiple(x, self.strides)
        self._check(x, training=self.training)
        N = self.N
        En = {0: self.En[0](x)}
        pooled = {}
        for i in range(1, N + 1):
            pooled[i] = self.D[i - 1](En[i - 1])
            En[i] = self.En[i](pooled[i])
        S = {N: self.S[str(N)](En[N])}
        for i in self.scored[1:]:
            S[i] = self.S[str(i)](pooled[i], S[i + 1])
        return S

    def start_from(self, weights: Mapping[str, Tensor]) -> None:
        """Load the weights of this network, or of one with fewer skips, from which the paper trains on.

        What the latter lacks begins anew: finer scores at zero, kernels of U that are learned at linear interpolation.

        >>> coarse, fine = (SkipFCN(2, 1, 3, skips=n, features=(4, 8, 8, 8)) for n in (0, 2))
        >>> fine.start_from(coarse.state_dict())

        Raises:
            RuntimeError: for any other weights, as `load_state_dict` does.
        """
        known = [i for i in self.scored if any(key.startswith(f"S.{i}.") for key in weights)]
        new = self.scored[len(known) :] if known and known == self.scored[: len(known)] else []
        lacking = {f"S.{i}.": self.S[str(i)] for i in new}
        if new:
            lacking |= {f"full.{i}.": up for i, up in self.full.items() if f"full.{i}.conv.weight" not in weights}
        for part in lacking.values():
            part.reset()  # type: ignore[operator]
        own = self.state_dict()
        begun = {key: value for key, value in own.items() if key.startswith(tuple(lacking))}
        last = {key for key in weights if new and self.learned_upsampling and key.startswith("full.")} - own.keys()
        self.load_state_dict({key: value for key, value in weights.items() if key not in last} | begun)

    def _wanted(self) -> list[int]:
        """Stages whose prediction is returned, finest first."""
        return self.scored[::-1] if self.training and self.deep_supervision else self.scored[-1:]


class Score(nn.Module):
    """S[i]: a 1x1 convolution to one score a class, plus the coarser stage's scores, upsampled.

    A score that is added to others starts at zero, so that the network starts with the coarser one's prediction.

    >>> score = Score(nn.Conv2d(8, 3, 1), LinearTransposed(2, 3, (2, 2)))
    >>> score(torch.zeros(1, 8, 4, 4), torch.zeros(1, 3, 2, 2)).shape
    torch.Size([1, 3, 4, 4])
    """

    def __init__(self, conv: nn.Module, up: "LinearTransposed | None") -> None:
        super().__init__()
        self.conv = conv
        self.up = up
        if up is not None:
            self.reset()

    def reset(self) -> None:
        """Begin anew: this score at zero, the upsampling linear."""
        for parameter in self.conv.parameters():
            nn.init.zeros_(parameter)
        if self.up is not None:
            self.up.reset()

    def forward(self, features: Tensor, coarser: Tensor | None = None) -> Tensor:
        """Map (N, C, *grid), and the scores (N, classes, *coarser grid), to (N, classes, *grid)."""
        scores: Tensor = self.conv(features)
        return scores if self.up is None else scores + self.up(coarser)


class LinearTransposed(nn.Module):
    """Transposed convolution, a channel at a time, that multiplies the grid by `stride` with linear weights.

    Away from the edges it is linear interpolation (`align_corners=False`); beyond them it takes zeros.

    >>> LinearTransposed(2, 1, (2, 1))(torch.ones(1, 1, 3, 1)).flatten().tolist()
    [0.75, 1.0, 1.0, 1.0, 1.0, 0.75]
    """

    def __init__(self, spatial_dims: int, channels: int, stride: Axes, *, learned: bool = False) -> None:
        super().__init__()
        kernels = [_triangle(s) for s in stride]
        self.conv = Conv[Conv.CONVTRANS, spatial_dims](
            channels,
            channels,
            kernel_size=[len(k) for k in kernels],
            stride=stride,
            padding=[(len(k) - s) // 2 for k, s in zip(kernels, stride, strict=True)],
            groups=channels,
            bias=False,
        )
        if not learned:
            weight = self.conv.weight.detach()
            del self.conv.weight
            self.conv.register_buffer("weight", weight, persistent=False)
        self.stride = stride
        self.reset()

    def reset(self) -> None:
        """Set the weights to linear interpolation."""
        first, *others = (_triangle(s) for s in self.stride)
        kernel = reduce(lambda product, axis: product[..., None] * axis, others, first)
        with torch.no_grad():
            self.conv.weight.copy_(kernel.expand_as(self.conv.weight))

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, *grid) to (N, C, *grid * stride)."""
        y: Tensor = self.conv(x)
        return y


def _triangle(stride: int) -> Tensor:
    """Weights of linear interpolation by `stride` along one axis.

    >>> _triangle(2).tolist(), _triangle(1).tolist()
    ([0.25, 0.75, 0.75, 0.25], [1.0])
    """
    size = 2 * stride - stride % 2
    places = torch.arange(size) - (size - 1) / 2
    return 1 - places.abs() / stride


def _total(strides: Sequence[Axes], spatial_dims: int) -> Axes:
    return tuple(prod(s[axis] for s in strides) for axis in range(spatial_dims))


def _pad_to_multiple(x: Tensor, strides: Sequence[Axes]) -> Tensor:
    total = _total(strides, x.ndim - 2)
    missing = [pad for n, s in zip(x.shape[:1:-1], total[::-1], strict=True) for pad in (0, -n % s)]
    return F.pad(x, missing)


def _check_skips(skips: int, stages: int) -> None:
    if stages < 2:
        raise ValueError(f"features has {stages} entry; an encoder and a classifier need at least 2: add a stage.")
    if not 0 <= skips <= stages - 2:
        raise ValueError(
            f"skips is {skips} with {stages} stages; allowed are 0 to {stages - 2}: use fewer skips or more stages."
        )

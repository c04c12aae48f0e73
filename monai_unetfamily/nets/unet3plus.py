"""UNet 3+, the full-scale connected U-Net.

Huang, Lin, Tong, Hu, Zhang, Iwamoto, Han, Chen, Wu: "UNet 3+: A Full-Scale Connected UNet for Medical Image
Segmentation", ICASSP 2020 (arXiv 2004.08790), eq. 1, with stages counted from 0 and the last one N:

    De[i] = H([C(D(En[k])) for k < i, C(En[i]), C(U(De[k])) for k > i]),   De[N] = En[N]

C is one convolution to `skip_channels`, D max pooling, U linear interpolation: each branch is resampled first and
convolved then. H fuses the N + 1 branches by one convolution. Each C and H is followed by norm and activation. C(U(x))
is computed on the coarse grid where that is cheaper (upsampling.py): the same numbers.

Deviations, each by an argument except the last two:
- any number of stages, any stride and kernel per stage and axis (paper: five, 2x2, 3x3);
- any norm and activation, by default instance norm and leaky ReLU (paper: batch norm and ReLU);
- an encoder of residual blocks (paper: its second table has a ResNet-101 that was pretrained; nothing here is);
- several classes (paper: binary) and three dimensions;
- the classification-guided module is repaired: see cgm.py;
- pooling floors everywhere (published code: skips round up while encoders floor, so odd sizes fail there).
"""

from collections.abc import Mapping, Sequence
from functools import partial
from math import prod
from typing import Any, cast

import torch
from torch import Tensor, nn

from monai_unetfamily.nets.arguments import check_choice, check_construction, check_input, per_stage
from monai_unetfamily.nets.cgm import ClassificationGuide, GuidedOutput
from monai_unetfamily.nets.layers import (
    BLOCKS,
    Axes,
    ConvBlock,
    Layer,
    PerStage,
    UpsampleConv,
    conv_head,
    max_pool,
    resize,
    values_are_symbols,
)


class UNet3Plus(nn.Module):
    """Full-scale skips, full-scale deep supervision, classification-guided module.

    `forward` takes (N, in_channels, *spatial) and returns logits (N, out_channels, *spatial): one tensor in `eval()`;
    in `train()` with deep supervision the list of heads on De[0], De[1], ..., En[N], all at input size; in `train()`
    with `cgm` a `GuidedOutput` of those and the presence logits.

    Args:
        spatial_dims: 2 or 3.
        in_channels: channels of the image.
        out_channels: classes, the background included where there is one.
        features: widths of the encoder's stages, finest first.
        encoder: blocks of the encoder: "plain" (the paper) or "residual".
        skip_channels: width c of each branch; a decoder node has len(features) * c channels.
        strides: pooling between stages: a number, or one entry for each step (1 = none; or per axis).
        kernel_size: of the convolutions: a number, or one entry for each stage (or per axis), odd.
        act, norm: as MONAI's factories take them: a name, or a name with its arguments.
        dropout: probability after each norm.
        deep_supervision: a head on every coarser decoder node and on the bottleneck too.
        cgm: add the classification-guided module.
        background: whether channel 0 is background (softmax), or every channel a class of its own (sigmoid).
        presence_threshold: of the CGM: a probability, or one for each foreground class.
        exit_when_absent: in `eval()`, decode the samples alone in which the CGM finds a class; what the others give is
            known (cgm.py). The labels are the same; eager alone: what is traced, exported or compiled decodes all.
        use_checkpoint: activation checkpointing: less memory in training, more time, the same gradients.

    Raises:
        ValueError: for arguments or inputs that cannot work; the message says what is allowed.

    >>> import torch
    >>> net = UNet3Plus(2, 1, 3, features=(4, 8, 16), skip_channels=4, deep_supervision=True, cgm=True)
    >>> out = net(torch.zeros(1, 1, 9, 12))
    >>> [tuple(head.shape) for head in out.logits], tuple(out.presence.shape)
    ([(1, 3, 9, 12), (1, 3, 9, 12), (1, 3, 9, 12)], (1, 2))
    >>> net.eval()(torch.zeros(1, 1, 9, 12)).shape
    torch.Size([1, 3, 9, 12])
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        *,
        features: Sequence[int] = (64, 128, 256, 512, 1024),
        encoder: str = "plain",
        skip_channels: int = 64,
        strides: PerStage = 2,
        kernel_size: PerStage = 3,
        act: Layer = ("leakyrelu", {"inplace": True}),
        norm: Layer = ("instance", {"affine": True}),
        dropout: float = 0.0,
        deep_supervision: bool = False,
        cgm: bool = False,
        background: bool = True,
        presence_threshold: float | Sequence[float] = 0.5,
        exit_when_absent: bool = False,
        use_checkpoint: bool = False,
    ) -> None:
        super().__init__()
        if not isinstance(skip_channels, int) or skip_channels < 1:
            raise ValueError(f"skip_channels is {skip_channels!r}; a whole number of at least 1 is needed.")
        if presence_threshold != 0.5 and not cgm:
            raise ValueError(f"presence_threshold is {presence_threshold} without cgm; drop it, or set cgm=True.")
        if exit_when_absent and not cgm:
            raise ValueError("exit_when_absent is True without cgm, which decides what is absent: set cgm=True.")
        branches = [skip_channels, len(features) * skip_channels] if isinstance(features, Sequence) else []
        check_construction(spatial_dims, in_channels, out_channels, features, norm, act, branches)
        check_choice("encoder", encoder, list(BLOCKS))
        self.strides = per_stage(strides, len(features) - 1, spatial_dims, "strides")
        kernels = per_stage(kernel_size, len(features), spatial_dims, "kernel_size", odd=True)
        self._check = partial(
            check_input, spatial_dims=spatial_dims, in_channels=in_channels, strides=self.strides, norm=norm
        )
        self.deep_supervision = deep_supervision
        self.exit_when_absent = exit_when_absent
        self.N = N = len(features) - 1
        layers: dict[str, Any] = {"act": act, "norm": norm, "dropout": dropout, "use_checkpoint": use_checkpoint}

        self.D = nn.ModuleList(max_pool(spatial_dims, stride) for stride in self.strides)
        self.En = nn.ModuleList(
            BLOCKS[encoder](spatial_dims, a, b, kernel_size=kernel, **layers)
            for a, b, kernel in zip([in_channels, *features], features, kernels, strict=False)
        )
        widths = [(N + 1) * skip_channels] * N + [features[N]]
        self.C = nn.ModuleDict()
        self.De = nn.ModuleList()
        for i in range(N):
            for k in range(N + 1):
                source = features[k] if k <= i else widths[k]
                block = _branch(spatial_dims, source, skip_channels, self.strides[k:i], kernels[i], k > i, **layers)
                self.C[f"{i}_{k}"] = block
            H = ConvBlock(spatial_dims, widths[i], widths[i], kernel_size=kernels[i], convolutions=1, **layers)
            self.De.append(H)
        self.head = conv_head(spatial_dims, widths[0], out_channels, 3)
        self.auxiliary_heads = nn.ModuleList(
            conv_head(spatial_dims, width, out_channels, 3) for width in widths[1:] if deep_supervision
        )
        self.cgm = (
            ClassificationGuide(
                spatial_dims, features[N], out_channels, background=background, threshold=presence_threshold
            )
            if cgm
            else None
        )

    def forward(self, x: Tensor) -> Tensor | list[Tensor] | GuidedOutput:
        """Logits of (N, in_channels, *spatial); see the class."""
        En = self.encode(x)
        if not self.training:
            return self._evaluate(En)
        De = self.decode(En)
        heads = self.side_outputs(De) if self.deep_supervision else self.head(De[0])
        return heads if self.cgm is None else GuidedOutput(heads, self.cgm(En[-1]))

    def _evaluate(self, En: Sequence[Tensor]) -> Tensor:
        """The final head's logits, gated where there is a guide."""
        if self.cgm is None:
            return self._final(En)
        presence = self.cgm(En[-1])
        if self.exit_when_absent and not values_are_symbols(presence):
            return self.cgm.run_where_present(self._final, En, presence)
        return self.cgm.gate(self._final(En), presence)

    def _final(self, En: Sequence[Tensor]) -> Tensor:
        return cast(Tensor, self.head(self.decode(En)[0]))

    def nodes(self, x: Tensor) -> list[Tensor]:
        """De[0..N], finest first; De[i] is (N, len(features) * skip_channels, *grid of stage i)."""
        return self.decode(self.encode(x))

    def encode(self, x: Tensor) -> list[Tensor]:
        """En[0..N], finest first; En[i] is (N, features[i], *grid of stage i)."""
        self._check(x, training=self.training)
        En = [self.En[0](x)]
        for i in range(1, self.N + 1):
            En.append(self.En[i](self.D[i - 1](En[i - 1])))
        return En

    def decode(self, En: Sequence[Tensor]) -> list[Tensor]:
        """De[0..N] of En[0..N]."""
        N = self.N
        De = {N: En[N]}
        for i in reversed(range(N)):
            De[i] = self.De[i](torch.cat([self._C(i, k, En, De) for k in range(N + 1)], dim=1))
        return [De[i] for i in range(N + 1)]

    def _C(self, i: int, k: int, En: Sequence[Tensor], De: Mapping[int, Tensor]) -> Tensor:
        """The branch from stage k to stage i."""
        branch = self.C[f"{i}_{k}"]
        return cast(Tensor, branch(En[k]) if k <= i else branch(De[k], En[i].shape[2:]))

    def side_outputs(self, De: Sequence[Tensor]) -> list[Tensor]:
        """Logits of the head on each node, De[0] first, interpolated to input size after the head."""
        heads = [self.head, *self.auxiliary_heads]
        size = De[0].shape[2:]
        return [resize(head(node), size) for head, node in zip(heads, De, strict=True)]


def _branch(
    spatial_dims: int,
    in_channels: int,
    out_channels: int,
    strides: Sequence[Axes],
    kernel_size: Axes,
    upward: bool,
    **layers: Any,
) -> nn.Module:
    layers |= {"kernel_size": kernel_size}
    if upward:
        return UpsampleConv(spatial_dims, in_channels, out_channels, **layers)
    stride = tuple(prod(s[axis] for s in strides) for axis in range(spatial_dims))
    block = ConvBlock(spatial_dims, in_channels, out_channels, convolutions=1, **layers)
    return nn.Sequential(max_pool(spatial_dims, stride), block)

"""UNet++, the nested U-Net.

Zhou, Siddiquee, Tajbakhsh, Liang: "UNet++: A Nested U-Net Architecture for Medical Image Segmentation", 2018
(arXiv 1807.10165), and "UNet++: Redesigning Skip Connections ...", IEEE TMI 2020 (arXiv 1912.05074), eq. 1:

    X[i, j] = H(D(X[i-1, 0]))                            j = 0
              H([X[i, 0..j-1], U(X[i+1, j-1])])          j > 0

Deviations, each by an argument except the second:
- any number of stages, any stride and kernel per stage and axis (paper: five stages, 2x2 pooling, 3x3 kernels);
- `mode="accurate"` averages the heads' logits (paper: their probabilities), so that a network always returns logits;
- where flooring lost a remainder, U repeats the last plane to reach X[i, 0]'s size (paper: sizes divisible by 16).
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from monai_unetfamily.nets.blocks import (
    ConvBlock,
    Layer,
    LinearUp,
    PerStage,
    TransposedUp,
    check_construction,
    check_input,
    conv_head,
    max_pool,
    per_stage,
)


class UNetPlusPlus(nn.Module):
    """The nested grid of nodes X[i, j], i + j <= L, with heads on X[0, 1..L].

    `forward` takes (N, in_channels, *spatial) and returns logits (N, out_channels, *spatial): one tensor in `eval()`;
    in `train()` with deep supervision the list of heads L, L-1, ..., 1, all at input size.

    Args:
        spatial_dims: 2 or 3.
        in_channels: channels of the image.
        out_channels: classes, the background included where there is one.
        features: widths of the stages, finest first; L = len(features) - 1 and at least 1.
        strides: pooling between stages: a number, or one entry for each of the L steps (1 = none; or per axis).
        kernel_size: of the convolutions: a number, or one entry for each stage (or per axis), odd.
        upsample: "transposed" (the paper) or "linear" (no weights; the next block takes the wider map).
        act, norm: as MONAI's factories take them: a name, or a name with its arguments.
        dropout: probability after each norm.
        deep_supervision: heads on X[0, 1..L-1] too.
        mode: what `eval()` returns: "fast", the last head; "accurate", the mean of all heads' logits.

    Raises:
        ValueError: for arguments or inputs that cannot work; the message says what is allowed.

    >>> net = UNetPlusPlus(2, 1, 3, features=(4, 8, 16), deep_supervision=True)
    >>> [tuple(head.shape) for head in net(torch.zeros(1, 1, 9, 12))]
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
        features: Sequence[int] = (32, 64, 128, 256, 512),
        strides: PerStage = 2,
        kernel_size: PerStage = 3,
        upsample: str = "transposed",
        act: Layer = ("leakyrelu", {"inplace": True}),
        norm: Layer = ("instance", {"affine": True}),
        dropout: float = 0.0,
        deep_supervision: bool = False,
        mode: str = "fast",
    ) -> None:
        super().__init__()
        check_construction(spatial_dims, in_channels, out_channels, features, norm, act)
        _check_modes(len(features), upsample, mode, deep_supervision)
        self.levels = L = len(features) - 1
        self.strides = per_stage(strides, L, spatial_dims, "strides")
        kernels = per_stage(kernel_size, L + 1, spatial_dims, "kernel_size", odd=True)
        self.deep_supervision = deep_supervision
        self.mode = mode
        self._arguments: dict[str, Any] = {
            "spatial_dims": spatial_dims,
            "in_channels": in_channels,
            "out_channels": out_channels,
            "upsample": upsample,
            "act": act,
            "norm": norm,
            "dropout": dropout,
        }
        self._per_stage = {"features": tuple(features), "kernel_size": kernels}

        self.D = nn.ModuleList(max_pool(spatial_dims, stride) for stride in self.strides)
        self.U = nn.ModuleDict()
        self.H = nn.ModuleDict()
        for i, j in grid(L):
            if j > 0:
                self.U[f"{i}_{j}"] = _up(spatial_dims, features[i + 1], features[i], self.strides[i], upsample)
            self.H[f"{i}_{j}"] = ConvBlock(
                spatial_dims,
                fan_in(i, j, features, in_channels, upsample),
                features[i],
                kernel_size=kernels[i],
                act=act,
                norm=norm,
                dropout=dropout,
            )
        self.head = conv_head(spatial_dims, features[0], out_channels, 1)
        self.auxiliary_heads = nn.ModuleDict(
            {str(j): conv_head(spatial_dims, features[0], out_channels, 1) for j in range(L - 1, 0, -1)}
            if deep_supervision
            else {}
        )

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        """Logits of (N, in_channels, *spatial); see the class."""
        if self.training and self.deep_supervision:
            return self.side_outputs(x)
        if self.mode == "accurate":
            return torch.stack(self.side_outputs(x)).mean(dim=0)
        return self.head(self.nodes(x)[-1])

    def nodes(self, x: Tensor) -> list[Tensor]:
        """The finest row X[0, 0..L], each (N, features[0], *spatial)."""
        check_input(x, self._arguments["in_channels"], self.strides, self._arguments["norm"])
        X: dict[tuple[int, int], Tensor] = {}
        for i, j in grid(self.levels):
            if j == 0:
                inputs = x if i == 0 else self.D[i - 1](X[i - 1, 0])
            else:
                up = self.U[f"{i}_{j}"](X[i + 1, j - 1], X[i, 0].shape[2:])
                inputs = torch.cat([X[i, k] for k in range(j)] + [up], dim=1)
            X[i, j] = self.H[f"{i}_{j}"](inputs)
        return [X[0, j] for j in range(self.levels + 1)]

    def side_outputs(self, x: Tensor) -> list[Tensor]:
        """Logits of every head there is, the final one first, each (N, out_channels, *spatial)."""
        row = self.nodes(x)
        return [self.head(row[-1])] + [head(row[int(j)]) for j, head in self.auxiliary_heads.items()]

    def pruned(self, level: int) -> "UNetPlusPlus":
        """The network cut at `level`: nodes with i + j <= level and head `level` alone, with these weights copied.

        Its output equals head `level` of this network bit for bit (TMI 2020, section III-D). Pruning implies
        `mode="fast"`. Levels below L need the heads that deep supervision trains.

        >>> UNetPlusPlus(2, 1, 2, features=(4, 8, 16), deep_supervision=True).pruned(1).levels
        1

        Raises:
            ValueError: where this network has no head at that level.
        """
        allowed = sorted({self.levels} | {int(j) for j in self.auxiliary_heads})
        if level not in allowed:
            raise ValueError(
                f"level is {level}; this network has heads at {allowed}: choose one of them, or train with "
                "deep_supervision=True to have them all."
            )
        stages: dict[str, Any] = {name: value[: level + 1] for name, value in self._per_stage.items()}
        small = UNetPlusPlus(**self._arguments, **stages, strides=self.strides[:level]).to(next(self.parameters()))
        weights = {key: value for key, value in self.state_dict().items() if "head" not in key}
        head = self.head if level == self.levels else self.auxiliary_heads[str(level)]
        weights |= {f"head.{key}": value for key, value in head.state_dict().items()}
        small.load_state_dict({key: weights[key] for key in small.state_dict()})
        return small.train(self.training)


def grid(levels: int) -> list[tuple[int, int]]:
    """The nodes (i, j) with i + j <= levels, in an order in which each one's inputs come first.

    >>> grid(2)
    [(0, 0), (1, 0), (2, 0), (0, 1), (1, 1), (0, 2)]
    """
    return [(i, j) for j in range(levels + 1) for i in range(levels + 1 - j)]


def fan_in(i: int, j: int, features: Sequence[int], in_channels: int, upsample: str = "linear") -> int:
    """Channels that enter X[i, j]: j maps of its own row and the one that comes up.

    >>> fan_in(0, 2, (32, 64, 128), 1), fan_in(0, 2, (32, 64, 128), 1, "transposed")
    (128, 96)
    """
    if j == 0:
        return in_channels if i == 0 else features[i - 1]
    return j * features[i] + (features[i] if upsample == "transposed" else features[i + 1])


def _up(spatial_dims: int, in_channels: int, out_channels: int, stride: tuple[int, ...], upsample: str) -> nn.Module:
    if upsample == "linear":
        return LinearUp()
    return TransposedUp(spatial_dims, in_channels, out_channels, stride=stride)


def _check_modes(stages: int, upsample: str, mode: str, deep_supervision: bool) -> None:
    if stages < 2:
        raise ValueError(f"features has {stages} entry; a nested grid needs at least 2: add a stage.")
    if upsample not in ("transposed", "linear"):
        raise ValueError(f"upsample is {upsample!r}; allowed are 'transposed' and 'linear'.")
    if mode not in ("fast", "accurate"):
        raise ValueError(f"mode is {mode!r}; allowed are 'fast' and 'accurate'.")
    if mode == "accurate" and not deep_supervision:
        raise ValueError("mode is 'accurate', the mean of all heads; it needs deep_supervision=True.")

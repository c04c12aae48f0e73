"""UNet++, the nested U-Net, with its two relatives UNet^e and UNet+.

Zhou, Siddiquee, Tajbakhsh, Liang: "UNet++: A Nested U-Net Architecture for Medical Image Segmentation", 2018
(arXiv 1807.10165), and "UNet++: Redesigning Skip Connections ...", IEEE TMI 2020 (arXiv 1912.05074), eq. 1:

    X[i, j] = H(D(X[i-1, 0]))                            j = 0
              H([X[i, 0..j-1], U(X[i+1, j-1])])          j > 0    UNet++: a node sees all before it in its row
              H([X[i, j-1], U(X[i+1, j-1])])             j > 0    UNet+:  its neighbour alone
              H([X[i, 0], U(X[i+1, j-1])])               j > 0    UNet^e: the encoder's node alone

In UNet^e the nodes with i + j = d are the decoder of a U-Net of depth d: an ensemble that shares its encoder.

Deviations, each by an argument except the last two:
- any number of stages, any stride and kernel per stage and axis (paper: five stages, 2x2 pooling, 3x3 kernels);
- any norm and activation, by default instance norm and leaky ReLU (paper: no norm, ReLU); linear upsampling;
- `mode="accurate"` averages the heads' logits (paper: their probabilities), so that a network always returns logits;
- where flooring lost a remainder, U repeats the last plane to reach X[i, 0]'s size (paper: sizes divisible by 16).
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from monai_unetfamily.nets.arguments import check_choice, check_construction, check_input, per_stage
from monai_unetfamily.nets.layers import ConvBlock, Layer, PerStage, conv_head, max_pool, upsampler

_SEEN: dict[str, Callable[[int], list[int]]] = {  # nodes of its own row that X[i, j] sees, j > 0
    "none": lambda j: [0],
    "neighbours": lambda j: [j - 1],
    "all": lambda j: list(range(j)),
}


class UNetPlusPlus(nn.Module):
    """The nested grid of nodes X[i, j], i + j <= L, with heads on X[0, 1..L].

    `forward` takes (N, in_channels, *spatial) and returns logits (N, out_channels, *spatial): one tensor in `eval()`;
    in `train()` with deep supervision the list of heads L, L-1, ..., 1, all at input size.

    Args:
        spatial_dims: 2 or 3.
        in_channels: channels of the image.
        out_channels: classes, the background included where there is one.
        features: widths of the stages, finest first; L = len(features) - 1 and at least 1.
        joined: how the decoders' nodes are joined within a row: "all" (UNet++), "neighbours" (UNet+), "none" (UNet^e).
        strides: pooling between stages: a number, or one entry for each of the L steps (1 = none; or per axis).
        kernel_size: of the convolutions: a number, or one entry for each stage (or per axis), odd.
        upsample: "transposed" (the paper) or "linear" (no weights; the next block takes the wider map).
        act, norm: as MONAI's factories take them: a name, or a name with its arguments.
        dropout: probability after each norm.
        deep_supervision: heads on X[0, 1..L-1] too. With joined="none" always: nothing else trains the inner decoders.
        mode: what `eval()` returns: "fast", the last head; "accurate", the mean of all heads' logits. Where it is not
            given, "accurate" with joined="none", which is an ensemble, and "fast" otherwise.
        use_checkpoint: activation checkpointing: less memory in training, more time, the same gradients.

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
        joined: str = "all",
        strides: PerStage = 2,
        kernel_size: PerStage = 3,
        upsample: str = "transposed",
        act: Layer = ("leakyrelu", {"inplace": True}),
        norm: Layer = ("instance", {"affine": True}),
        dropout: float = 0.0,
        deep_supervision: bool = False,
        mode: str | None = None,
        use_checkpoint: bool = False,
    ) -> None:
        super().__init__()
        check_construction(spatial_dims, in_channels, out_channels, features, norm, act)
        check_choice("joined", joined, list(_SEEN))
        check_choice("upsample", upsample, ("transposed", "linear"))
        self.joined = joined
        self.deep_supervision = deep_supervision or joined == "none"
        self.mode = mode or ("accurate" if joined == "none" else "fast")
        _check_grid(len(features), self.mode, self.deep_supervision)
        self.levels = L = len(features) - 1
        self.in_channels = in_channels
        self.features = tuple(features)
        self.strides = per_stage(strides, L, spatial_dims, "strides")
        self.kernel_size = kernels = per_stage(kernel_size, L + 1, spatial_dims, "kernel_size", odd=True)
        self._check = partial(
            check_input, spatial_dims=spatial_dims, in_channels=in_channels, strides=self.strides, norm=norm
        )
        layers: dict[str, Any] = {"act": act, "norm": norm, "dropout": dropout, "use_checkpoint": use_checkpoint}
        self._arguments = {
            "spatial_dims": spatial_dims,
            "in_channels": in_channels,
            "out_channels": out_channels,
            "joined": joined,
            "upsample": upsample,
            **layers,
        }

        self.D = nn.ModuleList(max_pool(spatial_dims, stride) for stride in self.strides)
        self.U = nn.ModuleDict(
            {
                f"{i}_{j}": upsampler(spatial_dims, features[i + 1], features[i], self.strides[i], upsample)
                for i, j in grid(L)
                if j > 0
            }
        )
        self.X = nn.ModuleDict()
        for i, j in grid(L):
            width = fan_in(i, j, features, in_channels, upsample, joined)
            self.X[f"{i}_{j}"] = ConvBlock(spatial_dims, width, features[i], kernel_size=kernels[i], **layers)
        self.head = conv_head(spatial_dims, features[0], out_channels, 1)
        inner = range(L - 1, 0, -1) if self.deep_supervision else ()
        self.auxiliary_heads = nn.ModuleDict(
            {str(j): conv_head(spatial_dims, features[0], out_channels, 1) for j in inner}
        )

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        """Logits of (N, in_channels, *spatial); see the class."""
        if self.training and self.deep_supervision:
            return self.side_outputs(x)
        if self.mode == "accurate":
            return torch.stack(self.side_outputs(x)).mean(dim=0)
        return self.head(self.nodes(x, [self.levels])[self.levels])

    def nodes(self, x: Tensor, heads: Sequence[int]) -> dict[int, Tensor]:
        """X[0, j] for every j in `heads`, each (N, features[0], *spatial); only what they need is computed."""
        self._check(x, training=self.training)
        X: dict[tuple[int, int], Tensor] = {}
        for i, j in grid(max(heads)):
            H = self.X[f"{i}_{j}"]
            if j == 0:
                X[i, j] = H(x if i == 0 else self.D[i - 1](X[i - 1, 0]))
            elif self.joined != "none" or i + j in heads:
                up = self.U[f"{i}_{j}"](X[i + 1, j - 1], X[i, 0].shape[2:])
                X[i, j] = H(*(X[i, k] for k in _SEEN[self.joined](j)), up)
        return {j: X[0, j] for j in heads}

    def side_outputs(self, x: Tensor) -> list[Tensor]:
        """Logits of every head there is, the final one first, each (N, out_channels, *spatial)."""
        heads = {self.levels: self.head} | {int(j): head for j, head in self.auxiliary_heads.items()}
        row = self.nodes(x, list(heads))
        return [head(row[j]) for j, head in heads.items()]

    def pruned(self, level: int, *, inner_heads: bool = False) -> "UNetPlusPlus":
        """The network cut at `level`: nodes with i + j <= level and head `level` alone, with these weights copied.

        With `inner_heads` the heads below `level` stay, for training and for cutting again.

        Its output equals head `level` of this network bit for bit (TMI 2020, section III-D). Pruning implies
        `mode="fast"`. Levels below L need the heads that deep supervision trains. UNet^e, which is always supervised,
        keeps the decoders and heads of all depths up to `level`, and runs the deepest in `eval()`.

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
        stages: dict[str, Any] = {
            "features": self.features[: level + 1],
            "kernel_size": self.kernel_size[: level + 1],
            "strides": self.strides[:level],
            "deep_supervision": inner_heads and self.deep_supervision,
        }
        small = UNetPlusPlus(**self._arguments, **stages, mode="fast")
        head = self.head if level == self.levels else self.auxiliary_heads[str(level)]
        weights = self.state_dict() | {f"head.{key}": value for key, value in head.state_dict().items()}
        small.to(next(self.parameters())).load_state_dict({key: weights[key] for key in small.state_dict()})
        return small.train(self.training)


def grid(levels: int) -> list[tuple[int, int]]:
    """The nodes (i, j) with i + j <= levels, in an order in which each one's inputs come first.

    >>> grid(2)
    [(0, 0), (1, 0), (2, 0), (0, 1), (1, 1), (0, 2)]
    """
    return [(i, j) for j in range(levels + 1) for i in range(levels + 1 - j)]


def fan_in(i: int, j: int, features: Sequence[int], in_channels: int, upsample: str, joined: str = "all") -> int:
    """Channels that enter X[i, j]: the maps of its own row that it sees, and the one that comes up.

    >>> fan_in(0, 2, (32, 64, 128), 1, "linear"), fan_in(0, 2, (32, 64, 128), 1, "transposed")
    (128, 96)
    """
    if j == 0:
        return in_channels if i == 0 else features[i - 1]
    return len(_SEEN[joined](j)) * features[i] + (features[i] if upsample == "transposed" else features[i + 1])


def _check_grid(stages: int, mode: str, deep_supervision: bool) -> None:
    if stages < 2:
        raise ValueError(f"features has {stages} entry; a nested grid needs at least 2: add a stage.")
    check_choice("mode", mode, ("fast", "accurate"))
    if mode == "accurate" and not deep_supervision:
        raise ValueError("mode is 'accurate', the mean of all heads; it needs deep_supervision=True.")

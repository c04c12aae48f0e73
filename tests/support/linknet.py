"""How a network is added: LinkNet (Chaurasia, Culurciello 2017, arXiv 1707.03718), De[i] = H(En[i] + U(De[i+1]))."""

from functools import partial
from typing import Any

from torch import Tensor, nn

from monai_unetfamily.nets import MEMBERS, per_stage
from monai_unetfamily.nets.arguments import check_construction, check_input
from monai_unetfamily.nets.layers import ConvBlock, Layer, PerStage, TransposedUp, conv_head, max_pool, resize
from monai_unetfamily.nets.registry import Member


class LinkNet(nn.Module):
    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        *,
        features: tuple[int, ...] = (32, 64, 128, 256, 512),
        strides: PerStage = 2,
        kernel_size: PerStage = 3,
        act: Layer = ("leakyrelu", {"inplace": True}),
        norm: Layer = ("instance", {"affine": True}),
        dropout: float = 0.0,
        deep_supervision: bool = False,
        use_checkpoint: bool = False,
    ) -> None:
        super().__init__()
        check_construction(spatial_dims, in_channels, out_channels, features, norm, act)
        self.N = N = len(features) - 1
        self.deep_supervision = deep_supervision
        S = per_stage(strides, N, spatial_dims, "strides")
        K = per_stage(kernel_size, N + 1, spatial_dims, "kernel_size", odd=True)
        self.check = partial(check_input, spatial_dims=spatial_dims, in_channels=in_channels, strides=S, norm=norm)
        layers: dict[str, Any] = {"act": act, "norm": norm, "dropout": dropout, "use_checkpoint": use_checkpoint}
        steps = list(zip([in_channels, *features], features, K, strict=False))
        self.D = nn.ModuleList(max_pool(spatial_dims, s) for s in S)
        self.U = nn.ModuleList(TransposedUp(spatial_dims, features[i + 1], features[i], stride=S[i]) for i in range(N))
        self.En = nn.ModuleList(ConvBlock(spatial_dims, a, b, kernel_size=k, **layers) for a, b, k in steps)
        self.De = nn.ModuleList(ConvBlock(spatial_dims, b, b, kernel_size=k, **layers) for _, b, k in steps[:-1])
        self.head, *auxiliary = (conv_head(spatial_dims, width, out_channels, 1) for width in features[: N or 1])
        self.auxiliary_heads = nn.ModuleList(auxiliary if deep_supervision else [])

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        self.check(x, training=self.training)
        En = [self.En[0](x)]
        for i in range(1, self.N + 1):
            En.append(self.En[i](self.D[i - 1](En[i - 1])))
        De = {self.N: En[self.N]}
        for i in reversed(range(self.N)):
            De[i] = self.De[i](En[i] + self.U[i](De[i + 1], En[i].shape[2:]))
        heads = [self.head, *(self.auxiliary_heads if self.training else [])]
        logits = [resize(head(De[i]), x.shape[2:]) for i, head in enumerate(heads)]
        return logits if self.training and self.deep_supervision else logits[0]


# the table row: in the package it stands in registry.py
MEMBERS["linknet"] = Member(LinkNet, ("En", "De"), paper={"norm": "batch", "act": "relu"})

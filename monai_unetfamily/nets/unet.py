"""U-Net, of any depth.

Ronneberger, Fischer, Brox: "U-Net: Convolutional Networks for Biomedical Image Segmentation", MICCAI 2015
(arXiv 1505.04597); Cicek, Abdulkadir, Lienkamp, Brox, Ronneberger: "3D U-Net", MICCAI 2016 (arXiv 1606.06650). With
stages counted from 0 and the last one N:

    En[0] = H(x),   En[i] = H(D(En[i-1]))
    De[N] = En[N],  De[i] = H([En[i], U(De[i+1])])

H is a block of convolutions, D max pooling, U a transposed convolution that halves the width, [] concatenation.

Deviations, each by an argument except the last two:
- any number of stages from one up, any stride and kernel per stage and axis, any number of convolutions a stage (paper:
  five stages, 2x2 pooling, two 3x3 convolutions);
- linear upsampling, residual blocks (He et al. 2016), norm and activation (by default instance norm and leaky ReLU),
  deep supervision;
- widths of 32 to 512, at which the UNet++ paper compares it (`features`; Ronneberger: 64 to 1024);
- dropout after each norm, if any (Ronneberger: at the end of the encoder);
- 3-D is the 2-D form with an axis more (Cicek: four stages, batch norm, the width doubled before each pooling and kept
  by the way up);
- convolutions are zero padded, so that the map has the image's size (paper: unpadded, cropped skips);
- where flooring lost a remainder, U repeats the last plane to reach En[i]'s size (paper: sizes that divide).
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

from torch import Tensor, nn

from monai_unetfamily.nets.arguments import check_choice, check_construction, check_input, per_stage, per_stage_count
from monai_unetfamily.nets.layers import BLOCKS, Layer, PerStage, conv_head, max_pool, resize, upsampler


class PlainUNet(nn.Module):
    """Encoder, decoder, and one skip a stage.

    `forward` takes (N, in_channels, *spatial) and returns logits (N, out_channels, *spatial): one tensor in `eval()`;
    in `train()` with deep supervision the list of heads on De[0], De[1], ..., De[N-1], all at input size.

    Args:
        spatial_dims: 2 or 3.
        in_channels: channels of the image.
        out_channels: classes, the background included where there is one.
        features: widths of the stages, finest first; one width is a network without downsampling.
        strides: pooling between stages: a number, or one entry for each step (1 = none; or per axis).
        kernel_size: of the convolutions: a number, or one entry for each stage (or per axis), odd.
        convolutions: in a block: a number, or one for each stage.
        block: "plain", or "residual" (in encoder and decoder).
        upsample: "transposed" (the paper) or "linear" (no weights; the next block takes the wider map).
        act, norm: as MONAI's factories take them: a name, or a name with its arguments.
        dropout: probability after each norm.
        deep_supervision: a head on De[1..N-1] too.
        use_checkpoint: activation checkpointing: less memory in training, more time, the same gradients.

    Raises:
        ValueError: for arguments or inputs that cannot work; the message says what is allowed.

    >>> import torch
    >>> net = PlainUNet(3, 1, 2, features=(4, 8, 16), strides=[(1, 2, 2), 2], deep_supervision=True)
    >>> [tuple(head.shape) for head in net(torch.zeros(1, 1, 3, 9, 12))]
    [(1, 2, 3, 9, 12), (1, 2, 3, 9, 12)]
    >>> net.eval()(torch.zeros(1, 1, 3, 9, 12)).shape
    torch.Size([1, 2, 3, 9, 12])
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
        convolutions: int | Sequence[int] = 2,
        block: str = "plain",
        upsample: str = "transposed",
        act: Layer = ("leakyrelu", {"inplace": True}),
        norm: Layer = ("instance", {"affine": True}),
        dropout: float = 0.0,
        deep_supervision: bool = False,
        use_checkpoint: bool = False,
    ) -> None:
        super().__init__()
        check_construction(spatial_dims, in_channels, out_channels, features, norm, act)
        check_choice("block", block, list(BLOCKS))
        check_choice("upsample", upsample, ("transposed", "linear"))
        self.N = N = len(features) - 1
        self.strides = per_stage(strides, N, spatial_dims, "strides")
        kernels = per_stage(kernel_size, N + 1, spatial_dims, "kernel_size", odd=True)
        counts = per_stage_count(convolutions, N + 1, "convolutions")
        self._check = partial(
            check_input, spatial_dims=spatial_dims, in_channels=in_channels, strides=self.strides, norm=norm
        )
        self.deep_supervision = deep_supervision
        layers: dict[str, Any] = {"act": act, "norm": norm, "dropout": dropout, "use_checkpoint": use_checkpoint}

        def H(i: int, width: int) -> nn.Module:
            options = {"kernel_size": kernels[i], "convolutions": counts[i], **layers}
            return BLOCKS[block](spatial_dims, width, features[i], **options)

        steps = list(zip(features, features[1:], self.strides, strict=False))
        self.D = nn.ModuleList(max_pool(spatial_dims, stride) for stride in self.strides)
        self.U = nn.ModuleList(upsampler(spatial_dims, b, a, stride, upsample) for a, b, stride in steps)
        self.En = nn.ModuleList(H(i, width) for i, width in enumerate([in_channels, *features[:-1]]))
        self.De = nn.ModuleList(H(i, a + (a if upsample == "transposed" else b)) for i, (a, b, _) in enumerate(steps))
        self.head = conv_head(spatial_dims, features[0], out_channels, 1)
        self.auxiliary_heads = nn.ModuleList(
            conv_head(spatial_dims, width, out_channels, 1) for width in features[1:N] if deep_supervision
        )

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        """Logits of (N, in_channels, *spatial); see the class."""
        De = self.nodes(x)
        return self.side_outputs(De) if self.training and self.deep_supervision else self.head(De[0])

    def nodes(self, x: Tensor) -> list[Tensor]:
        """De[0..N], finest first; De[i] is (N, features[i], *grid of stage i)."""
        self._check(x, training=self.training)
        N = self.N
        En = [self.En[0](x)]
        for i in range(1, N + 1):
            En.append(self.En[i](self.D[i - 1](En[i - 1])))
        De = {N: En[N]}
        for i in reversed(range(N)):
            De[i] = self.De[i](En[i], self.U[i](De[i + 1], En[i].shape[2:]))
        return [De[i] for i in range(N + 1)]

    def side_outputs(self, De: Sequence[Tensor]) -> list[Tensor]:
        """Logits of the head on each decoder node, De[0] first, interpolated to input size after the head."""
        heads = [self.head, *self.auxiliary_heads]
        size = De[0].shape[2:]
        return [resize(head(node), size) for head, node in zip(heads, De, strict=False)]

"""The blocks of the DeepMRSeg network (Doshi et al. 2019, section 3.2), in 2D and 3D.

Every block maps (N, C, *space) to (N, C', *space'); ``spatial_dims`` is 2 or 3.
A convolution is always followed by batch normalisation: it has no bias of its own.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["ConvNorm", "ResBlock", "ResInc", "TransitionDown", "TransitionUp"]

_CONV: dict[int, type[nn.Conv2d] | type[nn.Conv3d]] = {2: nn.Conv2d, 3: nn.Conv3d}
_NORM: dict[int, type[nn.BatchNorm2d] | type[nn.BatchNorm3d]] = {
    2: nn.BatchNorm2d,
    3: nn.BatchNorm3d,
}
_UP: dict[int, type[nn.ConvTranspose2d] | type[nn.ConvTranspose3d]] = {
    2: nn.ConvTranspose2d,
    3: nn.ConvTranspose3d,
}


class ConvNorm(nn.Sequential):
    """Convolution, batch normalisation and, unless ``relu`` is false, ReLU.

    (N, c_in, *space) -> (N, c_out, *space / stride); odd kernels keep the size at stride 1.
    """

    def __init__(
        self,
        c_in: int,
        c_out: int,
        kernel: int,
        *,
        spatial_dims: int,
        stride: int = 1,
        relu: bool = True,
    ) -> None:
        padding = kernel // 2 if stride == 1 else 0
        conv = _CONV[spatial_dims](c_in, c_out, kernel, stride=stride, padding=padding, bias=False)
        layers: list[nn.Module] = [conv, _NORM[spatial_dims](c_out)]
        if relu:
            layers.append(nn.ReLU(inplace=True))
        super().__init__(*layers)


class ResBlock(nn.Module):
    """A residual block (He et al. 2016): two 3x3 convolutions and the identity.

    (N, f, *space) -> (N, f, *space)
    """

    def __init__(self, features: int, *, spatial_dims: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            ConvNorm(features, features, 3, spatial_dims=spatial_dims),
            ConvNorm(features, features, 3, spatial_dims=spatial_dims, relu=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.body(x)
        return y.add_(x).relu_()


class ResInc(nn.Module):
    """The modified Inception-ResNet-A block (section 3.2.2 of the paper).

    Four branches, each a 1x1 convolution f -> f/4 followed by 0, 1, 2 and 3 convolutions
    3x3; their concatenation goes through a 1x1 convolution, and the identity is added.

    (N, f, *space) -> (N, f, *space)

    Raises:
        ValueError: ``features`` is not a multiple of four.
    """

    def __init__(self, features: int, *, spatial_dims: int) -> None:
        super().__init__()
        if features % 4:
            raise ValueError(f"a ResInc block needs a multiple of 4 features, got {features}")
        quarter = features // 4
        self.branches = nn.ModuleList(
            nn.Sequential(
                ConvNorm(features, quarter, 1, spatial_dims=spatial_dims),
                *(ConvNorm(quarter, quarter, 3, spatial_dims=spatial_dims) for _ in range(depth)),
            )
            for depth in range(4)
        )
        self.merge = ConvNorm(features, features, 1, spatial_dims=spatial_dims, relu=False)

    def forward(self, x: Tensor) -> Tensor:
        joined = torch.cat([branch(x) for branch in self.branches], dim=1)
        y: Tensor = self.merge(joined)
        return y.add_(x).relu_()


class TransitionDown(ConvNorm):
    """Halves the size by a strided convolution, in the place of max-pooling.

    The paper's kernel is 1, its released code's is 2: the latter sees every voxel.

    (N, c_in, *space) -> (N, c_out, *space / 2)
    """

    def __init__(self, c_in: int, c_out: int, *, kernel: int, spatial_dims: int) -> None:
        super().__init__(c_in, c_out, kernel, spatial_dims=spatial_dims, stride=2)


class TransitionUp(nn.Sequential):
    """Doubles the size by a transposed convolution with stride 2.

    (N, c_in, *space) -> (N, c_out, *space * 2)
    """

    def __init__(self, c_in: int, c_out: int, *, spatial_dims: int) -> None:
        super().__init__(
            _UP[spatial_dims](c_in, c_out, 2, stride=2, bias=False),
            _NORM[spatial_dims](c_out),
            nn.ReLU(inplace=True),
        )

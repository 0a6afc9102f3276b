"""The benchmark of the paper: a UNet with batch normalisation (Ronneberger et al. 2015)."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn

from deepmrseg_bids.network.blocks import ConvNorm, TransitionUp
from deepmrseg_bids.network.config import NetworkConfig
from deepmrseg_bids.network.frame import Frame, join_skip

__all__ = ["UNet"]


def _double(c_in: int, c_out: int, dims: int) -> nn.Sequential:
    return nn.Sequential(
        ConvNorm(c_in, c_out, 3, spatial_dims=dims),
        ConvNorm(c_out, c_out, 3, spatial_dims=dims),
    )


class UNet(Frame):
    """Two 3x3 convolutions a level, max-pooling down, transposed convolutions up.

    (N, in_channels, *space) -> logits (N, classes, *space), any size. Batch normalisation
    stands between each convolution and its ReLU, as section 4.3 of the paper says.
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__(config)
        dims, f = config.spatial_dims, config.width
        self.first = _double(self.folded_in, f, dims)
        pool = nn.MaxPool2d if dims == 2 else nn.MaxPool3d
        self.encoder = nn.ModuleList(
            nn.Sequential(cast(nn.Module, pool(2)), _double(f * 2**i, f * 2 ** (i + 1), dims))
            for i in range(config.depth)
        )
        self.up = nn.ModuleList()
        self.decoder = nn.ModuleList()
        for level in reversed(range(config.depth)):
            wide = f * 2**level
            self.up.append(TransitionUp(2 * wide, wide, spatial_dims=dims))
            self.decoder.append(_double(2 * wide, wide, dims))
        self.head = self.make_head(f)

    def features(self, x: Tensor) -> Tensor:
        x = self.first(x)
        skips = []
        for stage in self.encoder:
            skips.append(x)
            x = stage(x)
        for up, stage in zip(self.up, self.decoder, strict=True):
            x = stage(join_skip(up(x), skips.pop()))
        return x

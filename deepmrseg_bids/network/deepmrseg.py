"""The DeepMRSeg network: section 3 of Doshi et al. 2019, in 2D or 3D."""

from __future__ import annotations

from torch import Tensor, nn

from deepmrseg_bids.network.blocks import (
    ConvNorm,
    ResBlock,
    ResInc,
    TransitionDown,
    TransitionUp,
)
from deepmrseg_bids.network.config import NetworkConfig
from deepmrseg_bids.network.frame import Frame, join_skip

__all__ = ["DeepMRSeg"]


class DeepMRSeg(Frame):
    """ResNet blocks before the encoder, ResInc blocks at every level of a UNet.

    (N, in_channels, *space) -> logits (N, classes, *space), any size.

    With f features at full resolution (section 3.2 of the paper)::

        projection  1x1, m -> f
        pre-encoder ResNet blocks at f
        encoder     level i: transition down f 2^(i-1) -> f 2^i, ResInc
        decoder     transposed convolution to one fourth of the features (half at the
                    deepest level), the skip connection of its level, ResInc
        head        1x1, to the classes
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__(config)
        dims, f = config.spatial_dims, config.width
        self.project = ConvNorm(self.folded_in, f, 1, spatial_dims=dims)
        self.pre_encoder = nn.Sequential(
            *(ResBlock(f, spatial_dims=dims) for _ in range(config.pre_blocks))
        )
        self.encoder = nn.ModuleList()
        for level in range(1, config.depth + 1):
            wide = f * 2**level
            down = TransitionDown(
                wide // 2, wide, kernel=config.transition_kernel, spatial_dims=dims
            )
            self.encoder.append(nn.Sequential(down, ResInc(wide, spatial_dims=dims)))
        self.up = nn.ModuleList()
        self.decoder = nn.ModuleList()
        for level in reversed(range(config.depth)):
            skip = f * 2**level
            deepest = level == config.depth - 1
            c_in = skip * 2 if deepest else skip * 4
            self.up.append(TransitionUp(c_in, skip, spatial_dims=dims))
            self.decoder.append(ResInc(2 * skip, spatial_dims=dims))
        self.head = self.make_head(2 * f)

    def features(self, x: Tensor) -> Tensor:
        x = self.pre_encoder(self.project(x))  # (N, f, *space)
        skips = []
        for stage in self.encoder:
            skips.append(x)
            x = stage(x)  # (N, 2^i f, *space / 2^i)
        for up, stage in zip(self.up, self.decoder, strict=True):
            x = stage(join_skip(up(x), skips.pop()))
        return x  # (N, 2f, *space)

"""What both networks share: padding to a fitting size, and folding of voxel blocks."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from deepmrseg_bids.network.config import NetworkConfig

__all__ = ["Frame", "join_skip"]


def join_skip(x: Tensor, skip: Tensor) -> Tensor:
    """Concatenate the upsampled features and the skip connection: (N, a + b, *space)."""
    return torch.cat([x, skip], dim=1)


class Frame(nn.Module):
    """Takes an image of any size to logits of the same size; a subclass is the network inside.

    (N, in_channels, *space) -> (N, classes, *space). Edges are padded with zeros to a
    multiple of ``config.multiple`` and cut off again.
    """

    head: nn.Module

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        self.folded_in = config.in_channels * config.patch**config.spatial_dims

    def make_head(self, features: int) -> nn.Module:
        """A 1x1 convolution to the classes, one set of them for each voxel of a patch."""
        conv = nn.Conv2d if self.config.spatial_dims == 2 else nn.Conv3d
        return conv(features, self.config.classes * self.config.patch**self.config.spatial_dims, 1)

    def features(self, x: Tensor) -> Tensor:
        """(N, folded_in, *space) -> (N, c, *space): the network without its head."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        size = [int(edge) for edge in x.shape[2:]]
        padding: list[int] = []
        for edge in reversed(size):
            padding += [0, -edge % self.config.multiple]
        if any(padding):
            x = functional.pad(x, padding)
        x = self.head(self.features(self._fold(x)))
        x = self._unfold(x)
        for axis, edge in enumerate(size, start=2):
            x = x.narrow(axis, 0, edge)
        return x

    def _fold(self, x: Tensor) -> Tensor:
        """Space to depth: (N, c, *space) -> (N, c * patch^dims, *space / patch)."""
        p, dims = self.config.patch, self.config.spatial_dims
        if p == 1:
            return x
        n, c, *space = x.shape
        split = [part for edge in space for part in (edge // p, p)]
        x = x.reshape(n, c, *split)  # (N, c, a, p, b, p, ...)
        inner = [3 + 2 * d for d in range(dims)]
        outer = [2 + 2 * d for d in range(dims)]
        x = x.permute(0, 1, *inner, *outer)
        x = x.reshape(n, c * p**dims, *(edge // p for edge in space))
        layout = torch.channels_last if dims == 2 else torch.channels_last_3d
        return x.contiguous(memory_format=layout)

    def _unfold(self, x: Tensor) -> Tensor:
        """Depth to space: (N, c * patch^dims, *space) -> (N, c, *space * patch)."""
        p, dims = self.config.patch, self.config.spatial_dims
        if p == 1:
            return x
        n, c, *space = x.shape
        c //= p**dims
        x = x.reshape(n, c, *([p] * dims), *space)  # (N, c, p, p, ..., a, b, ...)
        order = [axis for d in range(dims) for axis in (2 + dims + d, 2 + d)]
        return x.permute(0, 1, *order).reshape(n, c, *(edge * p for edge in space))

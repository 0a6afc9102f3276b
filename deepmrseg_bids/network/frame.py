"""What both networks share: padding to a fitting size, and folding of voxel blocks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

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
        return self._answer(self._seen(x), x.shape[2:])

    def slabs(self, x: Tensor, thickness: int) -> Iterator[Tensor]:
        """The same in slabs along the first axis of space, of so many voxels or fewer.

        With many classes the logits are larger than all else; of slabs, one is there at a time.
        """
        size, patch = x.shape[2:], self.config.patch
        seen, step = self._seen(x), max(1, thickness // patch)
        for first in range(0, -(-size[0] // patch), step):
            edge = min(step * patch, size[0] - first * patch)
            yield self._answer(seen[:, :, first : first + step], (edge, *size[1:]))

    def _seen(self, x: Tensor) -> Tensor:
        """The features of an image, padded to a fitting size."""
        padding: list[int] = []
        for edge in reversed(x.shape[2:]):
            padding += [0, -int(edge) % self.config.multiple]
        return self.features(self._fold(functional.pad(x, padding) if any(padding) else x))

    def _answer(self, seen: Tensor, size: Sequence[int]) -> Tensor:
        """The logits of features, (N, classes, *size)."""
        x = self._unfold(self.head(seen))
        for axis, edge in enumerate(size, start=2):
            x = x.narrow(axis, 0, int(edge))
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

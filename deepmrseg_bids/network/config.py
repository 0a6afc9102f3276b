"""What fixes a network: a small value that a bundle stores beside the weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["NetworkConfig"]


@dataclass(frozen=True)
class NetworkConfig:
    """The architecture of one network; equal configurations build equal networks.

    Attributes:
        kind: ``deepmrseg`` (section 3 of the paper) or ``unet`` (its benchmark).
        spatial_dims: 2 or 3.
        in_channels: modalities (times neighbouring slices in 2D).
        classes: output classes, background included.
        width: features f at full resolution.
        depth: number of halvings; the deepest level has ``width * 2**depth`` features.
        pre_blocks: ResNet blocks before the encoder (``deepmrseg`` only).
        patch: the edge of the voxel blocks that are folded into channels before the
            projection and unfolded after the last layer: 1 is the paper's network, 2 runs
            it at half the resolution with sub-voxel output (Shi et al. 2016).
        transition_kernel: 1 as in the paper, 2 as in its released code.

    >>> NetworkConfig(kind="deepmrseg", spatial_dims=3, in_channels=1, classes=2).multiple
    16
    """

    kind: Literal["deepmrseg", "unet"]
    spatial_dims: int
    in_channels: int
    classes: int
    width: int = 16
    depth: int = 4
    pre_blocks: int = 1
    patch: int = 1
    transition_kernel: int = 2

    def __post_init__(self) -> None:
        checks = {
            "kind": (self.kind, self.kind in ("deepmrseg", "unet"), "deepmrseg or unet"),
            "spatial_dims": (self.spatial_dims, self.spatial_dims in (2, 3), "2 or 3"),
            "in_channels": (self.in_channels, self.in_channels >= 1, "at least 1"),
            "classes": (self.classes, self.classes >= 2, "at least 2"),
            "width": (self.width, self.width >= 4 and self.width % 4 == 0, "a multiple of 4"),
            "depth": (self.depth, self.depth >= 1, "at least 1"),
            "pre_blocks": (self.pre_blocks, self.pre_blocks >= 0, "at least 0"),
            "patch": (self.patch, self.patch >= 1, "at least 1"),
            "transition_kernel": (
                self.transition_kernel,
                self.transition_kernel in (1, 2),
                "1 or 2",
            ),
        }
        for name, (value, good, expected) in checks.items():
            if not good:
                raise ValueError(f"network {name} must be {expected}, got {value!r}")

    @property
    def multiple(self) -> int:
        """The input's edges are padded inside the network to a multiple of this."""
        return int(self.patch * 2**self.depth)

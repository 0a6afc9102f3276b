"""The networks: torch and nothing else.

A configuration is there without torch, which is loaded with the first network.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from deepmrseg_bids.network.config import NetworkConfig

if TYPE_CHECKING:
    from deepmrseg_bids.network.deepmrseg import DeepMRSeg
    from deepmrseg_bids.network.frame import Frame
    from deepmrseg_bids.network.losses import deepmrseg_loss
    from deepmrseg_bids.network.unet import UNet

__all__ = ["DeepMRSeg", "Frame", "NetworkConfig", "UNet", "build_network", "deepmrseg_loss"]

_PLACES = {"DeepMRSeg": "deepmrseg", "Frame": "frame", "UNet": "unet", "deepmrseg_loss": "losses"}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_PLACES[name]}"), name)


def build_network(config: NetworkConfig) -> Frame:
    """The network that a configuration describes, with fresh random weights."""
    from deepmrseg_bids.network.deepmrseg import DeepMRSeg
    from deepmrseg_bids.network.unet import UNet

    return DeepMRSeg(config) if config.kind == "deepmrseg" else UNet(config)

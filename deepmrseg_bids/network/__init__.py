"""The networks: torch and nothing else."""

from deepmrseg_bids.network.config import NetworkConfig
from deepmrseg_bids.network.deepmrseg import DeepMRSeg
from deepmrseg_bids.network.frame import Frame
from deepmrseg_bids.network.losses import deepmrseg_loss
from deepmrseg_bids.network.unet import UNet

__all__ = ["DeepMRSeg", "Frame", "NetworkConfig", "UNet", "build_network", "deepmrseg_loss"]


def build_network(config: NetworkConfig) -> Frame:
    """The network that a configuration describes, with fresh random weights."""
    return DeepMRSeg(config) if config.kind == "deepmrseg" else UNet(config)

"""Brain segmentation with DeepMRSeg networks, as a library and as a BIDS-App.

Importing the package imports neither torch, nipype nor ants.
"""

__version__ = "0.2.0"

__all__ = ["__version__"]

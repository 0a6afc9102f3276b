"""The precision that a network computes in: what ``auto`` means is decided here alone.

Torch is loaded only where there may be a GPU.
"""

from __future__ import annotations

from typing import Literal

from deepmrseg_bids.system import cpu_has_bfloat16, may_have_gpu

__all__ = ["Precision", "decide_precision", "fastest_precision"]

Precision = Literal["float32", "bfloat16"]


def fastest_precision(device_type: str) -> Precision:
    """bfloat16 where the hardware computes with it, and float32 elsewhere.

    Args:
        device_type: cpu or cuda.
    """
    if device_type != "cuda":
        return "bfloat16" if cpu_has_bfloat16() else "float32"
    import torch

    return "bfloat16" if torch.cuda.is_bf16_supported() else "float32"


def decide_precision(asked: str, device: str) -> Precision:
    """The precision that ``--precision`` and ``--device`` ask for on this machine.

    Args:
        asked: auto, float32 or bfloat16.
        device: auto, cpu, cuda or cuda:i.

    Raises:
        UsageError: not a device, or a GPU is asked for and there is none; only if ASKED is auto.

    >>> decide_precision("float32", "cuda")  # it needs no look at a GPU
    'float32'
    """
    if asked != "auto":  # a cluster's node may have a GPU that this machine cannot look at
        return "bfloat16" if asked == "bfloat16" else "float32"
    if device == "cpu" or (device == "auto" and not may_have_gpu()):
        return fastest_precision("cpu")
    from deepmrseg_bids.inference.predictor import resolve_device

    return fastest_precision(resolve_device(device).type)

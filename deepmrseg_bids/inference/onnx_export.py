"""A bundle as one ONNX file, which runtimes in C++, MATLAB, Slicer and browsers read.

The file is written only if it answers as PyTorch does.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from deepmrseg_bids import __version__
from deepmrseg_bids.errors import BundleError, UsageError
from deepmrseg_bids.files import write_bytes
from deepmrseg_bids.inference.bundle import ModelBundle
from deepmrseg_bids.inference.predictor import with_position

if TYPE_CHECKING:
    from deepmrseg_bids.inference.onnx_graph import Part, Weights

__all__ = [
    "MOST_DIFFERENT",
    "PROPERTY",
    "describe",
    "export_onnx",
    "largest_difference",
    "model_bytes",
]

PROPERTY = "deepmrseg"
"""The key in ``metadata_props`` under which the file describes itself, as JSON."""
MOST_DIFFERENT = 1e-3
"""Of posteriors in ONNX Runtime and in PyTorch."""
_MISSING = (
    "export to ONNX requires the packages onnx and onnxruntime: pip install 'deepmrseg-bids[onnx]'"
)
_TRIED = ((32, 16, 24), (27, 20, 19))  # voxels: the second is no multiple of anything


def export_onnx(bundle: ModelBundle, path: str | os.PathLike[str], *, half: bool = False) -> float:
    """Write a bundle as ONNX; see ``docs/onnx.md`` for what the file holds.

    Args:
        half: store the weights as float16.

    Returns:
        The largest difference between posteriors in ONNX Runtime and in PyTorch, on noise.

    Raises:
        UsageError: onnx or onnxruntime is not installed.
        BundleError: the weights cannot be used, or the answers differ by more than
            ``MOST_DIFFERENT``; nothing is written then.
    """
    model = model_bytes(bundle, weights="float16" if half else "float32")
    rng = np.random.default_rng(0)
    dims, channels = bundle.network.spatial_dims, _channels(bundle)
    noise = [rng.normal(0, 1, (1, channels, *edges[:dims])).astype(np.float32) for edges in _TRIED]
    difference = largest_difference(bundle, model, noise)
    if not difference <= MOST_DIFFERENT:
        raise BundleError(
            f"{bundle.path}: posteriors in ONNX Runtime differ from those in PyTorch by "
            f"{difference:.2g} (at most {MOST_DIFFERENT:g} is accepted); nothing was written"
        )
    write_bytes(path, model)
    return difference


def largest_difference(
    bundle: ModelBundle, model: bytes, images: Sequence[NDArray[np.float32]]
) -> float:
    """The largest difference between posteriors in ONNX Runtime and in PyTorch.

    Args:
        model: an ONNX file of this bundle.
        images: (N, channels, *space) each, prepared, without the channel of the position.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise UsageError(_MISSING) from error

    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    network = bundle.load()
    largest = 0.0
    for image in images:
        (found,) = session.run(None, {session.get_inputs()[0].name: image})
        x = torch.from_numpy(image)
        if bundle.preparation.position:
            x = with_position(x, bundle.preparation.spacing)
        with torch.inference_mode():
            expected = network(x).softmax(1).numpy()
        # nan must not look like 0
        largest = max(largest, float(np.nan_to_num(np.abs(found - expected), nan=np.inf).max()))
    return largest


def describe(bundle: ModelBundle) -> dict[str, Any]:
    """What is needed to use a bundle's network, and to name it: plain JSON."""
    return {
        "software": f"deepmrseg-bids {__version__}",
        "task": bundle.task,
        "version": bundle.version,
        "sha256": bundle.sha256,
        "network": dataclasses.asdict(bundle.network),
        "preparation": dataclasses.asdict(bundle.preparation),
        "labels": [dataclasses.asdict(label) for label in bundle.labels],
        "facts": bundle.facts,
    }


def _channels(bundle: ModelBundle) -> int:
    return bundle.network.in_channels - bundle.preparation.position


def model_bytes(
    bundle: ModelBundle, *, weights: Weights = "float32", part: Part = "whole"
) -> bytes:
    """The ONNX file of a bundle, or of a part of its network.

    Args:
        weights, part: as of :func:`deepmrseg_bids.inference.onnx_graph.network_graph`.

    Raises:
        UsageError: onnx is not installed.
        BundleError: the weights cannot be used.
    """
    try:
        import onnx

        from deepmrseg_bids.inference.onnx_graph import OPSET, network_graph
    except ImportError as error:
        raise UsageError(_MISSING) from error

    graph = network_graph(bundle.load(), bundle.preparation, weights=weights, part=part)
    model = onnx.helper.make_model(
        graph,
        opset_imports=[onnx.helper.make_opsetid("", OPSET)],
        ir_version=8,  # as old as the opset
        producer_name="deepmrseg-bids",
        producer_version=__version__,
    )
    onnx.helper.set_model_props(model, {PROPERTY: json.dumps(describe(bundle), ensure_ascii=False)})
    onnx.checker.check_model(model, full_check=True)
    serialised: bytes = model.SerializeToString(deterministic=True)
    return serialised

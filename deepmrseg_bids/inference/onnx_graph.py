"""A network as a graph of ONNX operators, for images of any size.

Written node by node: the blocks of the networks are convolutions, sums and concatenations, and a
graph made from them is small, has truly free edges, and needs no exporter whose form changes with
each release.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, cast

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, fx, nn

from deepmrseg_bids.inference.bundle import Preparation
from deepmrseg_bids.network import Frame

__all__ = ["FEATURES", "INPUT", "OPSET", "OUTPUT", "Part", "Weights", "network_graph"]

Weights = Literal["float32", "float16", "coarse"]
Part = Literal["whole", "features", "head"]
INPUT, FEATURES, OUTPUT = "image", "features", "posteriors"
OPSET = 17  # of 2022: every runtime of today reads it
_AXES = ("i", "j", "k")
_REACH_MM = 40.0  # the unit of the position, see Predictor
# Bits of coarse weights, by the share of all weights that a layer holds at least: the largest are
# the deepest, and bear the most. 8 bits in every layer changed posteriors 8 to 25 times as much.
_COARSE_BITS = ((0.02, 6), (0.009, 8))

_CONVOLUTIONS = (nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_NORMS = (nn.BatchNorm2d, nn.BatchNorm3d)
_POOLS = (nn.MaxPool2d, nn.MaxPool3d)


def network_graph(
    network: Frame, preparation: Preparation, *, weights: Weights, part: Part = "whole"
) -> onnx.GraphProto:
    """The graph of a network with its softmax.

    Its input ``image`` is (N, channels, *space) float32, without the channel of the position,
    which the graph adds; its output ``posteriors`` is (N, classes, *space). Each normalisation is
    folded into the convolution before it.

    Args:
        network: with its weights, in evaluation mode.
        weights: how they are stored; the graph computes with float32 all the same. ``coarse`` is
            float16, but whole numbers of 6 to 8 bits in the large layers: half of the size once
            compressed, and almost the same posteriors.
        part: ``features`` ends before the last layer, with (N, c, *space / patch) of the padded
            image; ``head`` begins there, for a few planes of them at a time.
    """
    graph = _Writer(network, weights)
    config = network.config
    channels = config.in_channels - preparation.position
    space = list(_AXES[: config.spatial_dims])
    wide = int(next(network.head.parameters()).shape[1])
    given, answered = (INPUT, channels), (OUTPUT, config.classes)
    if part == "head":
        given = (FEATURES, wide)
        graph.add("Softmax", [graph.head(FEATURES)], [OUTPUT], axis=1)
    else:
        x = graph.with_position(INPUT, preparation.spacing) if preparation.position else INPUT
        if part == "features":
            answered = (FEATURES, wide)
            graph.add("Identity", [graph.features(graph.padded(x))], [FEATURES])
            space = [f"{axis}_out" for axis in space]
        else:
            logits = graph.head(graph.features(graph.padded(x)))
            graph.add("Softmax", [graph.as_before(logits, x)], [OUTPUT], axis=1)
    infos = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", count, *edges])
        for (name, count), edges in ((given, _AXES[: len(space)]), (answered, space))
    ]
    return helper.make_graph(graph.nodes, "deepmrseg", infos[:1], infos[1:], graph.constants)


class _Features(nn.Module):
    """What lies between the folding of voxel blocks into channels and the last layer."""

    def __init__(self, network: Frame) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Any) -> Any:
        return self.network.features(x)


class _Writer:
    """Collects the nodes and the constants of a graph; a value is known by its name."""

    def __init__(self, network: Frame, weights: Weights) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self._frame, self._stored = network, weights
        self._dims = network.config.spatial_dims
        self._count = sum(values.numel() for values in network.parameters())

    def add(self, kind: str, inputs: Sequence[str], outputs: Sequence[str] = (), **how: Any) -> str:
        """A node; the name of its first output."""
        named = list(outputs) or [f"v{len(self.nodes)}"]
        self.nodes.append(helper.make_node(kind, list(inputs), named, **how))
        return named[0]

    def constant(self, values: Any, kind: Any = np.int64) -> str:
        """A constant; its name."""
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(values, dtype=kind), name))
        return name

    def edges(self, x: str) -> str:
        """The edges of an image, (dims,)."""
        every = self.add("Shape", [x])
        ends = [self.constant([2]), self.constant([2 + self._dims]), self.constant([0])]
        return self.add("Slice", [every, *ends])

    def with_position(self, x: str, spacing: float) -> str:
        """The image with the left-right position as a channel, see ``with_position``."""
        edge = self.add("Gather", [self.add("Shape", [x]), self.constant(2)])
        steps = self.add("Range", [self.constant(0), edge, self.constant(1)])
        steps = self.add("Cast", [steps], to=TensorProto.FLOAT)
        last = self.add("Sub", [edge, self.constant(1)])
        last = self.add("Cast", [last], to=TensorProto.FLOAT)
        middle = self.add("Mul", [last, self.constant(0.5, np.float32)])
        away = self.add("Sub", [steps, middle])
        away = self.add("Mul", [away, self.constant(spacing / _REACH_MM, np.float32)])
        column = [1, 1, -1, *([1] * (self._dims - 1))]
        away = self.add("Reshape", [away, self.constant(column)])
        one = self.add("Slice", [x, self.constant([0]), self.constant([1]), self.constant([1])])
        nothing = self.add("Mul", [one, self.constant(0.0, np.float32)])
        return self.add("Concat", [x, self.add("Add", [nothing, away])], axis=1)

    def padded(self, x: str) -> str:
        """An image whose edges fit the network: :meth:`Frame.forward`."""
        multiple = self.constant([self._frame.config.multiple])
        beyond = self.add("Mod", [self.add("Neg", [self.edges(x)]), multiple])
        none = self.constant([0] * (2 + self._dims)), self.constant([0, 0])
        return self.add("Pad", [x, self.add("Concat", [*none, beyond], axis=0)])

    def as_before(self, x: str, image: str) -> str:
        """An array without what was padded."""
        axes = self.constant(list(range(2, 2 + self._dims)))
        return self.add("Slice", [x, self.constant([0] * self._dims), self.edges(image), axes])

    def head(self, x: str) -> str:
        """The logits, (N, classes, *space), of features."""
        return self._unfold(self._convolution(self._frame.head, None, x))

    def features(self, x: str) -> str:
        """Everything before the last layer, in the order in which it runs."""
        x = self._fold(x)
        traced = fx.symbolic_trace(_Features(self._frame))
        modules = dict(traced.named_modules())
        names: dict[fx.Node, str] = {}
        for node in traced.graph.nodes:
            given = [names[one] for one in node.all_input_nodes]
            if node.op == "placeholder":
                names[node] = x
            elif node.op == "output":
                return given[0]
            elif node.op == "call_module":
                names[node] = self._module(node, modules, given)
            else:
                names[node] = self._function(node, given)
        raise ValueError("a graph without an output")

    def _fold(self, x: str) -> str:
        """Space to depth, as :meth:`Frame._fold` orders the channels: a convolution by ones."""
        p, c = self._frame.config.patch, self._frame.config.in_channels
        if p == 1:
            return x
        blocks = np.eye(self._frame.folded_in, dtype=np.float32)
        weight = blocks.reshape(self._frame.folded_in, c, *([p] * self._dims))
        return self.add("Conv", [x, self.constant(weight, np.float32)],
                        kernel_shape=[p] * self._dims, strides=[p] * self._dims)  # fmt: skip

    def _unfold(self, x: str) -> str:
        """Depth to space: :meth:`Frame._unfold`."""
        p, dims, classes = self._frame.config.patch, self._dims, self._frame.config.classes
        if p == 1:
            return x
        edges = self.edges(x)
        split = self.add("Concat", [self.constant([-1, *([p] * dims)]), edges], axis=0)
        x = self.add("Reshape", [x, split])  # (N * classes, p, p, ..., a, b, ...)
        order = [0, *(axis for d in range(dims) for axis in (1 + dims + d, 1 + d))]
        x = self.add("Transpose", [x], perm=order)
        whole = self.add("Mul", [edges, self.constant([p])])
        return self.add("Reshape", [x, self.add("Concat", [self.constant([-1, classes]), whole],
                                                axis=0)])  # fmt: skip

    def _module(self, node: fx.Node, modules: dict[str, nn.Module], given: list[str]) -> str:
        module = modules[cast(str, node.target)]
        if isinstance(module, _CONVOLUTIONS):
            after = [modules.get(str(user.target)) for user in node.users]
            norm = after[0] if len(after) == 1 and isinstance(after[0], _NORMS) else None
            return self._convolution(module, norm, given[0])
        if isinstance(module, _NORMS):
            return given[0]  # in the convolution before it
        if isinstance(module, nn.ReLU):
            return self.add("Relu", given)
        if isinstance(module, _POOLS):
            edge = [int(cast(int, module.kernel_size))] * self._dims
            return self.add("MaxPool", given, kernel_shape=edge, strides=edge)
        raise TypeError(f"no ONNX operator is known for {type(module).__name__}")

    def _function(self, node: fx.Node, given: list[str]) -> str:
        kind = getattr(node.target, "__name__", str(node.target)).rstrip("_")  # in place or not
        if kind == "cat":
            return self.add("Concat", given, axis=1)
        if kind in ("add", "relu"):
            return self.add(kind.capitalize(), given)
        raise TypeError(f"no ONNX operator is known for {kind}")

    def _convolution(self, conv: Any, norm: Any, x: str) -> str:
        """A convolution with the normalisation after it."""
        weight, outputs = _exact(conv.weight), conv.out_channels
        scale = np.ones(outputs)
        bias = np.zeros(outputs) if conv.bias is None else _exact(conv.bias)
        if norm is not None:
            scale = _exact(norm.weight) / np.sqrt(_exact(norm.running_var) + norm.eps)
            bias = (bias - _exact(norm.running_mean)) * scale + _exact(norm.bias)
        transposed = isinstance(conv, nn.ConvTranspose2d | nn.ConvTranspose3d)
        column = (1, -1) if transposed else (-1, 1)
        scale = scale.reshape(*column, *([1] * self._dims))
        kernel = [int(edge) for edge in conv.kernel_size]
        how: dict[str, Any] = {"kernel_shape": kernel, "strides": list(conv.stride)}
        if not transposed:
            how["pads"] = [*conv.padding, *conv.padding]
        named = [x, self._weight(weight, scale), self.constant(bias, np.float32)]
        return self.add("ConvTranspose" if transposed else "Conv", named, **how)

    def _weight(self, weight: NDArray[np.float64], scale: NDArray[np.float64]) -> str:
        """The weights of a convolution, times the scale of its normalisation.

        Where they are stored smaller, both are kept apart: a bundle stores float16, so that
        float16 loses nothing.
        """
        if self._stored == "float32":
            return self.constant(weight * scale, np.float32)
        kind: type[np.generic] = np.float16
        share = weight.size / self._count
        bits = next((bits for least, bits in _COARSE_BITS if share >= least), None)
        if self._stored == "coarse" and bits is not None:
            others = tuple(axis for axis in range(weight.ndim) if scale.shape[axis] == 1)
            most = np.maximum(np.abs(weight).max(axis=others, keepdims=True), 1e-12)
            step = most / (2 ** (bits - 1) - 1)
            weight, scale, kind = np.rint(weight / step), scale * step, np.int8
        whole = self.add("Cast", [self.constant(weight, kind)], to=TensorProto.FLOAT)
        return self.add("Mul", [whole, self.constant(scale, np.float32)])


def _exact(tensor: Tensor) -> NDArray[np.float64]:
    values: NDArray[np.float64] = tensor.detach().double().numpy()
    return values

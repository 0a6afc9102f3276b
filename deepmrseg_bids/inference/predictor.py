"""From a prepared image to posteriors: device, precision, folding and flips.

The number of threads is set here and nowhere else.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_weights

from deepmrseg_bids.errors import BundleError, DeviceError, SkippedTask, UsageError
from deepmrseg_bids.imaging.grid import Array
from deepmrseg_bids.inference.bundle import ModelBundle, shipped_bundles
from deepmrseg_bids.inference.precision import fastest_precision

__all__ = [
    "Precision",
    "Predictor",
    "PredictorPool",
    "fold",
    "resolve_device",
    "resolve_precision",
    "set_threads",
    "use_onednn",
    "window_places",
    "with_position",
]

_log = logging.getLogger(__name__)
_PIXELS = 2**19  # of the slices that a 2D network is asked about at once
_AT_ONCE = 2**24  # logits that are turned into posteriors at a time
_FULL = 65535.0  # certainty, as a whole number
Precision = Literal["auto", "float32", "bfloat16"]


def set_threads(threads: int) -> None:
    """Let the networks use this many threads."""
    torch.set_num_threads(max(1, threads))


def resolve_device(name: str) -> torch.device:
    """``auto``, ``cpu``, ``cuda`` or ``cuda:i`` as a device.

    Raises:
        UsageError: not a device, or a GPU is asked for and there is none.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UsageError(f"--device must be auto, cpu, cuda or cuda:i, got {name!r}") from None
    if device.type not in ("cpu", "cuda"):
        raise UsageError(f"--device must be auto, cpu, cuda or cuda:i, got {name!r}")
    if device.type == "cuda" and (
        not torch.cuda.is_available() or (device.index or 0) >= torch.cuda.device_count()
    ):
        raise UsageError(f"--device {name}: no such GPU on this machine; use --device cpu or auto")
    return device


def resolve_precision(name: Precision, device: torch.device) -> torch.dtype:
    """``auto`` is bfloat16 where the hardware computes with it, and float32 elsewhere."""
    if name == "auto":
        name = fastest_precision(device.type)
    return {"float32": torch.float32, "bfloat16": torch.bfloat16}[name]


def fold(network: nn.Module) -> nn.Module:
    """Fold each batch normalisation into the convolution before it: the same function.

    Works in place on a network in evaluation mode and returns it.
    """
    for module in network.modules():
        if not isinstance(module, nn.Sequential):
            continue
        for place in range(len(module) - 1):
            conv, norm = module[place], module[place + 1]
            if isinstance(norm, (nn.BatchNorm2d, nn.BatchNorm3d)):
                _fold_into(cast(Any, conv), cast(Any, norm))
                module[place + 1] = nn.Identity()
    return network


def _fold_into(conv: Any, norm: Any) -> None:
    transposed = isinstance(conv, (nn.ConvTranspose2d, nn.ConvTranspose3d))
    mean, var = norm.running_mean, norm.running_var
    conv.weight, conv.bias = fuse_conv_bn_weights(
        conv.weight, conv.bias, mean, var, norm.eps, norm.weight, norm.bias, transpose=transposed
    )


def use_onednn(network: nn.Module) -> nn.Module:
    """Let each float32 convolution on a CPU be one of oneDNN: the same function.

    PyTorch leaves kernels of one voxel, where a process has one thread, and small images in
    batches of one to kernels of its own that take several times as long.

    Works in place and returns the network.
    """
    if torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        for module in list(network.modules()):
            for name, conv in list(module.named_children()):
                if type(conv) in (nn.Conv2d, nn.Conv3d):
                    setattr(module, name, _OneDnn(conv))
    return network


class _OneDnn(nn.Module):
    """A convolution; on a CPU that of oneDNN, whatever its size."""

    def __init__(self, conv: Any) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        conv = self.conv
        if not x.is_cpu:
            out: torch.Tensor = conv(x)
            return out
        settings = (conv.padding, conv.stride, conv.dilation, conv.groups)
        return torch.mkldnn_convolution(x, conv.weight, conv.bias, *settings)


def with_position(x: torch.Tensor, spacing: float) -> torch.Tensor:
    """Add the left-right position as a channel: (N, 1, *space) -> (N, 2, *space).

    Its unit is 40 mm, about the reach of the deep structures from the midline.
    """
    edge = x.shape[2]
    steps = (torch.arange(edge, device=x.device, dtype=x.dtype) - (edge - 1) / 2) * (spacing / 40)
    steps = steps.reshape(1, 1, edge, *([1] * (x.ndim - 3)))
    return torch.cat([x, steps.expand(x.shape[0], 1, *x.shape[2:])], dim=1)


def window_places(edge: int, window: int, overlap: float = 0.5) -> list[slice]:
    """Windows along one axis: evenly spaced, overlapping by a share or more, to both ends.

    A network with strides answers a little otherwise when its image moves by one voxel, and much
    the same again when it moves by two. So the windows begin at even and odd voxels in turn, and
    where they overlap the mean of both stands. If it takes that, the last window ends one voxel
    beyond the edge.

    >>> window_places(96, 80)
    [slice(0, 80, None), slice(17, 97, None)]
    >>> len(window_places(128, 72)), len(window_places(128, 72, overlap=0.1))
    (3, 2)
    """
    if not 0 < window < edge:
        return [slice(0, edge)]
    count = math.ceil((edge - window) / (window * (1 - overlap))) + 1
    starts = np.round(np.linspace(0, edge - window, count)).astype(int)
    starts += (starts - np.arange(count)) % 2
    return [slice(int(start), int(start) + window) for start in starts]


def _bell(shape: Sequence[int], device: torch.device) -> torch.Tensor:
    """(*shape) weights of a window: 1 in its middle, falling towards its rim."""
    weight = torch.ones((), device=device)
    for edge in shape:
        away = (torch.arange(edge, device=device) - (edge - 1) / 2) / (edge / 2)
        weight = weight[..., None] * torch.exp(-0.5 * (away / 0.5) ** 2)
    return weight


def _softmax(logits: torch.Tensor, axis: int) -> torch.Tensor:
    """Their softmax in float32; on a CPU no further array is made, which takes time and memory."""
    logits = logits.float()
    return torch.softmax(logits, axis, out=logits if logits.is_cpu else None)


@dataclass(eq=False)
class Predictor:
    """A bundle ready to work: its network, folded, on a device, in a precision.

    Attributes:
        bundle: what it was made from.
        flips: average over an image and its mirror image, if the bundle allows it.
        fallback: go on with the CPU if the GPU's memory is too small.
        seconds: time spent in the network so far.
    """

    bundle: ModelBundle
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    precision: Precision = "auto"
    flips: bool = False
    fallback: bool = False
    seconds: float = 0.0

    def __post_init__(self) -> None:
        self._mirrors = self.flips and self.bundle.preparation.mirrors
        if self.flips and not self._mirrors:
            _log.warning(
                "--tta: the %s model was not trained with mirrored images: it is used without "
                "flip averaging",
                self.bundle.task,
            )
        self._type = resolve_precision(self.precision, self.device)
        network = fold(self.bundle.load())
        if self._type == torch.float32:
            use_onednn(network)
        self._layout = (
            torch.channels_last if self.bundle.network.spatial_dims == 2 else torch.channels_last_3d
        )
        self._network = network.to(device=self.device, memory_format=self._layout)  # type: ignore[call-overload]

    def __call__(self, image: Array, *, overlap: float = 0.5) -> NDArray[np.float32]:
        """Posteriors of one prepared image.

        Args:
            image: (*space) or (channels, *space) float32, as the network was trained on.
            overlap: of its windows; a small one is enough to find where something lies.

        Returns:
            (classes, *space) float32, summing to one over the classes.
        """
        return self.many([image], overlap=overlap)[0]

    def packed(self, image: Array) -> NDArray[np.uint16]:
        """The same in 65535ths, which for many classes is half of the memory.

        Args:
            image: as of ``__call__``.

        Returns:
            (classes, *space).
        """
        window = self.bundle.preparation.window
        dims = self.bundle.network.spatial_dims
        whole = all(len(window_places(*edge)) == 1 for edge in zip(image.shape[-dims:], window,
                                                                   strict=True))  # fmt: skip
        if not whole or self.device.type != "cpu":
            rounded: NDArray[np.uint16] = np.rint(self(image) * np.float32(_FULL)).astype(np.uint16)
            return rounded
        x = torch.from_numpy(np.ascontiguousarray(image, dtype=np.float32))
        x = x[None] if x.ndim > dims else x[None, None]
        start = time.perf_counter()
        with torch.inference_mode():
            packed = self._packed(x)
            if self._mirrors:
                other = self._packed(x.flip(2))[:, ::-1]
                for own, number in zip(packed, self.bundle.labels.mirrored, strict=True):
                    own[...] = (own + other[number].astype(np.uint32)) // 2
        self.seconds += time.perf_counter() - start
        return packed

    def many(
        self, images: Sequence[Array], *, mirrored: bool = True, overlap: float = 0.5
    ) -> list[NDArray[np.float32]]:
        """Posteriors of several images of one shape, in one batch; see ``__call__``.

        Two small images together take less time than one alone: a batch of one does not
        reach the fast kernels of oneDNN.

        Args:
            mirrored: the first axis runs from left to right, so that ``flips`` applies.
        """
        if not images:
            return []
        dims = self.bundle.network.spatial_dims
        x = torch.from_numpy(np.ascontiguousarray(np.stack(images), dtype=np.float32))
        x = (x[:, None] if x.ndim == dims + 1 else x).to(self.device)
        start = time.perf_counter()
        try:
            with torch.inference_mode():
                out: NDArray[np.float32] = self._in_windows(x, mirrored, overlap).cpu().numpy()
        except torch.cuda.OutOfMemoryError:
            out = np.empty(0, np.float32)
        if not len(out):
            self._leave_gpu()
            return self.many(images, mirrored=mirrored, overlap=overlap)
        self.seconds += time.perf_counter() - start
        return list(out)

    def slices(self, image: Array, *, mirrored: bool) -> NDArray[np.float32]:
        """Posteriors of a stack of slices, by a network of two dimensions.

        As many slices as memory is set aside for are seen at once.

        Args:
            image: (channels, slices, H, W) float32.
            mirrored: H runs from left to right, so that ``flips`` applies.

        Returns:
            (classes, slices, H, W) float32, summing to one over the classes.
        """
        out = np.empty((self.bundle.network.classes, *image.shape[1:]), dtype=np.float32)
        step = max(1, _PIXELS // math.prod(image.shape[2:]))
        for first in range(0, image.shape[1], step):
            part = slice(first, first + step)
            answers = self.many(list(image[:, part].swapaxes(0, 1)), mirrored=mirrored)
            out[:, part] = np.stack(answers, axis=1)
        return out

    def _leave_gpu(self) -> None:
        """Go on with the CPU, in the same precision.

        Raises:
            DeviceError: the GPU was asked for.
        """
        name = f"the GPU's memory is too small for the {self.bundle.task} network"
        if not self.fallback:
            raise DeviceError(f"{name}; use --device auto or cpu, or another GPU")
        _log.warning("%s: continuing on the CPU", name)
        self.device = torch.device("cpu")
        self._network = self._network.to(self.device)
        torch.cuda.empty_cache()

    def _in_windows(self, x: torch.Tensor, mirrored: bool, overlap: float) -> torch.Tensor:
        """Posteriors of a batch, from overlapping windows of the size of the training crops.

        What a network says depends on where the edge of the image is: it is asked about
        what it was trained on, and the middle of a window counts more than its rim.
        """
        edges = zip(x.shape[2:], self.bundle.preparation.window, strict=False)
        axes = [window_places(*pair, overlap) for pair in edges]
        places: list[tuple[Any, ...]] = [(slice(None), slice(None), *p) for p in product(*axes)]
        if len(places) == 1:
            return self._answers(x, mirrored)
        own: tuple[Any, ...] = (..., *(slice(0, edge) for edge in x.shape[2:]))
        beyond = [axis[-1].stop - edge for axis, edge in zip(axes, x.shape[2:], strict=True)]
        x = functional.pad(x, [n for after in reversed(beyond) for n in (0, after)], "replicate")
        size = (len(x), self.bundle.network.classes, *x.shape[2:])
        total = torch.zeros(size, device=x.device)
        weight = torch.zeros((1, 1, *x.shape[2:]), device=x.device)
        step = max(1, 2 // len(x))  # two at a time reach the fast kernels
        for first in range(0, len(places), step):
            group = places[first : first + step]
            answers = self._answers(torch.cat([x[place] for place in group]), mirrored)
            for place, answer in zip(group, answers.chunk(len(group)), strict=True):
                bell = _bell(answer.shape[2:], x.device)
                total[place] += answer.mul_(bell)
                weight[place] += bell
        return total.div_(weight)[own]

    def _answers(self, x: torch.Tensor, mirrored: bool) -> torch.Tensor:
        """Posteriors of a batch; of smaller ones where the GPU's memory is too small for it."""
        try:
            return self._at_once(x, mirrored)
        except torch.cuda.OutOfMemoryError:
            if len(x) == 1:
                raise
        torch.cuda.empty_cache()
        return torch.cat([self._answers(half, mirrored) for half in x.chunk(2)])

    def _at_once(self, x: torch.Tensor, mirrored: bool) -> torch.Tensor:
        posteriors = self._posteriors(x)
        if self._mirrors and mirrored:
            other = self._posteriors(x.flip(2)).flip(2)
            posteriors = (posteriors + other[:, list(self.bundle.labels.mirrored)]) / 2
        return posteriors

    def _posteriors(self, x: torch.Tensor) -> torch.Tensor:
        return _softmax(self._logits(x), 1)

    def _logits(self, x: torch.Tensor) -> torch.Tensor:
        with self._mixed():
            logits: torch.Tensor = self._network(self._shown(x))
        return logits

    def _packed(self, x: torch.Tensor) -> NDArray[np.uint16]:
        """The posteriors of one image in 65535ths, (classes, *space); made slab by slab."""
        out = np.empty((self.bundle.network.classes, *x.shape[2:]), dtype=np.uint16)
        # the same bits: torch, which rounds with all threads, may not know this type
        written = torch.from_numpy(out.view(np.int16))
        thickness = max(1, _AT_ONCE * out.shape[1] // out.size)
        first = 0
        with self._mixed():
            for logits in self._network.slabs(self._shown(x), thickness):
                share = _softmax(logits[0], 0).mul_(_FULL).round_()
                last = first + share.shape[1]
                written[:, first:last] = share.to(torch.int32).to(torch.int16)
                first = last
        return out

    def _shown(self, x: torch.Tensor) -> torch.Tensor:
        """What the network sees, as it lies best in memory."""
        if self.bundle.preparation.position:
            x = with_position(x, self.bundle.preparation.spacing)
        return x.contiguous(memory_format=self._layout)

    def _mixed(self) -> torch.autocast:
        mixed = self._type != torch.float32
        return torch.autocast(self.device.type, dtype=self._type, enabled=mixed)


@dataclass(eq=False)
class PredictorPool:
    """Predictors by task, each loaded when it is first asked for and then kept.

    Attributes:
        models: bundles to use in the place of the shipped ones.
        fallback: as of each :class:`Predictor`.
    """

    models: Mapping[str, Path] = field(default_factory=dict)
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    precision: Precision = "auto"
    flips: bool = False
    fallback: bool = False
    _loaded: dict[str, Predictor] = field(default_factory=dict)

    def __call__(self, task: str) -> Predictor:
        """The predictor of a task.

        Raises:
            BundleError: the bundle cannot be used, or is of another task.
            SkippedTask: none is given, and none is shipped.
        """
        if task not in self._loaded:
            path = self.models.get(task)
            if path is None and task not in shipped_bundles():
                raise SkippedTask(f"{task}: no model is installed")
            bundle = ModelBundle.shipped(task) if path is None else ModelBundle.open(path)
            if bundle.task != task:
                raise BundleError(
                    f"{bundle.path}: this model is for the task {bundle.task!r}, not {task!r}"
                )
            self._loaded[task] = Predictor(
                bundle, self.device, self.precision, self.flips, self.fallback
            )
        return self._loaded[task]

    @property
    def seconds(self) -> float:
        """Time spent in the networks so far."""
        return sum(predictor.seconds for predictor in self._loaded.values())

"""What a session will take: seconds from this machine's speed at this moment, and memory.

The networks see windows of fixed size, so their time is a number of windows times what a window
takes here, which is measured. Everything else (reading, resampling, labels, writing) goes with
the number of voxels. ``benchmarks/predictions.py`` compares what is predicted with what happens.
"""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from deepmrseg_bids.imaging.grid import Grid, canonical_grid, resample
from deepmrseg_bids.inference.bundle import ModelBundle, Preparation
from deepmrseg_bids.tasks.flair_slices import slice_axis
from deepmrseg_bids.tasks.registry import costs_of, needed_models
from deepmrseg_bids.tasks.spec import T1W, TaskSpec

__all__ = ["Cost", "Extras", "Speed", "memory_mib", "predict", "start_seconds"]

# steps (see Speed.step) for a million voxels of the scan: reading it and finding the brain,
# writing the files of a task, drawing it; for each label that is kept as posteriors
_SCAN, _WRITE, _DRAW, _POSTERIOR = 4.0, 0.7, 0.5, 1.5
_OBLIQUE, _OBLIQUE_CHOICE = 20.0, 1.4  # interpolated in 3D: once, and in the choice of labels
_CHOICE = 4.7  # for a million voxels of the crop in which labels are chosen, and each label
_SESSION, _PAGE = 18.0, 25.0  # whatever the scan; a page for each task
_START = 350.0  # from the command to the first session
_REGISTRATION, _SPACE = 750.0, 130.0  # onto a template; label maps on one of its grids

_SLICE = (160, 192)  # pixels of a slice that is cropped to a brain
_BRAIN_MM = 180.0  # of which slices are asked about, along any axis
_RIGID, _LESIONS = 160.0, 25.0  # steps: a T1w onto a FLAIR; what surrounds the lesions

_BASE_MIB = 350  # Python, torch, nipype
_REGISTRATION_MIB = 600  # antspyx and its images: onto a template
_RIGID_MIB = 250  # and of a T1w onto a FLAIR
_BYTES = 10.0  # a voxel: the scan (4), what it was read from or a part of it, labels
_OBLIQUE_BYTES = 3.0
_FIELD_MM, _FIELD_USUAL, _FIELD_BYTES = 2.0, 3e6, 80.0  # the grid in which the brain is looked for


@dataclass(frozen=True)
class Cost:
    """What a session is expected to take."""

    seconds: float
    memory_mib: int


@dataclass(frozen=True)
class Extras:
    """What a session takes beside its tasks.

    Attributes:
        probabilities: posteriors are written.
        page: the subject's page is written.
        registrations: templates that the scan is registered with.
        spaces: output spaces, each a grid of a template.
    """

    probabilities: bool = False
    page: bool = True
    registrations: int = 0
    spaces: int = 0


@dataclass(frozen=True)
class Speed:
    """How fast this machine is now.

    Attributes:
        windows: seconds of a window of each network.
        step: seconds that a usual step over a million voxels takes.
        preparations: what each network sees.
    """

    windows: Mapping[str, float]
    step: float
    preparations: Mapping[str, Preparation] = field(default_factory=dict)

    @classmethod
    def measure(
        cls,
        bundles: Mapping[str, ModelBundle],
        *,
        threads: int,
        device: str = "auto",
        precision: str = "auto",
        flips: bool = False,
    ) -> Speed:
        """Ask each network about two empty windows, and resample a small image: seconds."""
        from deepmrseg_bids.inference.predictor import Predictor, resolve_device, set_threads

        set_threads(threads)
        windows = {}
        for task, bundle in bundles.items():
            predictor = Predictor(bundle, resolve_device(device), precision, flips)  # type: ignore[arg-type]
            pair = [_blank(bundle)] * 2
            predictor.many(pair)  # the first call chooses its kernels
            before = predictor.seconds
            predictor.many(pair)
            windows[task] = (predictor.seconds - before) / 2
        preparations = {task: bundle.preparation for task, bundle in bundles.items()}
        return cls(windows, _step_seconds(), preparations)


def _step_seconds() -> float:
    """Seconds for a million voxels of reading through and resampling: the best of three."""
    source = Grid((128, 128, 128), np.eye(4))
    target = Grid((90, 90, 90), np.diag([1.4, 1.4, 1.4, 1.0]))
    data = np.asfortranarray(np.random.default_rng(0).random(source.shape, dtype=np.float32))
    best = math.inf
    for _ in range(3):
        start = time.perf_counter()
        resample(data, source, target)
        np.isfinite(data).all()
        best = min(best, time.perf_counter() - start)
    return best / (data.size / 1e6)


def predict(
    grids: Mapping[str, Grid],
    tasks: Sequence[TaskSpec],
    speed: Speed,
    extras: Extras | None = None,
) -> Cost:
    """What the tasks of one session take.

    Args:
        grids: of its images, by modality, see :func:`~deepmrseg_bids.imaging.nifti.read_grid`.
        tasks: those that are left to do.
    """
    more = extras or Extras()
    seconds = 0.0
    steps = _SESSION + more.registrations * _REGISTRATION + more.spaces * _SPACE
    slices = [task for task in tasks if task.native != T1W]
    t1w = grids.get(T1W)
    if t1w is not None:
        slice_models = {task.models[-1] for task in slices}
        for model in set(needed_models(tasks)) & set(speed.windows) - slice_models:
            seconds += _windows(model, t1w, speed) * speed.windows[model]
        steps += math.prod(t1w.shape) / 1e6 * _SCAN + (_OBLIQUE if _is_oblique(t1w) else 0)
    for task in slices:
        if (native := grids.get(task.native)) is None:
            continue
        *before, last = task.models  # the brain is looked for in this image too
        for model in before:
            seconds += _windows(model, native, speed) * speed.windows.get(model, 0.0)
        seconds += _slices(native) * speed.windows.get(last, 0.0)
        steps += math.prod(native.shape) / 1e6 * _SCAN + (_OBLIQUE if _is_oblique(native) else 0)
        steps += _LESIONS + (_RIGID if t1w is not None else 0)
    for task in tasks:
        steps += _steps(task, task.images(grids).values(), more)
    return Cost(seconds + steps * speed.step, memory_mib(grids, tasks, spaces=more.spaces))


def _steps(task: TaskSpec, grids: Collection[Grid], more: Extras) -> float:
    """Steps of choosing, writing and drawing the labels of a task on each grid."""
    labels = task.costs.labels
    steps = _PAGE if more.page else 0.0
    for grid in grids:
        millions = math.prod(grid.shape) / 1e6
        crop = min(task.costs.crop_mm3 / grid.voxel_volume / 1e6, millions)
        choice = _CHOICE * (_OBLIQUE_CHOICE if _is_oblique(grid) else 1)
        steps += millions * _WRITE + crop * labels * choice
        steps += millions * labels * _POSTERIOR if more.probabilities else 0
        steps += millions * _DRAW if more.page else 0
    return steps


def start_seconds(speed: Speed) -> float:
    """From the command to the first session."""
    return _START * speed.step


def _is_oblique(grid: Grid) -> bool:
    return grid.obliquity > 1


def _window(preparation: Preparation) -> tuple[int, ...]:
    """What a network is asked about at once; some edge for one that takes whole images."""
    edges = zip(preparation.window, preparation.shape, strict=True)
    return tuple(window or edge or 64 for window, edge in edges)


def _blank(bundle: ModelBundle) -> NDArray[np.float32]:
    """An empty image as a network is asked about: a window, or a slice of all its channels."""
    if bundle.network.spatial_dims == 2:
        return np.zeros((bundle.network.in_channels, *_SLICE), np.float32)
    return np.zeros(_window(bundle.preparation), np.float32)


def _slices(flair: Grid) -> float:
    """How many slices of a FLAIR hold brain."""
    axis = slice_axis(flair)
    return min(flair.shape[axis], _BRAIN_MM / flair.spacing[axis])


def _windows(model: str, grid: Grid, speed: Speed) -> float:
    """How many windows a network is asked about."""
    from deepmrseg_bids.inference.predictor import window_places

    preparation = speed.preparations[model]
    window = _window(preparation)

    def places(shape: tuple[int, ...]) -> float:
        if not any(preparation.window):
            return math.prod(shape) / math.prod(window)
        return math.prod(len(window_places(*edges)) for edges in zip(shape, window, strict=True))

    whole = canonical_grid(grid, preparation.spacing).shape
    shape = preparation.shape if all(preparation.shape) else whole
    costs = costs_of(model)
    return costs.crops * (costs.looks + costs.passes * places(shape))


def memory_mib(grids: Mapping[str, Grid], tasks: Sequence[TaskSpec], *, spaces: int = 0) -> int:
    """The largest size that a process gets while it works on a session.

    Args:
        grids: of the images that can be used, by modality.
        spaces: output spaces, each a grid of a template.
    """
    networks = (costs_of(model).network_mib for task in tasks for model in task.models)
    fixed = _BASE_MIB + max(networks, default=0)
    pairs = [task for task in tasks if task.pair and task.native in grids]
    fixed += _REGISTRATION_MIB if spaces else _RIGID_MIB if pairs else 0
    total = float(fixed)
    for modality in {T1W, *(task.native for task in pairs)} & set(grids):
        scan = grids[modality]
        each = _BYTES + (_OBLIQUE_BYTES if _is_oblique(scan) else 0)
        total += each * math.prod(scan.shape) / 2**20
        field = math.prod(canonical_grid(scan, _FIELD_MM).shape)
        total += _FIELD_BYTES * max(0.0, field - _FIELD_USUAL) / 2**20
    return round(total)

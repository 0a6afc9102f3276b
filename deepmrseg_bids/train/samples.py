"""Training samples: the table, the folds, and images prepared once and kept.

``SAMPLES.tsv`` has the columns ``sample_id``, ``T1w``, ``FLAIR`` (if used), ``dseg``, and,
if wanted, ``participant_id`` (keeps a person in one fold), ``mask`` (an image above zero in
the brain, for scans that are not brain-extracted), ``protocol`` (which table of label codes
applies), ``weight`` (how often it is drawn) and ``teaches_only`` (1: never held out to
judge) and ``lesions`` (a file of lesions, or a folder of such files, that are put into the
white matter of a label map). A row without images is a label map to synthesise scans from.
Paths are relative to the table.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from deepmrseg_bids.errors import DatasetError, TrainingError
from deepmrseg_bids.files import replacing, write_text
from deepmrseg_bids.imaging.grid import Grid, canonical_grid, resample
from deepmrseg_bids.imaging.morphology import filled
from deepmrseg_bids.imaging.nifti import LabelMap, read_labels, read_volume
from deepmrseg_bids.tasks.spec import MODALITIES, T1W
from deepmrseg_bids.train.config import TrainConfig
from deepmrseg_bids.train.label_codes import check_codes, reference_classes
from deepmrseg_bids.train.tissues import OUTSIDE_BRAIN
from deepmrseg_bids.tsv import NOT_KNOWN, read_foreign_tsv, tsv_text

__all__ = ["Prepared", "Sample", "load_samples", "prepare_sample", "split_folds", "write_samples"]

_log = logging.getLogger(__name__)

_VERSION = 3  # of what prepare_sample makes: another number leaves the old cache aside
_COLUMNS = ("sample_id", "participant_id", "T1w", "FLAIR", "dseg", "mask", "protocol", "weight",
            "teaches_only", "lesions")  # fmt: skip
_ROOM = 20  # voxels kept around a crop, for rotations and shifts


@dataclass(frozen=True)
class Sample:
    """One row of the table, with absolute paths.

    Attributes:
        images: by modality (``T1w``, ``FLAIR``); empty for a label map alone.
    """

    sample_id: str
    participant_id: str
    images: Mapping[str, Path]
    dseg: Path
    mask: Path | None = None
    protocol: str = ""
    weight: float = 1.0
    teaches_only: bool = False
    lesions: Path | None = field(default=None, repr=False)  # not part of a cached sample


@dataclass(frozen=True, eq=False)
class Prepared:
    """A sample in RAS at the network's spacing.

    Attributes:
        image: (I, J, K) float16 in [0, 1] of its brightest percentile; None if synthetic.
        mask: (I, J, K) the brain; for the intensity mode ``crop``, the field of view.
        target: (I, J, K) uint8, the classes.
        codes: (I, J, K) int16, the label map's own codes; None unless synthetic.
        centre: the middle of what is to be segmented, in voxels.
    """

    image: NDArray[np.float16] | None
    mask: NDArray[np.bool_]
    target: NDArray[np.uint8]
    codes: NDArray[np.int16] | None
    centre: tuple[float, float, float]
    weight: float = 1.0

    @cached_property
    def brain_centre(self) -> NDArray[np.float64]:
        """(3,) the mean place of the brain's voxels, in voxels."""
        centre: NDArray[np.float64] = np.argwhere(self.mask).mean(axis=0)
        return centre


def load_samples(table: str | os.PathLike[str]) -> list[Sample]:
    """Read ``SAMPLES.tsv``.

    Columns that mean nothing here are named in a warning.

    Raises:
        TrainingError: unreadable, a column or a file is missing, a title in other letters
            (``t1w``), a value that means nothing, or an id that occurs twice; the message names
            line and column.
    """
    table = Path(table)
    try:
        read = read_foreign_tsv(table)
        read.require("sample_id", "dseg")
    except DatasetError as error:
        raise TrainingError(f"{error}; a table of samples was expected") from error
    unused = _unused(table, read.columns)
    if not read.rows:
        raise TrainingError(f"{table}: the table contains no samples")
    samples: dict[str, Sample] = {}
    for line, cells in zip(read.lines, read.rows, strict=True):
        sample = _sample(_Row(table, line, cells))
        if sample.sample_id in samples:
            raise TrainingError(
                f"{table}, line {line}, column sample_id: {sample.sample_id} occurs twice"
            )
        samples[sample.sample_id] = sample
    for note in read.notes:
        _log.warning("%s", note)
    if unused:
        _log.warning("%s: columns that are not used: %s", table, ", ".join(unused))
    return list(samples.values())


def _unused(table: Path, titles: Sequence[str]) -> list[str]:
    """The titles that mean nothing here.

    Raises:
        TrainingError: one that differs from a known one in upper and lower case alone.
    """
    alike = {column.lower(): column for column in _COLUMNS}
    unused = [title for title in titles if title not in _COLUMNS]
    for title in unused:
        if title.lower() in alike:
            raise TrainingError(
                f"{table}, line 1: the column {title} must be written {alike[title.lower()]}"
            )
    return unused


@dataclass(frozen=True)
class _Row:
    """One row of a table."""

    table: Path
    line: int
    cells: Mapping[str, str]

    def text(self, column: str) -> str:
        """The cell; empty for ``n/a``, too."""
        cell = self.cells.get(column, "")
        return "" if cell == NOT_KNOWN else cell

    def path(self, column: str) -> Path | None:
        """The file of a cell, relative to the table."""
        cell = self.text(column)
        if not cell:
            return None
        file = self.table.parent / cell
        if not file.is_file() and not (column == "lesions" and file.is_dir()):
            raise self.error(column, f"no file {cell}")
        return file.resolve()

    def error(self, column: str, told: str) -> TrainingError:
        """What is wrong with a cell."""
        name = self.text("sample_id")
        who = f"{name}: " if name else ""
        return TrainingError(f"{self.table}, line {self.line}, column {column}: {who}{told}")


def _sample(row: _Row) -> Sample:
    name, dseg = row.text("sample_id"), row.path("dseg")
    if not name:
        raise row.error("sample_id", "no sample_id")
    if dseg is None:
        raise row.error("dseg", "no dseg")
    teaches_only = row.text("teaches_only") or "0"
    if teaches_only not in ("0", "1"):
        raise row.error("teaches_only", f"0 or 1 was expected, got {teaches_only!r}")
    return Sample(
        sample_id=name,
        participant_id=row.text("participant_id") or name,
        images={name: path for name in MODALITIES if (path := row.path(name)) is not None},
        dseg=dseg,
        mask=row.path("mask"),
        protocol=row.text("protocol"),
        weight=_weight(row),
        teaches_only=teaches_only == "1",
        lesions=row.path("lesions"),
    )


def _weight(row: _Row) -> float:
    text = row.text("weight")
    try:
        weight = float(text or 1)
    except ValueError:
        weight = -1.0
    if not 0 <= weight < float("inf"):
        raise row.error("weight", f"a weight is a number of at least 0, got {text!r}")
    return weight


def write_samples(path: Path, samples: Sequence[Sample]) -> None:
    """Write the images and labels of samples as a table that :func:`load_samples` reads."""
    columns = ("sample_id", "participant_id", *MODALITIES, "dseg", "mask", "protocol")
    rows = [
        (s.sample_id, s.participant_id, *map(s.images.get, MODALITIES), s.dseg, s.mask, s.protocol)
        for s in samples
    ]
    write_text(path, tsv_text(columns, rows, quote=True))


def split_folds(samples: Sequence[Sample], folds: int, *, seed: int) -> list[list[Sample]]:
    """Deal people, not scans, into ``folds`` groups of nearly equal size.

    Label maps without images, and what ``teaches_only``, are never dealt.
    """
    judges = [s for s in samples if s.images and not s.teaches_only]
    people = sorted({sample.participant_id for sample in judges})
    if len(people) < folds:
        raise TrainingError(
            f"{folds} folds require at least {folds} participants, found {len(people)}"
        )
    order = np.random.default_rng(seed).permutation(len(people))
    fold_of = {people[person]: place % folds for place, person in enumerate(order)}
    split: list[list[Sample]] = [[] for _ in range(folds)]
    for sample in judges:
        split[fold_of[sample.participant_id]].append(sample)
    return split


def prepare_sample(sample: Sample, config: TrainConfig, cache: Path | None = None) -> Prepared:
    """Orient, resample and crop a sample, or take it from the cache.

    Raises:
        ImageError: an image cannot be used.
        TrainingError: none of the labels is in it, or codes that the settings do not mention.
    """
    settings = (config.labels, config.preparation, config.protocols, config.ignore)
    key = hashlib.sha256(repr((_VERSION, sample, *settings)).encode()).hexdigest()[:20]
    kept = cache / f"{key}.npz" if cache else None
    if kept is not None and kept.is_file():
        with np.load(kept) as arrays:
            return Prepared(
                image=arrays.get("image"),
                mask=arrays["mask"],
                target=arrays["target"],
                codes=arrays.get("codes"),
                centre=tuple(arrays["centre"]),
                weight=sample.weight,
            )
    prepared = _prepare(sample, config)
    if kept is not None:
        arrays = {"mask": prepared.mask, "target": prepared.target}
        if prepared.image is not None:
            arrays["image"] = prepared.image
        if prepared.codes is not None:
            arrays["codes"] = prepared.codes
        with replacing(kept) as stream:
            np.savez_compressed(stream, centre=np.array(prepared.centre), **arrays)
    return prepared


def _prepare(sample: Sample, config: TrainConfig) -> Prepared:
    labels = read_labels(sample.dseg)
    limit = None if T1W in sample.images else OUTSIDE_BRAIN
    check_codes(labels, sample.dseg, sample.protocol, config, limit=limit)
    target = LabelMap(reference_classes(labels, sample.protocol, config), labels.grid)
    grid = canonical_grid(labels.grid, config.preparation.spacing)
    if not target.data.any():
        raise TrainingError(f"{sample.dseg}: it contains none of the labels")
    classes = _resample_classes(target, grid)
    found = np.argwhere(classes)
    centre = (found.max(axis=0) + found.min(axis=0)) / 2
    if any(config.preparation.shape):
        grid = _roomy(grid, centre, config.preparation.shape)
        classes = _resample_classes(target, grid)
        centre = (np.array(grid.shape) - 1) / 2
    point = (float(centre[0]), float(centre[1]), float(centre[2]))
    if T1W not in sample.images:
        codes = resample(labels.data.astype(np.int16), labels.grid, grid, order=0)
        brain = (classes > 0) | ((codes > 0) & (codes < OUTSIDE_BRAIN))
        return Prepared(None, brain, classes, codes, point, sample.weight)
    volume = read_volume(sample.images[T1W])
    image = resample(volume.data, volume.grid, grid)
    top = float(np.percentile(volume.data, 99.9)) or 1.0
    if sample.mask is not None:
        outline = read_labels(sample.mask)
        inside = filled(ndimage.binary_closing(outline.data > 0, iterations=2))
        mask = resample(inside.astype(np.float32), outline.grid, grid) > 0.5
    elif config.preparation.intensity == "brain":
        mask = resample((volume.data > 0).astype(np.float32), volume.grid, grid) > 0.5
    elif config.preparation.intensity == "crop":
        mask = resample(np.ones(volume.grid.shape, np.uint8), volume.grid, grid, order=0) > 0
    else:
        mask = classes > 0
    scaled = np.clip(image / top, -2, 8).astype(np.float16)
    return Prepared(scaled, mask, classes, None, point, sample.weight)


def _roomy(grid: Grid, centre: NDArray[np.float64], shape: tuple[int, int, int]) -> Grid:
    """The part of ``grid`` around ``centre``, voxel on voxel: labels are not interpolated."""
    edges = np.array(shape) + 2 * _ROOM
    start = np.round(centre - (edges - 1) / 2).astype(int)
    return grid.crop(start.tolist(), (start + edges).tolist())


def _resample_classes(target: LabelMap, grid: Grid) -> NDArray[np.uint8]:
    """The most likely class in each voxel: one interpolated indicator a class."""
    if np.allclose(target.grid.spacing, grid.spacing):
        nearest: NDArray[np.uint8] = resample(target.data, target.grid, grid, order=0)
        return nearest
    best = resample((target.data == 0).astype(np.float32), target.grid, grid, fill=1.0)
    out = np.zeros(grid.shape, dtype=np.uint8)
    for number in sorted(set(np.unique(target.data).tolist()) - {0}):
        share = resample((target.data == number).astype(np.float32), target.grid, grid)
        out[share > best] = number
        np.maximum(best, share, out=best)
    return out

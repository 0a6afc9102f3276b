"""``hippocampus``: its anterior and posterior part on both sides, in a crop around each.

The network knows one hippocampus, a left one in RAS. The crop around the right one is laid
on a grid whose first axis runs to the left, so that the network sees a left one again, and
the way back undoes it like any other orientation.

Where each hippocampus lies is found in :mod:`deepmrseg_bids.tasks.hippocampus_search`.

The protocol of the reference divides the hippocampus by a coronal plane, so the border between
both parts is made one: see :func:`with_coronal_border`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from deepmrseg_bids.errors import SegmentationError
from deepmrseg_bids.findings import Finding
from deepmrseg_bids.imaging.labels import Label, LabelTable
from deepmrseg_bids.imaging.morphology import box_of
from deepmrseg_bids.imaging.nifti import LabelMap, Volume
from deepmrseg_bids.tasks import custom
from deepmrseg_bids.tasks.brain import MODELS, brain_of, t1w_of
from deepmrseg_bids.tasks.deepbrain import deep_structures_of
from deepmrseg_bids.tasks.hippocampus_search import (
    CLASSES,
    SMALLEST,
    WHOLE,
    Search,
    search_all,
)
from deepmrseg_bids.tasks.qc import check_hippocampus
from deepmrseg_bids.tasks.results import (
    Posteriors,
    Segmentation,
    confidences,
    found_in,
    label_map,
    largest_parts,
    measure,
)
from deepmrseg_bids.tasks.spec import T1W, Costs, Figure, Predictors, TaskSpec

if TYPE_CHECKING:
    from deepmrseg_bids.inference.predictor import Predictor
    from deepmrseg_bids.tasks.pipeline import SessionContext

__all__ = ["TABLE", "TASK", "segment", "segment_prepared", "with_coronal_border"]

TABLE = LabelTable(
    (
        Label(1, "Left-Hippocampus-Anterior", "L-HA", "#f58231"),
        Label(2, "Left-Hippocampus-Posterior", "L-HP", "#42d4f4"),
        Label(3, "Right-Hippocampus-Anterior", "R-HA", "#e6194b"),
        Label(4, "Right-Hippocampus-Posterior", "R-HP", "#4363d8"),
    )
)


_PASSED_ON = {"structure-missing", "structure-unsure", "structure-volume", "structures-outside",
              "sides-crossed"}  # fmt: skip
# findings about deepbrain, which says where a hippocampus is


def segment(volume: Volume, deepbrain: Segmentation, predictor: Predictor) -> Segmentation:
    """Both hippocampi of a raw head, found through its deep structures.

    A side that ``deepbrain`` did not find is left empty, with a warning.
    """
    deep = deepbrain.posteriors[0]
    likely = deep.labels()
    number = {label.name: k for k, label in enumerate(deepbrain.table, start=1)}
    unknown = [name for name in WHOLE.values() if name not in number]
    if unknown:
        raise SegmentationError(
            f"the deepbrain model has no label {' and no label '.join(unknown)}"
        )
    searches, findings = [], []
    for side, name in WHOLE.items():
        seen = likely == number[name]
        if np.count_nonzero(seen) < SMALLEST:
            text = f"{name} was not found, so its parts are missing"
            findings.append(Finding("structure-missing", "error", text))
        else:
            preparation = predictor.bundle.preparation
            searches.append(Search(volume, seen, deep.grid, side, preparation))
    search_all(searches, predictor)
    labels = np.zeros(volume.grid.shape, dtype=np.uint8)
    sureness: dict[int, float | None] = {}
    parts = []
    for search in searches:
        parts.append(largest_parts(with_coronal_border(search.found)))
        found = label_map(parts[-1], volume.grid).data
        if (box := box_of(found)) is not None:
            np.copyto(labels[box], found[box], where=found[box] > 0, casting="same_kind")
        # by what the network said, which knows doubt about the border
        sureness |= confidences(search.found, parts[-1].labels())
        findings += search.findings()
    whole = LabelMap(labels, volume.grid)
    own = predictor.bundle.labels.names
    known_as = {index: own[k] for pair in CLASSES.values() for k, index in enumerate(pair)}
    rows = measure(whole, TABLE, sureness, predictor.bundle, calibrated_as=known_as)
    findings += [
        Finding("structure-missing", "error", f"{row.name} was not found")
        for row in rows
        if row.index in sureness and not row.volume_mm3
    ]
    result = Segmentation("hippocampus", whole, TABLE, rows, tuple(parts))
    return replace(result, findings=(*findings, *check_hippocampus(result, deepbrain)))


def segment_prepared(volume: Volume, predictor: Predictor) -> Segmentation:
    """The parts of one left hippocampus, from a crop in RAS around it: labels 1 and 2."""
    plain = custom.segment(volume, predictor)
    if len(plain.table) != 2:
        return plain  # a model of one's own, with other parts
    (found,) = plain.posteriors
    bordered = largest_parts(with_coronal_border(found))
    labels = label_map(bordered, volume.grid)
    sureness = confidences(found, bordered.labels())
    rows = measure(labels, plain.table, sureness, predictor.bundle)
    return replace(plain, labels=labels, measures=rows, posteriors=(bordered,))


def with_coronal_border(found: Posteriors) -> Posteriors:
    """Posteriors of which the border between anterior and posterior part is a coronal plane.

    The plane lies where it separates the two posteriors best; in front of it all that is
    hippocampus is anterior, behind it posterior. A voxel that is more likely either part than
    background comes in, also where neither part alone was the most likely.

    Args:
        found: background, anterior and posterior part on a grid whose second axis runs forward.
    """
    background, anterior, posterior = found.data
    lead = (anterior - posterior).sum(axis=(0, 2), dtype=np.float64)
    first = int(np.argmin(np.concatenate([[0.0], np.cumsum(lead)])))  # slice of the anterior part
    ahead = (np.arange(found.grid.shape[1]) >= first)[:, None]
    either = anterior + posterior
    data = np.stack([background, either * ahead, either * ~ahead])
    return replace(found, data=data)


def _segment_session(context: SessionContext) -> Segmentation:
    brain = brain_of(context)
    deep, turned = deep_structures_of(context)
    result = segment(t1w_of(context), deep, context.predictors("hippocampus"))
    passed_on = [
        replace(one, message=f"deepbrain: {one.message}")
        for one in deep.findings
        if one.code in _PASSED_ON
    ]
    return found_in(brain, result, *turned, *passed_on)


def _segment_prepared(images: Mapping[str, Volume], predictors: Predictors) -> Segmentation:
    return segment_prepared(images[T1W], predictors("hippocampus"))


TASK = TaskSpec(
    name="hippocampus",
    title="Hippocampus",
    description="Anterior and posterior hippocampus",
    segment=_segment_session,
    segment_prepared=_segment_prepared,
    models=(*MODELS, "deepbrain", "hippocampus"),
    table=TABLE,
    methods=("Each hippocampus was segmented in a crop around it and divided by a coronal plane."),
    figure=Figure(plane=0),
    costs=Costs(
        window_seconds=0.16,
        network_mib=430,
        labels=4,
        crop_mm3=2 * 40 * 56 * 40,
        looks=2.5,
        crops=2,
    ),
)

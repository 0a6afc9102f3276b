"""``wml``: white-matter lesions in a FLAIR, with the T1w of the same head where there is one.

The network sees the slices of the FLAIR as they were scanned, and the T1w laid on them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from deepmrseg_bids.errors import DeepMRSegError, SignalError, SkippedTask
from deepmrseg_bids.findings import Finding
from deepmrseg_bids.imaging.grid import Grid, overlap, resample
from deepmrseg_bids.imaging.morphology import filled
from deepmrseg_bids.imaging.nifti import LabelMap, Volume
from deepmrseg_bids.inference.calibration import Calibration
from deepmrseg_bids.tasks.brain import MODELS, Brain, brain_of
from deepmrseg_bids.tasks.coregistration import Pair, pair_scans
from deepmrseg_bids.tasks.flair_slices import across, prepare_pair, slice_grid
from deepmrseg_bids.tasks.lesion_landmarks import Anatomy
from deepmrseg_bids.tasks.lesions import (
    Lesion,
    Surroundings,
    check_lesions,
    drop_specks,
    find_lesions,
)
from deepmrseg_bids.tasks.results import (
    Measure,
    Posteriors,
    Segmentation,
    confidences,
    label_map,
    measure,
)
from deepmrseg_bids.tasks.spec import PAIRED, T1W, Costs, Figure, Predictors, TaskSpec

if TYPE_CHECKING:
    from deepmrseg_bids.inference.bundle import ModelBundle
    from deepmrseg_bids.inference.predictor import Predictor
    from deepmrseg_bids.tasks.pipeline import SessionContext

__all__ = ["TASK", "LesionSegmentation", "segment", "segment_pair_of", "segment_prepared", "weigh"]

_MaskOn = Callable[[Grid], NDArray[np.bool_]]


@dataclass(frozen=True, eq=False, kw_only=True)
class LesionSegmentation(Segmentation):
    """The lesions of one session.

    ``labels`` and ``posteriors`` lie in the space of the T1w, or of the FLAIR where it was used
    alone. The measures are those on the FLAIR's own grid, where the lesions were seen.

    Attributes:
        on_flair: the lesions on the FLAIR's own grid.
        lesions: each of them; None for structures that are no lesions.
        sources: where the landmarks come from that tell the places of the lesions, in words.
        pair: the two scans; None for prepared ones.
    """

    on_flair: LabelMap
    lesions: tuple[Lesion, ...] | None
    sources: Mapping[str, str] = field(default_factory=dict)
    pair: Pair | None = None

    @property
    def aligned(self) -> bool:
        """Whether the T1w lies on the FLAIR, so that ``labels`` are in its space."""
        return self.pair is None or self.pair.t1w is not None

    def in_flair(self) -> LesionSegmentation:
        """The same with labels and posteriors in the space of the FLAIR."""
        if self.pair is None or self.pair.rigid is None:
            return self
        back = np.linalg.inv(self.pair.rigid)
        posteriors = tuple(
            replace(part, grid=Grid(part.grid.shape, back @ part.grid.affine))
            for part in self.posteriors
        )
        return replace(self, labels=self.on_flair, posteriors=posteriors)


def segment(
    t1w: Volume | None,
    brain: Brain | None,
    flair: Volume | None,
    predictors: Callable[[str], Predictor],
    *,
    model: str = "wml",
    anatomies: Sequence[Anatomy] = (),
) -> LesionSegmentation:
    """White-matter lesions of one session.

    Args:
        t1w: where there is one; it may lie anywhere.
        brain: of the T1w.
        model: whose network sees the slices.
        anatomies: label maps of the T1w that tell the places of lesions.

    Raises:
        SkippedTask: there is no FLAIR.
        SegmentationError: no brain was found in the FLAIR.
    """
    if flair is None:
        raise SkippedTask(f"{model} requires a FLAIR, but the session has none")
    network = predictors(model)
    pair = pair_scans(flair, t1w, predictors("brain"), brain=brain)
    there = [] if pair.rigid is None else [one.moved(pair.rigid) for one in anatomies]
    found = _segment(pair.flair, pair.t1w, pair.brain.mask_on, network, rigid=pair.rigid,
                     centre=pair.brain.centre, anatomies=there)  # fmt: skip
    # percentages are of the volumes of the T1w, as in the other tables; a T1w that does not lie on
    # the FLAIR may show another person
    whole = brain if brain is not None and pair.t1w is not None else pair.brain
    found = replace(found, brain_mm3=whole.volume_mm3, icv_mm3=whole.icv_mm3,
                    findings=pair.findings, pair=pair)  # fmt: skip
    if pair.t1w is None:
        return found
    posteriors = replace(found.posteriors[0], grid=pair.in_t1w(found.posteriors[0].grid))
    labels = _lesions_on(pair.t1w.grid, found.on_flair, pair)
    return replace(found, labels=labels, posteriors=(posteriors,))


def _lesions_on(grid: Grid, on_flair: LabelMap, pair: Pair) -> LabelMap:
    """The lesions of the FLAIR on the grid of the T1w, each voxel as the nearest of the FLAIR.

    Probabilities that are interpolated once more fall below one half at the rims of lesions:
    that took 1 to 8 % of their volume.
    """
    place = pair.in_t1w(on_flair.grid)
    return LabelMap(resample(on_flair.data, place, grid, order=0), grid)


def segment_prepared(
    t1w: Volume | None, flair: Volume | None, predictor: Predictor
) -> LesionSegmentation:
    """The lesions of scans that lie on each other and are brain-extracted (zero outside).

    Raises:
        SkippedTask: there is no FLAIR.
        SignalError: no voxel of the FLAIR is above zero.
    """
    if flair is None:
        raise SkippedTask(f"{predictor.bundle.task} requires a FLAIR, but the sample has none")
    inside = filled(flair.data > 0)
    if not inside.any():
        raise SignalError(
            f"{flair.source or 'the FLAIR'}: no voxel above 0: the image contains no brain"
        )

    def mask_on(grid: Grid) -> NDArray[np.bool_]:
        carried: NDArray[np.bool_] = resample(inside.astype(np.float32), flair.grid, grid) > 0.5
        return carried

    return _segment(flair, t1w, mask_on, predictor)


def _segment(
    flair: Volume,
    t1w: Volume | None,
    mask_on: _MaskOn,
    predictor: Predictor,
    *,
    rigid: NDArray[np.float64] | None = None,
    centre: tuple[float, float, float] | None = None,
    anatomies: Sequence[Anatomy] = (),
) -> LesionSegmentation:
    """Lesions on the FLAIR's grid, with posteriors in its space."""
    bundle = predictor.bundle
    grid = slice_grid(flair.grid, mask_on(flair.grid), spacing=bundle.preparation.spacing)
    mask = mask_on(grid)
    image = prepare_pair(flair, t1w, mask, grid, rigid=rigid)
    answer = predictor.slices(image, mirrored=across(grid))
    weigh(answer, mask, grid, bundle)
    chosen = drop_specks(mask & (answer.argmax(axis=0) > 0), grid)
    _keep(answer, chosen, mask)
    posteriors = Posteriors(answer, grid, (0, *bundle.labels.indices))
    labels = label_map(posteriors, flair.grid)
    fluid = resample(flair.data, flair.grid, grid)
    around = Surroundings.of(
        fluid, mask, chosen, grid, centre=centre, anatomies=anatomies, everywhere=False
    )
    return LesionSegmentation(
        task=bundle.task,
        labels=labels,
        table=bundle.labels,
        measures=measure(labels, bundle.labels, confidences(posteriors), bundle),
        posteriors=(posteriors,),
        on_flair=labels,
        lesions=_lesions(labels, posteriors, around),
        sources=around.sources,
    )


def weigh(
    answer: NDArray[np.float32], mask: NDArray[np.bool_], grid: Grid, bundle: ModelBundle
) -> None:
    """Change the odds of lesions so that the threshold of this load becomes one half, in place.

    Args:
        answer: (2, *grid.shape) posteriors of background and lesions; those of more labels stay.
        mask: the brain.
    """
    if len(bundle.labels) > 1:
        return
    (name,) = bundle.labels.names
    load = float((mask & (answer[0] < 0.5)).sum()) * grid.voxel_volume
    threshold = Calibration.of(bundle.facts, name).threshold(load)
    if threshold == 0.5:
        return
    answer[0] *= threshold
    answer[1] *= 1 - threshold
    answer /= answer.sum(axis=0)


def _keep(answer: NDArray[np.float32], chosen: NDArray[np.bool_], mask: NDArray[np.bool_]) -> None:
    """Give to the background what lies outside the brain, and specks, in place."""
    lost = ~mask | (~chosen & (answer.argmax(axis=0) > 0))
    answer[0][lost] = 1
    answer[1:, lost] = 0


def _lesions(labels: LabelMap, posteriors: Posteriors, around: Surroundings) -> tuple[Lesion, ...]:
    part = overlap(posteriors.grid, labels.grid)
    if part is None:
        return ()
    box = labels.grid.part(part)
    return find_lesions(labels.data[part] > 0, box, 1 - posteriors.data[0], around)


def segment_pair_of(context: SessionContext, model: str) -> LesionSegmentation:
    """What a network of slices finds in the FLAIR and the T1w of a session."""
    brain = None
    t1w = context.images.get(T1W)
    if t1w is not None:
        try:
            brain = brain_of(context)
        except DeepMRSegError:  # that of the FLAIR is looked for all the same
            brain = None
    return segment(
        t1w,
        brain,
        context.images.get(PAIRED),
        context.predictors,
        model=model,
        anatomies=context.anatomies,
    )


def _segment_session(context: SessionContext) -> LesionSegmentation:
    return _checked(segment_pair_of(context, "wml"))


def _segment_prepared(images: Mapping[str, Volume], predictors: Predictors) -> LesionSegmentation:
    return _checked(segment_prepared(images.get(T1W), images.get(PAIRED), predictors("wml")))


def _checked(found: LesionSegmentation) -> LesionSegmentation:
    odd = check_lesions(found.labels.data > 0, found.labels.grid)
    low = tuple(_below_floor(row) for row in found.measures if row.below_floor)
    return replace(found, findings=(*found.findings, *odd, *low))


def _below_floor(row: Measure) -> Finding:
    floor, volume = (row.floor_mm3 or 0.0) / 1000, row.volume_mm3 / 1000
    text = f"lesion volume {volume:.2f} ml: below {floor:g} ml, not distinguishable from none"
    return Finding("lesions-below-floor", "info", text)


TASK = TaskSpec(
    name="wml",
    title="White-matter lesions",
    description="White-matter lesions",
    segment=_segment_session,
    segment_prepared=_segment_prepared,
    models=(*MODELS, "wml"),
    required=(PAIRED,),
    optional=(T1W,),
    native=PAIRED,
    lesions=True,
    methods=(
        "Lesions were segmented on the slices of the FLAIR image, with the T1w "
        "image, if available, registered to it by a rigid transform."
    ),
    judged_raw=True,
    figure=Figure(margin_mm=30.0, plane=2),
    costs=Costs(window_seconds=0.05, network_mib=430, crop_mm3=160 * 192 * 150),
)

"""The tasks: a volume in, a :class:`~deepmrseg_bids.segmentation.Segmentation` out.

``run`` does several for one scan and shares what they have in common.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import cache

from deepmrseg_bids.errors import DeepMRSegError, SkippedTask
from deepmrseg_bids.image import Volume
from deepmrseg_bids.inference import Predictor
from deepmrseg_bids.labels import LabelTable
from deepmrseg_bids.segmentation import Segmentation
from deepmrseg_bids.tasks import brain, deepbrain, hippocampus, prepared, wml

__all__ = ["NEEDS", "TASKS", "needed_models", "run", "segment_prepared", "table_of"]

TASKS = ("brain", "deepbrain", "hippocampus", "wml")
NEEDS = {
    "brain": ("brain",),
    "deepbrain": ("brain", "deepbrain"),
    "hippocampus": ("brain", "deepbrain", "hippocampus"),
    "wml": ("brain", "wml"),
}
"""The models that each task uses, in the order in which they run."""

Result = Segmentation | DeepMRSegError


def needed_models(tasks: Iterable[str]) -> list[str]:
    """The models of several tasks together, each once."""
    wanted = {model for task in tasks for model in NEEDS[task]}
    return [task for task in TASKS if task in wanted]


def table_of(task: str, predictor: Predictor) -> LabelTable:
    """The labels that a task writes (its network may know others)."""
    tables = {"brain": brain.TABLE, "hippocampus": hippocampus.TABLE}
    return tables.get(task, predictor.bundle.labels)


def run(
    volume: Volume,
    tasks: Iterable[str],
    predictors: Callable[[str], Predictor],
    *,
    flair: Volume | None = None,
) -> Iterator[tuple[str, Result]]:
    """Run tasks on one scan, one after the other; a task that fails does not stop the rest.

    Args:
        tasks: names from ``TASKS``.
        predictors: gives the predictor of a model (and may keep it for the next scan).
        flair: needed by ``wml``.

    Yields:
        Each task with its segmentation, or with the error that says why there is none.
    """
    wanted = [task for task in TASKS if task in set(tasks)]
    if "wml" in wanted and flair is None:
        wanted.remove("wml")
        yield "wml", SkippedTask("wml needs a FLAIR, and the session has none")
    try:
        found = brain.find_brain(volume, predictors("brain"))
    except DeepMRSegError as error:
        yield from ((task, error) for task in wanted)
        return

    @cache
    def deep() -> Result:
        try:
            return deepbrain.segment(volume, found, predictors("deepbrain"))
        except DeepMRSegError as error:
            return error

    def segment(task: str) -> Result:
        if task == "brain":
            return brain.segment(volume, found, predictors("brain"))
        if task == "wml":
            return wml.segment(volume, found, flair, predictors)
        result = deep()
        if task == "hippocampus" and isinstance(result, Segmentation):
            return hippocampus.segment(volume, result, predictors("hippocampus"))
        return result

    for task in wanted:
        try:
            result = segment(task)
        except DeepMRSegError as error:
            result = error
        if isinstance(result, Segmentation):
            findings = tuple(dict.fromkeys((*found.findings, *result.findings)))
            result = replace(result, brain_mm3=found.volume_mm3, findings=findings)
        yield task, result


def segment_prepared(task: str, volume: Volume, predictor: Predictor) -> Segmentation:
    """Segment an image that is already what the network sees (a crop, brain-extracted).

    A task that is not one of ``TASKS`` is that of a model of one's own.
    """
    if task == "deepbrain":
        return deepbrain.segment_prepared(volume, predictor)
    if task == "wml":
        raise SkippedTask("wml: prepared images are not supported")
    if task != "brain":
        return prepared.segment(volume, predictor)
    found = brain.find_brain(volume, predictor)
    return brain.segment(volume, found, predictor)

"""The tasks: a volume in, a :class:`~deepmrseg_bids.tasks.results.Segmentation` out.

``run`` does several for one scan and shares what they have in common.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from deepmrseg_bids.errors import DeepMRSegError, SegmentationError, SkippedTask
from deepmrseg_bids.findings import Finding
from deepmrseg_bids.imaging.labels import LabelTable
from deepmrseg_bids.imaging.nifti import Volume
from deepmrseg_bids.tasks import brain, custom, deepbrain, hippocampus, wml
from deepmrseg_bids.tasks.results import Segmentation

if TYPE_CHECKING:
    from deepmrseg_bids.inference.predictor import Predictor

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
_DOUBTFUL = {"structure-missing", "structure-unsure"}  # findings that call for another look


def needed_models(tasks: Iterable[str]) -> list[str]:
    """The models of several tasks together, each once."""
    wanted = {model for task in tasks for model in NEEDS[task]}
    return [task for task in TASKS if task in wanted]


def table_of(task: str, predictor: Predictor) -> LabelTable:
    """The labels that a task writes (its network may know others)."""
    tables = {"brain": brain.TABLE, "hippocampus": hippocampus.TABLE}
    return tables.get(task, predictor.bundle.labels)


def run(
    volume: Volume | None,
    tasks: Iterable[str],
    predictors: Callable[[str], Predictor],
    *,
    flair: Volume | None = None,
) -> Iterator[tuple[str, Result]]:
    """Run tasks on one scan, one after the other; a task that fails does not stop the rest.

    Args:
        volume: the T1w; None where there is none: then ``wml`` alone can run.
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
    head = _Head(volume, predictors, flair)
    for task in wanted:
        result: Result
        try:
            result = head.segment(task)
        except DeepMRSegError as error:
            result = error
        yield task, result


@dataclass(eq=False)
class _Head:
    """A scan whose brain was found, and what its tasks share."""

    volume: Volume | None
    predictors: Callable[[str], Predictor]
    flair: Volume | None

    def segment(self, task: str) -> Segmentation:
        """Run one task; DeepMRSegError says why there is no result."""
        if task == "wml":  # it looks for the brain in the FLAIR, and can do without a T1w
            known = None if isinstance(self.found, DeepMRSegError) else self.found
            return wml.segment(self.volume, known, self.flair, self.predictors)
        if isinstance(self.found, DeepMRSegError):
            raise self.found
        assert self.volume is not None
        shared = self.found.findings
        if task == "brain":
            shared += self.turned if self.found.centre is None else ()
            result = brain.segment(self.volume, self.found, self.predictors("brain"))
        else:
            deep, doubts = self.deep
            shared += doubts
            result = deep
            if task == "hippocampus":
                predictor = self.predictors("hippocampus")
                result = hippocampus.segment(self.volume, deep, predictor)
        findings = tuple(dict.fromkeys((*shared, *result.findings)))
        return replace(result, brain_mm3=self.found.volume_mm3, findings=findings)

    @cached_property
    def found(self) -> brain.Brain | DeepMRSegError:
        """The brain of the T1w, or why there is none."""
        if self.volume is None:
            return SkippedTask("the session has no T1w image")
        try:
            return brain.find_brain(self.volume, self.predictors("brain"))
        except DeepMRSegError as error:
            return error

    @property
    def deep(self) -> tuple[Segmentation, tuple[Finding, ...]]:
        """The deep structures, and whether the scan may be turned over."""
        if isinstance(self._deep, DeepMRSegError):
            raise self._deep
        odd = _DOUBTFUL & {finding.code for finding in self._deep.findings}
        return self._deep, self.turned if odd else ()

    @cached_property
    def _deep(self) -> Result:
        assert self.volume is not None and not isinstance(self.found, DeepMRSegError)
        try:
            return deepbrain.segment(self.volume, self.found, self.predictors("deepbrain"))
        except SegmentationError as error:
            doubts = "".join(f"; {finding.message}" for finding in self.turned)
            return SegmentationError(f"{error}{doubts}")
        except DeepMRSegError as error:
            return error

    @cached_property
    def turned(self) -> tuple[Finding, ...]:
        """Whether the scan looks better turned over; asked only where something is odd."""
        assert self.volume is not None
        return brain.check_orientation(self.volume, self.predictors("brain"))


def segment_prepared(
    task: str, volume: Volume, predictor: Predictor, *, flair: Volume | None = None
) -> Segmentation:
    """Segment an image that is already what the network sees (a crop, brain-extracted).

    A task that is not one of ``TASKS`` is that of a model of one's own.

    Args:
        flair: needed by ``wml``: brain-extracted, in the space of ``volume``.
    """
    if task == "deepbrain":
        return deepbrain.segment_prepared(volume, predictor)
    if task == "hippocampus":
        return hippocampus.segment_prepared(volume, predictor)
    if task == "wml":
        return wml.segment_prepared(volume, flair, predictor)
    if task != "brain":
        return custom.segment(volume, predictor)
    found = brain.find_brain(volume, predictor)
    return brain.segment(volume, found, predictor)

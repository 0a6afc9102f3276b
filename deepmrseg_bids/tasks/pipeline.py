"""Several tasks on the images of one session, and what they have in common."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from deepmrseg_bids.errors import DeepMRSegError, SkippedTask
from deepmrseg_bids.imaging.nifti import Volume
from deepmrseg_bids.tasks.lesion_landmarks import Anatomy, is_anatomy
from deepmrseg_bids.tasks.registry import find_task, task_names
from deepmrseg_bids.tasks.results import Segmentation
from deepmrseg_bids.tasks.spec import T1W, TaskSpec

if TYPE_CHECKING:
    from deepmrseg_bids.inference.predictor import Predictor

__all__ = ["Result", "SessionContext", "lost_tasks", "run"]

T = TypeVar("T")
Result = Segmentation | DeepMRSegError


@dataclass(eq=False)
class SessionContext:
    """The images of a session, and what its tasks share.

    Attributes:
        images: by modality.
        predictors: gives the predictor of a model.
        anatomies: label maps on the T1w that tell the places of lesions: of tasks that ran
            before, in this run or an earlier one.
        regions: the table of composite regions of the task that measures some.
    """

    images: Mapping[str, Volume]
    predictors: Callable[[str], Predictor]
    anatomies: list[Anatomy] = field(default_factory=list)
    regions: Path | None = None
    _made: dict[str, Any] = field(default_factory=dict)

    @property
    def t1w(self) -> Volume:
        """The T1w.

        Raises:
            SkippedTask: the session has none.
        """
        if T1W not in self.images:
            raise SkippedTask(f"the session has no {T1W} image")
        return self.images[T1W]

    def remember(self, task: TaskSpec, result: Segmentation) -> None:
        """Keep the labels of a task on the T1w, if they tell the places of lesions."""
        if task.native == T1W and isinstance(result, Segmentation) and is_anatomy(result.table):
            self.anatomies.append(Anatomy(task.name, result.labels, result.table))

    def once(self, what: str, make: Callable[[], T]) -> T:
        """What several tasks need, made when it is first asked for; so is the error it ends in."""
        if what not in self._made:
            try:
                self._made[what] = make()
            except DeepMRSegError as error:
                self._made[what] = error
        made = self._made[what]
        if isinstance(made, DeepMRSegError):
            raise made
        return made  # type: ignore[no-any-return]


def lost_tasks(
    tasks: Iterable[TaskSpec], errors: Mapping[str, DeepMRSegError]
) -> dict[str, DeepMRSegError]:
    """The tasks that images cost which cannot be used, by name, with the reason; no others.

    Args:
        errors: why an image cannot be used, by modality.
    """
    return {
        task.name: errors[modality]
        for task in tasks
        for modality in task.required
        if modality in errors
    }


def run(
    images: Mapping[str, Volume],
    tasks: Iterable[str | TaskSpec],
    predictors: Callable[[str], Predictor],
    *,
    anatomies: Iterable[Anatomy] = (),
) -> Iterator[tuple[str, Result]]:
    """Run tasks on one session, one after the other; a task that fails does not stop the rest.

    Args:
        images: by modality (``T1w``, ``FLAIR``).
        tasks: names, or tasks of one's own; they run in the order of the registry.
        predictors: gives the predictor of a model (and may keep it for the next session).
        anatomies: label maps of the session that an earlier run has made.

    Yields:
        The name of each task with its segmentation, or with the error that says why there is none.

    Raises:
        UsageError: a name is of no task.
    """
    asked = [find_task(task) if isinstance(task, str) else task for task in tasks]
    order = {name: place for place, name in enumerate(task_names())}
    wanted = {
        task.name: task for task in sorted(asked, key=lambda t: order.get(t.name, len(order)))
    }
    regions = next((task.regions for task in wanted.values() if task.regions), None)
    context = SessionContext(images, predictors, list(anatomies), regions)
    # said first: what cannot be done for want of an image beside the T1w
    hopeless = {
        name: task.missing(images) for name, task in wanted.items() if not task.suits(images)
    }
    for name, reason in hopeless.items():
        yield name, SkippedTask(reason)
    for name, task in wanted.items():
        if name in hopeless:
            continue
        result: Result
        try:
            if reason := task.missing(images):
                raise SkippedTask(reason)
            result = task.segment(context)
            context.remember(task, result)
        except DeepMRSegError as error:
            result = error
        yield name, result

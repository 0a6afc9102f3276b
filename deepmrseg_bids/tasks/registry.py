"""Which tasks there are: those of this package, those of installed ones, those of bundles.

An installed package adds tasks under the entry-point group ``deepmrseg_bids.tasks``: the name of
the entry point is the task's, and it points at a :class:`~deepmrseg_bids.tasks.spec.TaskSpec`. The
file of a task is imported when the task is asked for.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Mapping
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

from deepmrseg_bids.errors import UsageError
from deepmrseg_bids.tasks.spec import Costs, TaskSpec

__all__ = [
    "GROUP",
    "costs_of",
    "find_task",
    "known_tasks",
    "needed_models",
    "task_names",
    "task_of_model",
]

GROUP = "deepmrseg_bids.tasks"
_log = logging.getLogger(__name__)
_OWN = ("brain", "deepbrain", "hippocampus", "wholebrain", "wml")
"""In the order in which they run; the file of each has the same name, and in it ``TASK``."""


@cache
def _offered() -> dict[str, EntryPoint]:
    """The tasks of installed packages, by name; none takes the place of one of ours."""
    found = sorted(entry_points(group=GROUP), key=lambda entry: entry.name)
    return {entry.name: entry for entry in found if entry.name not in _OWN}


def task_names() -> tuple[str, ...]:
    """All tasks that need no ``--model``, in the order in which they run."""
    return (*_OWN, *_offered())


@cache
def find_task(name: str) -> TaskSpec:
    """A task by its name.

    Raises:
        UsageError: there is none, or an installed package offers one that cannot be used.
    """
    if name in _OWN:
        task: TaskSpec = import_module(f"deepmrseg_bids.tasks.{name}").TASK
        return task
    if name not in _offered():
        raise UsageError(f"unknown task {name!r}; known are {', '.join(task_names())}")
    entry = _offered()[name]
    try:
        offered = entry.load()
    except Exception as error:  # whatever the package does when it is imported
        raise UsageError(f"the task {name} ({entry.value}) cannot be loaded ({error})") from error
    if not isinstance(offered, TaskSpec) or offered.name != name:
        raise UsageError(f"the task {name} ({entry.value}) is not a TaskSpec of that name")
    return offered


def task_of_model(name: str, folder: Path) -> TaskSpec:
    """The task of a bundle: the one that is known by its name, or one of the bundle's own.

    Raises:
        BundleError: the folder holds no bundle that can be used.
        UsageError: the bundle is of another task.
    """
    from deepmrseg_bids.inference.bundle import ModelBundle

    if name in task_names():
        return find_task(name)
    bundle = ModelBundle.open(folder)
    if bundle.task != name:
        raise UsageError(
            f"--model {name}={folder}: this model is for the task {bundle.task!r}; "
            f"known tasks are {', '.join(task_names())}, or write --model "
            f"{bundle.task}={folder}"
        )
    from deepmrseg_bids.tasks.custom import task_of

    return task_of(bundle)


def known_tasks(
    models: Mapping[str, Path] | None = None, *, asked: Collection[str] = ()
) -> dict[str, TaskSpec]:
    """Every task by its name, in the order in which they run; those of ``models`` last.

    One that an installed package offers and that cannot be loaded is left out, with a warning:
    only whoever asks for it needs it.

    Args:
        models: the bundles of ``--model``, by name.
        asked: names of tasks that must be there.

    Raises:
        BundleError, UsageError: as :func:`task_of_model`; one that is asked for cannot be loaded.
    """
    tasks = {}
    for name in task_names():
        try:
            tasks[name] = find_task(name)
        except UsageError as error:
            if name in asked:
                raise
            _warn_once(str(error))
    helpers = {model for task in tasks.values() for model in task.models} - set(tasks)
    more = {
        name: task_of_model(name, folder)
        for name, folder in (models or {}).items()
        if name not in helpers
    }
    return {**tasks, **{name: more[name] for name in more if name not in tasks}}


@cache
def _warn_once(text: str) -> None:
    _log.warning("%s", text)


def costs_of(model: str) -> Costs:
    """What a model takes: as its task says, or as is usual for a model of one's own."""
    return find_task(model).costs if model in task_names() else Costs(passes=1.2)


def needed_models(tasks: Iterable[TaskSpec]) -> list[str]:
    """The models of several tasks together, each once, in the order in which they run."""
    order = {name: place for place, name in enumerate(task_names())}
    wanted = dict.fromkeys(model for task in tasks for model in task.models)
    return sorted(wanted, key=lambda model: order.get(model, len(order)))

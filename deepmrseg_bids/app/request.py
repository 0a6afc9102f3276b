"""A run as it was asked for: everything that can be wrong is checked before any work."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from deepmrseg_bids.app.sharding import deal, expected_work
from deepmrseg_bids.bids.ownership import check_ownership
from deepmrseg_bids.bids.query import Session, check_output_dir, check_writable, find_sessions
from deepmrseg_bids.config import RunConfig, parse_shard
from deepmrseg_bids.errors import DeepMRSegError, UsageError
from deepmrseg_bids.execution.plugin_file import Plugin, read_plugin
from deepmrseg_bids.files import read_json
from deepmrseg_bids.imaging.grid import Grid
from deepmrseg_bids.imaging.labels import LabelTable
from deepmrseg_bids.imaging.nifti import read_grid
from deepmrseg_bids.imaging.templates import Template, find_templates, output_spaces
from deepmrseg_bids.inference.bundle import ModelBundle, shipped_bundles
from deepmrseg_bids.tasks.regions import with_regions
from deepmrseg_bids.tasks.registry import known_tasks, needed_models
from deepmrseg_bids.tasks.spec import TaskSpec
from deepmrseg_bids.wording import counted

__all__ = ["Request", "check_owner", "validate"]

_log = logging.getLogger("deepmrseg-bids")


@dataclass(frozen=True)
class Request:
    """A run that can start, with all that it needs at hand.

    Attributes:
        config: with the limits of its plugin file.
        bundles: every model of the run, by name.
        templates: of the output spaces.
        sessions: those of this shard.
        scheduler: who is given a job for each session; None where this machine does them.
    """

    config: RunConfig
    bundles: Mapping[str, ModelBundle]
    templates: Sequence[Template] = ()
    sessions: Sequence[Session] = ()
    scheduler: Plugin | None = None

    @cached_property
    def specs(self) -> Mapping[str, TaskSpec]:
        """Every task that is known, by name."""
        known = known_tasks(dict(self.config.models), asked=self.config.tasks)
        return {name: with_regions(task, self.config.regions) for name, task in known.items()}

    @cached_property
    def possible(self) -> list[TaskSpec]:
        """The tasks whose models are there."""
        return [task for task in self.specs.values() if set(task.models) <= set(self.bundles)]

    @property
    def tables(self) -> dict[str, LabelTable]:
        """The labels that each possible task writes, by task."""
        return {
            task.name: task.table or self.bundles[task.models[-1]].labels for task in self.possible
        }

    @cached_property
    def folders(self) -> tuple[tuple[str, Path], ...]:
        """The bundles that are not shipped: those asked for, and those of other packages."""
        offered = {
            name: task.bundle
            for name, task in self.specs.items()
            if task.bundle is not None and name in self.bundles
        }
        return tuple({**offered, **dict(self.config.models)}.items())

    def tasks(self, session: Session) -> tuple[str, ...]:
        """What was asked for, or else all that the session's images and the models allow."""
        if self.config.tasks:
            return self.config.tasks
        return tuple(task.name for task in self.possible if task.suits(session.images))

    def grids(self, images: Mapping[str, Path]) -> dict[str, Grid]:
        """The grids of the images that can be used, by modality; only headers are read."""
        grids = {}
        for modality, path in images.items():
            with suppress(DeepMRSegError):
                grids[modality] = read_grid(path, force_header=self.config.force_header)
        return grids


def validate(config: RunConfig) -> Request:
    """See whether a run can start.

    Raises:
        DeepMRSegError: it cannot; nothing was written.
    """
    config, scheduler = _with_plugin(config)
    bundles = _open_bundles(config)
    if scheduler is None:  # a node may have the GPU that this machine lacks
        _check_device(config)
    spaces = output_spaces(config.output_spaces)
    templates = find_templates(spaces, fetch=not config.dry_run)
    check_output_dir(config.bids_dir, config.out_dir, config.work_dir, create=False)
    check_owner(config)
    if not config.dry_run:
        check_writable(config.out_dir)
    sessions = find_sessions(
        config.bids_dir,
        participant_labels=config.participant_label,
        session_labels=config.session_label,
        filters=_filters(config.bids_filter_file),
        database_dir=config.bids_database_dir,
        keep_database=not config.dry_run,
        validate=not config.skip_bids_validation,
    )
    request = Request(config, bundles, templates, sessions, scheduler)
    _check_regions(request)
    return _shard_of(request) if config.shard else request


def _check_regions(request: Request) -> None:
    """See that a table of regions can be read, and is of use."""
    wanted = request.config.tasks or tuple(task.name for task in request.possible)
    if request.config.regions and not any(request.specs[task].regions for task in wanted):
        named = ", ".join(task.name for task in request.specs.values() if task.regions)
        raise UsageError(f"--regions is of no use: add the task {named}, which measures regions")


def check_owner(config: RunConfig) -> None:
    """See that OUT_DIR is new, empty, or ours and of the same source.

    Raises:
        DatasetError: it is not.
    """
    check_ownership(
        config.bids_dir,
        config.out_dir,
        inside=(config.work_dir, config.bids_database_dir, config.bids_filter_file),
        same_source=config.same_source,
        described=config.level == "participant",
    )


def _with_plugin(config: RunConfig) -> tuple[RunConfig, Plugin | None]:
    """The run within the limits of its plugin file, and its scheduler."""
    if config.use_plugin is None:
        return config, None
    plugin = read_plugin(config.use_plugin)
    plugin.check(work_dir=config.work_dir, device=config.device, precision=config.precision)
    nprocs, mem = plugin.limits(config.nprocs, config.mem)
    return replace(config, nprocs=nprocs, mem=mem), plugin if plugin.is_scheduler else None


def _open_bundles(config: RunConfig) -> dict[str, ModelBundle]:
    """Every model of the run, opened and checked before any work."""
    given, shipped = dict(config.models), shipped_bundles()
    tasks = known_tasks(given, asked=config.tasks)
    bundles = {}
    for model in needed_models(tasks[task] for task in config.tasks or tasks):
        folder = given.get(model) or tasks[model].bundle if model in tasks else None
        folder = folder or shipped.get(model)
        if folder is not None:
            bundle = ModelBundle.open(folder)
            if bundle.task != model:
                raise UsageError(
                    f"--model {model}={bundle.path}: this model is for the task {bundle.task!r}"
                )
            bundles[model] = bundle
    return bundles


def _check_device(config: RunConfig) -> None:
    if config.device not in ("auto", "cpu"):
        from deepmrseg_bids.inference.predictor import resolve_device

        resolve_device(config.device)


def _filters(path: Path | None) -> Mapping[str, Any] | None:
    if path is None:
        return None
    try:
        tree = read_json(path)
    except OSError as error:
        why = error.strerror or str(error)
        raise UsageError(f"--bids-filter-file {path} cannot be read ({why})") from error
    except ValueError as error:
        raise UsageError(f"--bids-filter-file {path}: not a JSON file ({error})") from error
    if not isinstance(tree, dict):
        raise UsageError(f"--bids-filter-file {path}: an object with t1w and flair was expected")
    return tree


def _shard_of(request: Request) -> Request:
    """The same run with the sessions of its shard alone."""
    specs, shard = request.specs, request.config.shard

    def work(session: Session) -> float:
        tasks = [specs[task] for task in request.tasks(session)]
        return expected_work(request.grids(session.images), tasks, request.bundles)

    dealt = deal(request.sessions, parse_shard(shard), work)
    _log.info("shard %s: %d of %s", shard, len(dealt), counted(len(request.sessions), "session"))
    return replace(request, sessions=dealt)

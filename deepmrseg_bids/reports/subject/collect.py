"""From what is in OUT_DIR to the page of one subject."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from deepmrseg_bids import __version__
from deepmrseg_bids.bids import names
from deepmrseg_bids.bids.derivatives import tasks_in
from deepmrseg_bids.bids.tables import read_morph
from deepmrseg_bids.errors import DeepMRSegError
from deepmrseg_bids.files import read_json
from deepmrseg_bids.findings import worst_first
from deepmrseg_bids.imaging.labels import LabelTable
from deepmrseg_bids.reports.subject.page import (
    Alignment,
    SessionResult,
    TaskResult,
    write_subject_report,
)
from deepmrseg_bids.reports.subject.percentiles import read_standing
from deepmrseg_bids.session.job import SessionOutcome, TaskOutcome
from deepmrseg_bids.tasks.spec import T1W, TaskSpec

__all__ = ["subject_page"]

_log = logging.getLogger(__name__)


def subject_page(outcomes: Sequence[SessionOutcome], out_dir: Path, *, command: str) -> Path:
    """Write ``sub-<label>.html`` for the sessions of one subject and return its path."""
    page = out_dir / names.report_path(outcomes[0].subject)
    specs = tasks_in(out_dir)
    results = [_session(outcome, specs, out_dir) for outcome in outcomes]
    models = {task.task: task.model for o in outcomes for task in o.tasks if task.model}
    write_subject_report(page, results, version=__version__, command=command, models=models)
    return page


def _session(
    outcome: SessionOutcome, specs: Mapping[str, TaskSpec], out_dir: Path
) -> SessionResult:
    tasks = tuple(_task(outcome, task, specs[task.task], out_dir) for task in outcome.tasks)
    found = [*outcome.findings, *(one for task in outcome.tasks for one in task.findings)]
    return SessionResult(
        subject=outcome.subject,
        session=outcome.session,
        tasks=tasks,
        findings=worst_first(found),
        notes=(*outcome.notes, *map(_about_space, outcome.spaces)),
        alignment=_alignment(outcome, tasks),
    )


def _about_space(space: TaskOutcome) -> str:
    """A line about the label maps in the space of a template."""
    return f"{space.task}: {space.status}" + (f", {space.reason}" if space.reason else "")


def _task(outcome: SessionOutcome, task: TaskOutcome, spec: TaskSpec, out_dir: Path) -> TaskResult:
    bare = TaskResult(spec, task.status, task.reason, None, None, None, (), task.seconds)
    images = spec.images(outcome.images)
    if not bare.finished or not images:
        return bare
    source = next(iter(images.values()))
    dseg = out_dir / names.native_label_map_path(spec, images)
    morph = out_dir / names.morph_path(source, task.task)
    try:
        table = LabelTable.read(out_dir / names.label_table_path(task.task))
        rows = read_morph(morph)
        text = morph.read_text(encoding="utf-8")
    except (DeepMRSegError, OSError) as error:
        _log.error("sub-%s: %s", outcome.subject, error)
        return replace(bare, reason=str(error))
    session = f"ses-{outcome.session}" if outcome.session else None
    return replace(
        bare,
        image=Path(images[spec.native]),
        dseg=dseg,
        table=table,
        rows=rows,
        peak_mib=task.peak_mib or None,
        standing=read_standing(out_dir, task.task, f"sub-{outcome.subject}", session),
        provenance=_sidecar(dseg),
        tsv=(morph.name, text),
    )


def _alignment(outcome: SessionOutcome, tasks: Sequence[TaskResult]) -> Alignment | None:
    """The T1w on the FLAIR, where a sidecar says that it was brought there."""
    for task in tasks:
        facts = task.provenance.get("Registration")
        if not isinstance(facts, dict) or not isinstance(facts.get("Matrix"), list):
            continue
        t1w = outcome.images.get(T1W)
        if t1w is None or task.image is None or task.image == Path(t1w):
            continue
        quality = facts.get("Quality")
        measures = quality.items() if isinstance(quality, dict) else ()
        known = {key: value for key, value in measures if isinstance(value, int | float)}
        return Alignment(task.image, Path(t1w), facts["Matrix"], known)
    return None


def _sidecar(path: Path) -> Mapping[str, Any]:
    try:
        tree = read_json(path.parent / names.sidecar_path(path).name)
    except (OSError, ValueError):
        return {}
    return tree if isinstance(tree, dict) else {}

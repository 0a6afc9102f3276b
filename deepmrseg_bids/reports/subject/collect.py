"""From what is in OUT_DIR to the page of one subject."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from deepmrseg_bids import __version__
from deepmrseg_bids.bids import names
from deepmrseg_bids.bids.derivatives import tasks_in
from deepmrseg_bids.bids.description import raw_folder, read_description
from deepmrseg_bids.bids.keyed_tables import read_keyed
from deepmrseg_bids.bids.label_tables import label_table_of
from deepmrseg_bids.bids.tables import read_morph
from deepmrseg_bids.errors import DeepMRSegError
from deepmrseg_bids.files import read_json
from deepmrseg_bids.findings import worst_first
from deepmrseg_bids.reports.subject.lesion_changes import lesion_changes
from deepmrseg_bids.reports.subject.page import (
    Alignment,
    SessionResult,
    TaskResult,
    write_subject_report,
)
from deepmrseg_bids.reports.subject.study import Study
from deepmrseg_bids.session.inventory import EDITED
from deepmrseg_bids.session.job import SessionOutcome, TaskOutcome
from deepmrseg_bids.session.lesion_changes import visit_pairs, visits_of
from deepmrseg_bids.tasks.regions import read_composition
from deepmrseg_bids.tasks.spec import T1W, TaskSpec

__all__ = ["subject_page"]

_log = logging.getLogger(__name__)


def subject_page(outcomes: Sequence[SessionOutcome], out_dir: Path, *, command: str) -> Path:
    """Write ``sub-<label>.html`` for the sessions of one subject and return its path."""
    page = out_dir / names.report_path(outcomes[0].subject)
    specs = tasks_in(out_dir)
    visits = visits_of(outcomes, out_dir)
    in_order = sorted(outcomes, key=lambda one: visits.sessions.index(_label(one)))
    study = Study(out_dir)
    name, person = _about(outcomes[0], out_dir)
    results = [
        replace(
            _session(outcome, specs, out_dir, study), dataset=name, person=person(_label(outcome))
        )
        for outcome in in_order
    ]
    compared = lesion_changes(visit_pairs(outcomes, out_dir), out_dir)
    results = [
        replace(
            one,
            lesion_changes=tuple(c for c in compared if f"ses-{c.after}" == f"ses-{one.session}"),
        )
        for one in results
    ]
    models = {task.task: task.model for o in outcomes for task in o.tasks if task.model}
    write_subject_report(
        page,
        results,
        version=__version__,
        command=command,
        models=models,
        visits=visits,
        study=study.facts(
            f"sub-{outcomes[0].subject}",
            [_label(outcome) for outcome in in_order],
            list(dict.fromkeys(task.task for outcome in outcomes for task in outcome.tasks)),
        ),
    )
    return page


def _about(outcome: SessionOutcome, out_dir: Path) -> tuple[str, Callable[[str], str]]:
    """The name of the raw data set, and what it says of the age and sex at a session."""
    raw = raw_folder(out_dir)
    if raw is None:
        return "", lambda _: ""
    name = read_description(raw).get("Name")
    subject = f"sub-{outcome.subject}"
    persons = read_keyed(raw / "participants.tsv", "participant_id", "sub", {subject}).rows
    visits = read_keyed(raw / subject / f"{subject}_sessions.tsv", "session_id", "ses", ()).rows

    def person(session: str) -> str:
        cells = {**persons.get(subject, {}), **visits.get(session, {})}
        known = {title.lower(): cell for title, cell in cells.items() if cell not in ("", "n/a")}
        facts = [f"{word} {known[word]}" for word in ("age", "sex", "gender") if word in known]
        return ", ".join(facts)

    return name if isinstance(name, str) else "", person


def _label(outcome: SessionOutcome) -> str:
    return f"ses-{outcome.session}" if outcome.session else ""


def _session(
    outcome: SessionOutcome, specs: Mapping[str, TaskSpec], out_dir: Path, study: Study
) -> SessionResult:
    tasks = tuple(
        _task(outcome, task, specs[task.task], out_dir, study) for task in _in_order(outcome)
    )
    found = [*outcome.findings, *(one for task in outcome.tasks for one in task.findings)]
    return SessionResult(
        subject=outcome.subject,
        session=outcome.session,
        tasks=tasks,
        findings=worst_first(found),
        notes=(*outcome.notes, *map(_about_space, outcome.spaces)),
        alignment=_alignment(outcome, tasks),
    )


def _in_order(outcome: SessionOutcome) -> list[TaskOutcome]:
    """The tasks of a session, those that the run asks for before the others."""
    return sorted(outcome.tasks, key=lambda task: not task.asked)


def _about_space(space: TaskOutcome) -> str:
    """A line about the label maps in the space of a template."""
    return f"{space.task}: {space.status}" + (f", {space.reason}" if space.reason else "")


def _task(
    outcome: SessionOutcome, task: TaskOutcome, spec: TaskSpec, out_dir: Path, study: Study
) -> TaskResult:
    bare = TaskResult(spec, task.status, task.reason, None, None, None, (), task.seconds)
    images = spec.images(outcome.images)
    if not bare.finished or not images:
        return bare
    source = next(iter(images.values()))
    dseg = out_dir / names.native_label_map_path(spec, images)
    morph = out_dir / names.morph_path(source, task.task)
    try:
        table = label_table_of(out_dir, task.task, dseg)
        rows = read_morph(morph, labels=[(label.index, label.name) for label in table])
        text = morph.read_text(encoding="utf-8")
        composites = out_dir / names.morph_path(source, task.task, desc=names.REGIONS)
        regions = read_morph(composites) if composites.is_file() else []
        stated = _sidecar(composites).get("Regions") if regions else None
        composition = read_composition(stated, [(row.index, row.name) for row in regions])
    except (DeepMRSegError, OSError) as error:
        _log.error("sub-%s: %s", outcome.subject, error)
        return replace(bare, reason=str(error))
    return replace(
        bare,
        image=Path(images[spec.native]),
        dseg=dseg,
        table=table,
        rows=rows,
        peak_mib=task.peak_mib or None,
        standing=study.standing(task.task, f"sub-{outcome.subject}", _label(outcome)),
        provenance=_sidecar(dseg),
        tsv=(morph.name, text),
        edited=EDITED in task.reason,
        regions=regions,
        composition=composition,
        tables=[morph.name, *([composites.name] if regions else [])],
        lesions=out_dir / names.lesions_path(source, task.task) if spec.lesions else None,
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

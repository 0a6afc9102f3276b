"""``group_qc.tsv``: what became of each session, and whether its results look like the others'."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from deepmrseg_bids.bids.names import group_qc_path
from deepmrseg_bids.bids.participants import Key
from deepmrseg_bids.bids.tables import SessionRow, write_table
from deepmrseg_bids.group.columns import QC
from deepmrseg_bids.group.tables import Deviation, Deviations, who
from deepmrseg_bids.group.volumes import TaskVolumes, tags_of
from deepmrseg_bids.metrics.cohort import FEWEST, LIMIT, deviations, flagged, joint_deviations

__all__ = ["joint_of", "write_qc"]

_SEVERITIES = ("error", "warning", "info")
_NAMED = 2  # structures in the reason of a joint deviation
Log = Mapping[tuple[str, str, str], SessionRow]


def joint_of(volumes: Sequence[TaskVolumes]) -> Deviations:
    """How unusual each session is with the volumes of all tasks together."""
    keys = sorted({key for task in volumes for key in task.rows})
    if not keys:
        return {}
    place = {key: number for number, key in enumerate(keys)}
    names, columns = [], []
    for task in volumes:
        where = [place[key] for key in task.rows]
        for name, sizes in zip(task.names, task.values("volume_mm3").T, strict=True):
            column = np.full(len(keys), np.nan)
            column[where] = np.cbrt(sizes)
            names.append(name)
            columns.append(column)
    if len(names) < 2:
        return {}  # one volume is no space
    found = joint_deviations(deviations(np.stack(columns, axis=1)))
    flags = flagged(found.score)
    odd: Deviations = {}
    for number, key in enumerate(keys):
        most = np.argsort(-found.share[number], kind="stable")[:_NAMED]
        listed = ", ".join(names[column] for column in most)
        what = f"all volumes together (most of it: {listed})"
        score = float(found.score[number])
        # a session more like the others than most is not unusual
        flag = flags[number] and score > 0
        odd[key] = [Deviation(what, score, flag)]
    return odd


def write_qc(
    out_dir: Path, volumes: Sequence[TaskVolumes], log: Log, odd: Sequence[Deviations]
) -> tuple[Path, list[tuple[Key, str]]]:
    """Write ``group_qc.tsv``.

    Args:
        volumes: of every task that it is about.
        log: logs/sessions.tsv.
        odd: the deviations of volumes and asymmetries.

    Returns:
        Its path, and the sessions and tasks whose finished table of volumes is gone.
    """
    tasks = {task.task: task for task in volumes}
    joint = joint_of(volumes)
    logged = {key[:2] for key in log if key[2] in tasks}
    keys = sorted({key for task in volumes for key in task.rows} | logged)
    rows, gone = [], []
    for key in keys:
        states = {name: _status(log.get((*key, name)), key in tasks[name].rows) for name in tasks}
        gone += [
            (key, name)
            for name, status in states.items()
            if status == "missing" and key not in tasks[name].broken
        ]
        tags = _findings(out_dir, volumes, log, key)
        rows.append(
            {
                **who(key),
                **{f"{name}_status": status for name, status in states.items()},
                "reasons": _reasons(log, key, tasks),
                **_confidence(volumes, key),
                "severity": next((s for s in _SEVERITIES if f"{s}:" in "".join(tags)), "none"),
                "findings": ",".join(tags) or None,
                **_unusual([one for found in odd for one in found.get(key, [])], joint.get(key)),
            }
        )
    path = out_dir / group_qc_path()
    write_table(path, QC, rows, OutlierLimit=LIMIT, OutlierFewestSessions=FEWEST)
    return path, gone


def _status(row: SessionRow | None, there: bool) -> str | None:
    if row is None:
        return "done" if there else None
    if row.status in ("done", "resumed"):
        return "done" if there else "missing"
    return row.status


def _reasons(log: Log, key: Key, tasks: Mapping[str, TaskVolumes]) -> str | None:
    rows = [log.get((*key, name)) for name in tasks]
    return "; ".join(f"{row.task}: {row.reason}" for row in rows if row and row.reason) or None


def _findings(out_dir: Path, volumes: Sequence[TaskVolumes], log: Log, key: Key) -> list[str]:
    """The tags of all tasks, worst first: from the log, or from sidecars where it is silent."""
    tags: dict[str, None] = {}
    for task in volumes:
        row = log.get((*key, task.task))
        if row is not None:
            tags |= dict.fromkeys(tag for tag in row.findings.split(",") if tag)
        elif key in task.sources:
            tags |= dict.fromkeys(tags_of(out_dir, task.sources[key], task.task))
    order = {severity: number for number, severity in enumerate(_SEVERITIES)}
    return sorted(tags, key=lambda tag: order.get(tag.partition(":")[0], len(order)))


def _confidence(volumes: Sequence[TaskVolumes], key: Key) -> dict[str, object]:
    known = [
        (row.confidence, row.name)
        for task in volumes
        for row in task.rows.get(key, ())
        if row.confidence is not None
    ]
    if not known:
        return {}
    worst, structure = min(known)
    mean = math.fsum(value for value, _ in known) / len(known)
    return {
        "confidence_mean": mean,
        "confidence_worst": worst,
        "confidence_worst_structure": structure,
    }


def _unusual(found: Sequence[Deviation], joint: Sequence[Deviation] | None) -> dict[str, object]:
    """The cells about outliers of one session."""
    together = joint[0] if joint else None
    known = [one for one in found if math.isfinite(one.score)]
    scores = [abs(one.score) for one in known]
    if together is not None and math.isfinite(together.score):
        known.append(together)
        scores.append(max(0.0, together.score))
    told = [one for one in known if one.flagged is not None]
    flagged_ones = sorted((one for one in told if one.flagged), key=lambda one: -abs(one.score))
    reasons = [f"{one.what}: {one.score:+.1f}" for one in flagged_ones]
    return {
        "outlier": bool(flagged_ones) if told else None,
        "outlier_score": max(scores) if scores else None,
        "joint_deviation": together.score if together else None,
        "outlier_reasons": "; ".join(reasons) or None,
    }

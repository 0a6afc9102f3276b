"""``group_qc.tsv``: what became of each session, and whether its results look like the others'."""

from __future__ import annotations

import re
from collections.abc import Hashable, Mapping, Sequence
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from deepmrseg_bids.bids.names import group_qc_path
from deepmrseg_bids.bids.participants import SessionKey
from deepmrseg_bids.bids.ratings import LEVELS
from deepmrseg_bids.bids.tables import SessionRow, write_table
from deepmrseg_bids.findings import CODES
from deepmrseg_bids.group.columns import QC, Columns
from deepmrseg_bids.group.tables import deviating
from deepmrseg_bids.group.volumes import (
    LOST,
    SESSION,
    TaskVolumes,
    all_sessions,
    sessions_of,
    tags_of,
)
from deepmrseg_bids.metrics.cohort import FEWEST, LIMIT, deviations, flagged, joint_deviations
from deepmrseg_bids.session.verdict import verdict

__all__ = ["joint_of", "write_qc"]

_SEVERITIES = ("error", "warning", "info")
_NAMED = 2  # structures in the reason of a joint deviation
_REASONS = 3  # for an outlier, in a sentence
_DONE = ("done", "resumed")


def joint_of(volumes: Sequence[TaskVolumes]) -> pd.DataFrame:
    """How unusual each session is with the volumes of all tasks together.

    Returns:
        A row a session, see :func:`.tables.deviating`; nan if there is only one volume.
    """
    sessions = sessions_of(sorted({key for task in volumes for key in task.sources}))
    who = sessions.to_frame(index=False)
    sizes = pd.concat(
        [task.usable(task.wide("volume_mm3")).reindex(sessions) for task in volumes], axis=1
    )
    if len(sizes.columns) < 2:
        return deviating(who, "", np.nan, None)  # one volume is no space
    joint = joint_deviations(deviations(np.cbrt(sizes)))
    most = np.argsort(-joint.share, axis=1, kind="stable")[:, :_NAMED]
    names = sizes.columns.to_numpy()
    what = [f"all volumes jointly (mainly {', '.join(names[row])})" for row in most]
    # a session more like the others than most is not unusual
    flags = [
        flag and score > 0
        for flag, score in zip(flagged(joint.score), joint.score.tolist(), strict=True)
    ]
    return deviating(who, what, joint.score, pd.Series(flags, dtype=object))


def write_qc(
    out_dir: Path,
    volumes: Sequence[TaskVolumes],
    log: Sequence[SessionRow],
    unusual: Sequence[pd.DataFrame],
    *,
    results: Path | None = None,
    order: pd.MultiIndex | None = None,
) -> tuple[Path, list[tuple[SessionKey, str]]]:
    """Write ``group_qc.tsv``.

    Args:
        volumes: of every task that it is about.
        log: logs/sessions.tsv.
        unusual: the deviations of volumes and asymmetries.
        results: where the sidecars of the sessions are; ``out_dir`` unless given.
        order: of the sessions; by name unless given.

    Returns:
        Its path, and the sessions and tasks whose finished table of volumes is gone.
    """
    tasks = [task.task for task in volumes]
    log = [row for row in log if row.task in tasks]
    sessions = sessions_of(sorted(all_sessions(volumes, log))) if order is None else order
    logged = _logged(log, tasks)
    states = _states(volumes, logged["status"].unstack().reindex(sessions, columns=tasks))
    table = pd.concat(
        [
            states.add_suffix("_status"),
            _reasons(logged["reason"], volumes, states),
            _confidence(volumes),
            _findings(results or out_dir, volumes, logged["findings"].to_dict()),
            _unusual(unusual, joint_of(volumes)),
            _ratings(volumes, sessions),
        ],
        axis=1,
    ).reindex(sessions)
    table["severity"] = table["severity"].fillna("none")
    table[["verdict", "verdict_reason"]] = _verdicts(table, volumes)
    path = out_dir / group_qc_path()
    columns = _with_tasks(tasks)
    if any(task.ratings is not None for task in volumes):
        columns = {**columns, **_RATED}
    write_table(
        path, columns, table.reset_index(), OutlierLimit=LIMIT, OutlierFewestSessions=FEWEST
    )
    missing = np.argwhere((states == "missing").to_numpy())
    gone = [
        (sessions[row], tasks[column])
        for row, column in missing
        if sessions[row] not in volumes[column].broken
    ]
    return path, gone


_RATED: Columns = {
    "rating": {"Description": "Most severe rating of a task: pass, doubtful or fail; n/a if none "
                              "is rated"},
    "excluded": {"Description": "Tasks whose result is rated fail and excluded from statistics, "
                                "separated by commas; no if there are none"},
}  # fmt: skip


def _ratings(volumes: Sequence[TaskVolumes], sessions: pd.MultiIndex) -> pd.DataFrame:
    """What raters say of each session; nothing where no ratings were given."""
    if all(task.ratings is None for task in volumes):
        return pd.DataFrame(index=sessions)
    given = [
        [rating for task in volumes if (rating := (task.ratings or {}).get(key))]
        for key in sessions
    ]
    excluded = [",".join(task.task for task in volumes if key in task.excluded) for key in sessions]
    cells = {
        "rating": [max(of, key=LEVELS.index) if of else None for of in given],
        "excluded": [tasks or "no" for tasks in excluded],
    }
    return pd.DataFrame(cells, index=sessions, dtype=object)


def _verdicts(table: pd.DataFrame, volumes: Sequence[TaskVolumes]) -> list[tuple[str, str]]:
    """The verdict of each session, and its reason."""
    titles = {task.task: task.spec.title for task in volumes}
    between = re.compile(f"; (?=(?:{'|'.join(titles)}): )")
    found = []
    for row in table.to_dict("records"):
        tags = [tag.partition(":") for tag in _text(row["findings"]).split(",") if tag]
        parts = [part.partition(": ") for part in between.split(_text(row["reasons"]))]
        reasons = {task: reason for task, _, reason in parts}
        states = {task: row[f"{task}_status"] for task in titles}
        lost = [task for task, state in states.items() if state in ("failed", "missing")]
        nothing = "done" not in states.values()
        left = [task for task, state in states.items() if nothing and state == "skipped"]
        excluded = _text(row.get("excluded")).split(",")
        one = verdict(
            [(severity, CODES.get(code, code)) for severity, _, code in tags],
            failed=[(titles[task], reasons.get(task, "")) for task in lost],
            skipped=[(titles[task], reasons.get(task, "")) for task in left],
            outlier=None if pd.isna(row["outlier"]) else _first(_text(row["outlier_reasons"])),
            excluded=[titles[task] for task in excluded if task in titles],
        )
        found.append((one.level, one.reason))
    return found


def _first(reasons: str) -> str:
    """The most extreme reasons for an outlier, and how many more there are."""
    parts = reasons.split("; ")
    more = [f"and {len(parts) - _REASONS} more"] if len(parts) > _REASONS else []
    return "; ".join([*parts[:_REASONS], *more])


def _text(cell: Any) -> str:
    return cell if isinstance(cell, str) else ""


def _with_tasks(tasks: Sequence[str]) -> Columns:
    """The columns, with the status of tasks of one's own after those that are always there."""
    more = {f"{task}_status": QC["brain_status"] for task in tasks if f"{task}_status" not in QC}
    columns: dict[str, Mapping[str, str]] = {}
    for column, facts in QC.items():
        columns |= {**more, column: facts} if column == "reasons" else {column: facts}
    return columns


def _logged(log: Sequence[SessionRow], tasks: Sequence[str]) -> pd.DataFrame:
    """What the log says of each session and task (its index), in the order of the tasks."""
    columns = [*SESSION, "task", "status", "reason", "findings"]
    cells = attrgetter(*columns)
    rows = [cells(row) for row in sorted(log, key=lambda row: tasks.index(row.task))]
    table = pd.DataFrame(rows, columns=columns, dtype=object)
    return table.drop_duplicates([*SESSION, "task"], keep="last").set_index([*SESSION, "task"])


def _states(volumes: Sequence[TaskVolumes], statuses: pd.DataFrame) -> pd.DataFrame:
    """The status of each session and task: by the volumes that are there, else by the log."""
    has_volumes, broken = (
        pd.DataFrame(
            {task.task: [key in keys for key in statuses.index] for task, keys in pairs},
            index=statuses.index,
        )
        for pairs in (
            [(task, task.sources.keys()) for task in volumes],
            [(task, task.broken) for task in volumes],
        )
    )
    states = statuses.mask(statuses.isin(_DONE) | broken, "missing")
    return states.mask(has_volumes, "done")


def _reasons(
    reasons: pd.Series[str], volumes: Sequence[TaskVolumes], states: pd.DataFrame
) -> pd.Series[str]:
    """Why tasks failed, were skipped, or have no volumes, in one cell a session."""
    there = {(*key, task.task) for task in volumes for key in task.sources}
    lost = {
        (*key, task.task): task.broken.get(key, LOST)
        for task in volumes
        for key, state in states[task.task].items()
        if state == "missing" and isinstance(key, tuple)
    }
    index = pd.MultiIndex.from_tuples(list(lost), names=reasons.index.names)
    reasons = reasons[(reasons != "") & ~reasons.index.isin(index)]
    reasons = pd.concat([reasons, pd.Series(list(lost.values()), index=index, dtype=object)])
    old = [
        " result of an earlier run;" if key in there and "earlier run" not in reason else ""
        for key, reason in reasons.items()
    ]
    told = reasons.index.get_level_values("task") + ":" + old + " " + reasons
    return told.groupby(SESSION).agg("; ".join).rename("reasons")


def _findings(
    out_dir: Path, volumes: Sequence[TaskVolumes], logged: Mapping[Hashable, str]
) -> pd.DataFrame:
    """The tags of all tasks, worst first: from the log, or from sidecars where it is silent."""
    known: dict[Any, Sequence[str]] = {key: cell.split(",") for key, cell in logged.items()}
    for task in volumes:
        for key, source in task.sources.items():
            if (*key, task.task) not in known:
                known[(*key, task.task)] = tags_of(out_dir, source, task.task)
    tasks = [task.task for task in volumes]
    rank = {severity: number for number, severity in enumerate(_SEVERITIES)}
    rows = [
        (subject, session, rank.get(tag.partition(":")[0], len(rank)), tasks.index(task), tag)
        for (subject, session, task), tags in known.items()
        for tag in tags
        if tag
    ]
    table = pd.DataFrame(rows, columns=[*SESSION, "rank", "task", "tag"])
    table = table.sort_values(["rank", "task"], kind="stable").drop_duplicates([*SESSION, "tag"])
    groups = table.groupby(SESSION)
    worst = groups["rank"].first().map(dict(enumerate(_SEVERITIES)))
    return pd.DataFrame({"severity": worst, "findings": groups["tag"].agg(",".join)})


def _confidence(volumes: Sequence[TaskVolumes]) -> pd.DataFrame:
    """The mean confidence of each session, and its least sure structure."""
    table = pd.concat([task.table[[*SESSION, "name", "confidence"]] for task in volumes])
    table = table.dropna(subset="confidence")
    worst = table.sort_values(["confidence", "name"]).groupby(SESSION).first()
    return pd.DataFrame(
        {
            "confidence_mean": table.groupby(SESSION)["confidence"].mean(),
            "confidence_worst": worst["confidence"],
            "confidence_worst_structure": worst["name"],
        }
    )


def _unusual(single: Sequence[pd.DataFrame], joint: pd.DataFrame) -> pd.DataFrame:
    """The cells about outliers, from the deviations of single values and of all together."""
    together = joint.assign(size=joint["score"].clip(lower=0))
    table = pd.concat([*(values.assign(size=values["score"].abs()) for values in single), together])
    # without a flag there were too few sessions for a score
    told = table[table["size"] < np.inf].dropna(subset="flag")
    outliers = told[told["flag"].astype(bool)].sort_values("size", ascending=False, kind="stable")
    pairs = zip(outliers["what"], outliers["score"], strict=True)
    reasons = outliers.assign(reason=[f"{what}, robust z {score:+.1f}" for what, score in pairs])
    return pd.DataFrame(
        {
            "outlier": told.groupby(SESSION)["flag"].any(),
            "outlier_score": told.groupby(SESSION)["size"].max(),
            "joint_deviation": joint.dropna(subset="flag").set_index(SESSION)["score"],
            "outlier_reasons": reasons.groupby(SESSION)["reason"].agg("; ".join),
        }
    )

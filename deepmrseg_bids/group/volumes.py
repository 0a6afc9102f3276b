"""What OUT_DIR holds of each session: the volumes of each task, and what became of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from operator import attrgetter
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from deepmrseg_bids.bids.names import BidsName, morph_path, source_stem
from deepmrseg_bids.bids.participants import SessionKey
from deepmrseg_bids.bids.provenance import findings_of
from deepmrseg_bids.bids.tables import MorphRow, SessionRow, read_morph, read_sessions
from deepmrseg_bids.errors import DatasetError
from deepmrseg_bids.findings import worst_first
from deepmrseg_bids.tasks.spec import TaskSpec

__all__ = ["SESSION", "TaskVolumes", "read_log", "read_volumes", "sessions_of", "tags_of"]

SESSION = ["participant_id", "session_id"]
"""The columns that say whose a row is; without sessions the second is empty."""
_MEASURED = [field.name for field in fields(MorphRow)]


@dataclass(frozen=True)
class TaskVolumes:
    """The volumes of one task in all sessions that have them.

    Attributes:
        table: one row a session and structure: `SESSION` and the fields of :class:`MorphRow`,
            nan where one is not known; sessions in order, structures as in their files.
        sources: by session, in order, the stem of the image that was segmented, as
            ``sub-01_ses-1``; a session whose table is empty is here alone.
        problems: files that could not be used, one line each.
        broken: the sessions of files that could not be read.
    """

    spec: TaskSpec
    table: pd.DataFrame
    sources: Mapping[SessionKey, str]
    problems: tuple[str, ...] = ()
    broken: frozenset[SessionKey] = frozenset()

    @cached_property
    def sessions(self) -> pd.MultiIndex:
        """The sessions in order, as an index of `SESSION`."""
        return sessions_of(self.sources)

    @property
    def task(self) -> str:
        """The name of the task."""
        return self.spec.name

    @cached_property
    def structures(self) -> dict[int, str]:
        """The name of each index, by rising index; if sessions differ, the last one's."""
        last = self.table.drop_duplicates("index", keep="last").sort_values("index")
        return dict(zip(last["index"].tolist(), last["name"].tolist(), strict=True))

    @cached_property
    def names(self) -> list[str]:
        """The structures by rising index, each once."""
        return list(self.table.sort_values("index", kind="stable")["name"].unique())

    def wide(self, column: str) -> pd.DataFrame:
        """A column of numbers as ``(sessions, names)``; nan where it is not known."""
        values = np.full((len(self.sessions), len(self.names)), np.nan)
        values[self._places] = self.table[column].to_numpy(dtype=np.float64)
        return pd.DataFrame(values, index=self.sessions, columns=self.names)

    def long(self, wide: pd.DataFrame) -> NDArray[np.generic]:
        """What ``(sessions, names)`` says to each row of `table`: the inverse of `wide`."""
        return wide.to_numpy()[self._places]

    @cached_property
    def _places(self) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Where each row of `table` is in ``(sessions, names)``."""
        rows = self.sessions.get_indexer(pd.MultiIndex.from_frame(self.table[SESSION]))
        return rows, pd.Index(self.names).get_indexer(pd.Index(self.table["name"]))

    def brains(self) -> pd.Series[float]:
        """The volume of the brain mask in each session, in mm3, from volumes and percents."""
        volumes, percents = self.wide("volume_mm3"), self.wide("volume_icv_percent")
        brains = 100 * volumes / percents.where(percents > 0)
        known = volumes.where(np.isfinite(brains), -1.0).to_numpy()
        if not known.size:
            return pd.Series(np.nan, index=self.sessions)
        # the largest structure has lost least in rounding
        largest = brains.to_numpy()[np.arange(len(known)), known.argmax(axis=1)]
        return pd.Series(largest, index=self.sessions)


def sessions_of(keys: Iterable[SessionKey]) -> pd.MultiIndex:
    """Sessions as an index of `SESSION`."""
    return pd.MultiIndex.from_frame(pd.DataFrame(list(keys), columns=SESSION, dtype=object))


def read_volumes(out_dir: Path, spec: TaskSpec) -> TaskVolumes:
    """Every ``_seg-<task>_morph.tsv`` of OUT_DIR; one that cannot be used costs itself alone."""
    task = spec.name
    rows: dict[SessionKey, list[MorphRow]] = {}
    sources: dict[SessionKey, str] = {}
    problems = []
    broken = set()
    for path in sorted(_morph_files(out_dir, task)):
        try:
            name = BidsName.parse(path)
            session = name.get("ses")
            key = (f"sub-{name.get('sub')}", f"ses-{session}" if session else "")
        except DatasetError as error:
            problems.append(str(error))
            continue
        try:
            read = read_morph(path)
        except DatasetError as error:
            problems.append(str(error))
            broken.add(key)
            continue
        if key in rows:
            problems.append(f"{path}: not used, the session has another table of {task} volumes")
        else:
            rows[key] = read
            sources[key] = source_stem(str(name.replace(seg=None)))
    order = sorted(rows)
    return TaskVolumes(
        spec,
        _table({key: rows[key] for key in order}),
        {key: sources[key] for key in order},
        tuple(problems),
        frozenset(broken),
    )


def _table(rows: Mapping[SessionKey, Sequence[MorphRow]]) -> pd.DataFrame:
    cells = attrgetter(*_MEASURED)
    records = [(*key, *cells(row)) for key, of_session in rows.items() for row in of_session]
    table = pd.DataFrame(records, columns=[*SESSION, *_MEASURED])
    numbers = {name: "float64" for name in _MEASURED if name not in ("index", "name")}
    return table.astype({**dict.fromkeys(SESSION, object), "name": object, "index": int, **numbers})


def _morph_files(out_dir: Path, task: str) -> Iterator[Path]:
    pattern = f"anat/sub-*_seg-{task}_morph.tsv"
    yield from out_dir.glob(f"sub-*/{pattern}")
    yield from out_dir.glob(f"sub-*/ses-*/{pattern}")


def read_log(out_dir: Path) -> tuple[list[SessionRow], list[str]]:
    """The rows of logs/sessions.tsv, and why it could not be read."""
    path = out_dir / "logs" / "sessions.tsv"
    if not path.exists():
        return [], []
    try:
        return read_sessions(path), []
    except DatasetError as error:
        return [], [str(error)]


def tags_of(out_dir: Path, source: str, task: str) -> list[str]:
    """``severity:code`` of each finding in the sidecar of a session's volumes, worst first."""
    findings = findings_of(out_dir, morph_path(f"{source}_T1w.nii.gz", task))
    return list(dict.fromkeys(finding.tag for finding in worst_first(findings)))

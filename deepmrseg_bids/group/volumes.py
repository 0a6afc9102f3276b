"""What OUT_DIR holds of each session: the volumes of each task, and what became of it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from deepmrseg_bids.bids.derivatives import label_maps_of
from deepmrseg_bids.bids.label_tables import label_table_file
from deepmrseg_bids.bids.names import BidsName, anat_folder, morph_path, sidecar_path, source_stem
from deepmrseg_bids.bids.ownership import is_edited
from deepmrseg_bids.bids.participants import SessionKey
from deepmrseg_bids.bids.provenance import Digests, changed_input, findings_of, flaw_of
from deepmrseg_bids.bids.tables import MorphRow, SessionRow, read_morph, read_sessions
from deepmrseg_bids.bids.visits import natural
from deepmrseg_bids.errors import DatasetError, LabelTableError
from deepmrseg_bids.findings import worst_first
from deepmrseg_bids.imaging.labels import LabelTable
from deepmrseg_bids.tasks.spec import MODALITIES, TaskSpec

__all__ = [
    "LOST",
    "SESSION",
    "TaskVolumes",
    "absences",
    "all_sessions",
    "measured_tasks",
    "read_log",
    "read_volumes",
    "sessions_of",
    "tags_of",
]

SESSION = ["participant_id", "session_id"]
"""The columns that say whose a row is; without sessions the second is empty."""
LOST = "its table of volumes is missing"
_BY_MASK = "brain-mask"
_SHARES = {"intracranial": "volume_icv_percent", _BY_MASK: "volume_brain_percent"}
_MEASURED = [one.name for one in fields(MorphRow)]


@dataclass(frozen=True)
class TaskVolumes:
    """The volumes of one task in all sessions that have them.

    Attributes:
        table: one row a session and structure: `SESSION` and the fields of :class:`MorphRow`,
            nan where one is not known; sessions in order, structures as in their files.
        sources: by session, in order, the stem of the image that was segmented, as
            ``sub-01_ses-1``; a session whose table is empty is here alone.
        problems: files that could not be used, one line each.
        broken: the sessions of files that could not be used, and why.
        edited: the sessions whose label map was changed by somebody after it was measured.
        part: ``regions``, if these are the volumes of composite regions; empty otherwise.
        ratings: by session, what raters say of the result; None where no ratings were given.
    """

    spec: TaskSpec
    table: pd.DataFrame
    sources: Mapping[SessionKey, str]
    problems: tuple[str, ...] = ()
    broken: Mapping[SessionKey, str] = field(default_factory=dict)
    edited: tuple[SessionKey, ...] = ()
    part: str = ""
    ratings: Mapping[SessionKey, str] | None = None

    @cached_property
    def excluded(self) -> frozenset[SessionKey]:
        """The sessions that raters have found to be unusable: statistics leave them out."""
        return frozenset(key for key, rating in (self.ratings or {}).items() if rating == "fail")

    def usable(self, wide: pd.DataFrame) -> pd.DataFrame:
        """What enters statistics of ``(sessions, names)``: nan in excluded sessions."""
        if not self.excluded:
            return wide
        kept = wide.copy()
        excluded = [key in self.excluded for key in self._keys(wide)]
        kept.loc[np.array(excluded)] = np.nan
        return kept

    @staticmethod
    def _keys(table: pd.DataFrame) -> list[SessionKey]:
        who, when = (table.index.get_level_values(level) for level in SESSION)
        return list(zip(who, when, strict=True))

    def rated(self, sessions: pd.DataFrame) -> pd.DataFrame:
        """The rows of a table with the columns ``rating`` and ``excluded``, if there are some."""
        if self.ratings is None:
            return sessions
        keys = list(zip(sessions["participant_id"], sessions["session_id"], strict=True))
        return sessions.assign(
            rating=np.array([self.ratings.get(key) for key in keys], dtype=object),
            excluded=np.where([key in self.excluded for key in keys], "yes", "no"),
        )

    @cached_property
    def sessions(self) -> pd.MultiIndex:
        """The sessions in order, as an index of `SESSION`."""
        return sessions_of(self.sources)

    @property
    def task(self) -> str:
        """The name of the task."""
        return self.spec.name

    @property
    def name(self) -> str:
        """The task, and which part of it: what names the tables of the group level."""
        return f"{self.task}_desc-{self.part}" if self.part else self.task

    @property
    def words(self) -> str:
        """The same in a sentence."""
        return f"{self.task} {self.part}" if self.part else self.task

    @property
    def title(self) -> str:
        """The same for people."""
        return f"{self.spec.title}: {self.part}" if self.part else self.spec.title

    @cached_property
    def structures(self) -> dict[int, str]:
        """The name of each index, by rising index; if sessions differ, the last one's."""
        last = self.table.drop_duplicates("index", keep="last").sort_values("index")
        return dict(zip(last["index"].tolist(), last["name"].tolist(), strict=True))

    @cached_property
    def names(self) -> list[str]:
        """The structures by rising index, each once."""
        return list(self.table.sort_values("index", kind="stable")["name"].unique())

    def in_order(self, keys: Sequence[SessionKey]) -> TaskVolumes:
        """The same with its sessions in the order of `keys`, which has all of them."""
        place = {key: number for number, key in enumerate(keys)}
        who = zip(self.table["participant_id"], self.table["session_id"], strict=True)
        order = np.argsort([place[key] for key in who], kind="stable")
        sources = dict(sorted(self.sources.items(), key=lambda item: place[item[0]]))
        return replace(self, table=self.table.iloc[order].reset_index(drop=True), sources=sources)

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

    def head_sizes(self, wanted: str) -> tuple[str, pd.Series[float] | None]:
        """What volumes are adjusted for, and it in each session, in mm3.

        Args:
            wanted: ``intracranial``, or ``brain-mask``, which takes the place of the other where
                no session has a skull.

        Returns:
            No sizes for the volumes that are the sizes themselves.
        """
        size = wanted if np.isfinite(self.wholes(wanted)).any() else _BY_MASK
        own = size == _BY_MASK and self.spec.brain_mask
        return size, None if own else self.wholes(size)

    def wholes(self, size: str) -> pd.Series[float]:
        """The size of each head, in mm3, from volumes and percents.

        Args:
            size: as of :meth:`head_sizes`.
        """
        volumes, percents = self.wide("volume_mm3"), self.wide(_SHARES[size])
        brains = 100 * volumes / percents.where(percents > 0)
        known = volumes.where(np.isfinite(brains), -1.0).to_numpy()
        if not known.size:
            return pd.Series(np.nan, index=self.sessions)
        # the largest structure has lost least in rounding
        largest = brains.to_numpy()[np.arange(len(known)), known.argmax(axis=1)]
        return pd.Series(largest, index=self.sessions)


def all_sessions(volumes: Iterable[TaskVolumes], log: Iterable[SessionRow]) -> set[SessionKey]:
    """The sessions that have a table of volumes, readable or not, or are in the log."""
    keys = {key for task in volumes for key in (*task.sources, *task.broken)}
    return keys | {(row.participant_id, row.session_id) for row in log}


def absences(
    bids_dir: Path, volumes: TaskVolumes, sessions: Iterable[SessionKey], log: Iterable[SessionRow]
) -> dict[SessionKey, str]:
    """The sessions without volumes of a task, and why they have none."""
    task = volumes.task
    logged = {(row.participant_id, row.session_id): row for row in log if row.task == task}
    reasons = {}
    for key in sessions:
        row = logged.get(key)
        if key in volumes.sources:
            continue
        if key in volumes.broken:
            reasons[key] = volumes.broken[key]
        elif row is not None:
            known = row.reason and f"{row.status}: {row.reason}"
            reasons[key] = known or LOST
        else:
            reasons[key] = volumes.spec.missing(_modalities(bids_dir, key)) or "not requested"
    return reasons


def _modalities(bids_dir: Path, key: SessionKey) -> list[str]:
    """The modalities of which a session has an image."""
    folder = bids_dir.joinpath(*filter(None, key)) / "anat"
    return [one for one in MODALITIES if next(folder.glob(f"*_{one}.nii*"), None) is not None]


def sessions_of(keys: Iterable[SessionKey]) -> pd.MultiIndex:
    """Sessions as an index of `SESSION`."""
    return pd.MultiIndex.from_frame(pd.DataFrame(list(keys), columns=SESSION, dtype=object))


def read_volumes(
    out_dir: Path,
    spec: TaskSpec,
    log: Iterable[SessionRow] = (),
    *,
    bids_dir: Path | None = None,
    part: str = "",
) -> TaskVolumes:
    """Every ``_seg-<task>_morph.tsv`` of OUT_DIR; one that cannot be used costs itself alone.

    Args:
        log: of several tables of a session, that of the image in its row is used; without one,
            the first by name, where ``run-2`` is before ``run-10``.
        bids_dir: where the scans are: volumes of a scan that was replaced since are not used.
        part: ``regions``, for those of composite regions.
    """
    task = spec.name
    rows: dict[SessionKey, list[MorphRow]] = {}
    sources: dict[SessionKey, str] = {}
    problems = []
    broken = {}
    labels = _Labels(out_dir, spec)
    scans = Digests.read(out_dir / "logs" / "inputs.tsv")
    scans = scans.moved_to(bids_dir) if bids_dir else scans
    outputs = Digests.read(out_dir / "logs" / "outputs.tsv", root=out_dir)
    reported = {row.source for row in log if row.task == task and row.source}
    for path in sorted(
        _morph_files(out_dir, task, part), key=lambda path: _preference(path, reported)
    ):
        try:
            name = BidsName.parse(path)
            session = name.get("ses")
            key = (f"sub-{name.get('sub')}", f"ses-{session}" if session else "")
            stem = source_stem(str(name.replace(seg=None, **({"desc": None} if part else {}))))
        except DatasetError as error:
            problems.append(str(error))
            continue
        if path.parent != out_dir / anat_folder(path):
            problems.append(f"{path}: not used, it is not in the folder of its participant")
            continue
        try:
            read = read_morph(path, labels=() if part else labels.of(stem))
            _check_unchanged(out_dir, path, outputs)
        except DatasetError as error:
            problems.append(str(error))
            broken[key] = _damage(path, error)
            continue
        if bids_dir is not None and (other := _other_scan(path, bids_dir, scans)):
            problems.append(f"{path}: not used, {other}")
            broken[key] = other
            continue
        if key in rows:
            problems.append(f"{path}: not used, the session has another table of {task} volumes")
        else:
            rows[key] = read
            sources[key] = stem
    order = sorted(rows, key=lambda key: (key[0], natural(key[1])))
    return TaskVolumes(
        spec,
        _table({key: rows[key] for key in order}),
        {key: sources[key] for key in order},
        tuple(problems),
        broken,
        tuple(key for key in order if _is_edited(out_dir, spec, sources[key], outputs)),
        part,
    )


def _preference(path: Path, reported: Collection[str]) -> tuple[Any, ...]:
    """A key that sorts the tables of a session: that which the log is about first."""
    stem = path.name.rpartition("_seg-")[0]
    return str(path.parent), stem not in reported, natural(path.name)


def _is_edited(out_dir: Path, spec: TaskSpec, stem: str, outputs: Digests) -> bool:
    """Whether a label map of a session is not the one that was measured."""
    maps = (path.relative_to(out_dir) for path in label_maps_of(out_dir, spec, stem))
    return any(is_edited(out_dir, path, outputs) for path in maps)


def _check_unchanged(out_dir: Path, path: Path, outputs: Digests) -> None:
    """See that a table is what its sidecar says that was written."""
    flaw = flaw_of(out_dir, path.relative_to(out_dir), outputs)
    if flaw.startswith("damaged"):
        raise DatasetError(f"{path}: {flaw}; run the session again")


def _damage(path: Path, error: DatasetError) -> str:
    """What is wrong with a table, without its place."""
    reason = str(error).removeprefix(str(path)).lstrip(":, ")
    told = reason if reason.startswith("damaged") else f"damaged: {reason}"
    return f"its table of volumes is {told}"


def _other_scan(path: Path, bids_dir: Path, scans: Digests) -> str:
    """What to say of a table whose scan is not in its place any more; empty if it is."""
    flaw = changed_input(path.parent / sidecar_path(path.name), bids_dir, scans, remembered=True)
    return f"{flaw.removeprefix('damaged: ')}; run the session again" if flaw else ""


@dataclass(frozen=True)
class _Labels:
    """The labels of label maps: a table that many of them share is read once."""

    out_dir: Path
    spec: TaskSpec
    _known: dict[Path, list[tuple[int, str]]] = field(default_factory=dict)

    def of(self, stem: str) -> list[tuple[int, str]]:
        """Those of a session; nothing where no table says what they are."""
        label_map = next(label_maps_of(self.out_dir, self.spec, stem), None)
        path = label_table_file(self.out_dir, self.spec.name, label_map)
        if path not in self._known:
            try:
                self._known[path] = [(one.index, one.name) for one in LabelTable.read(path)]
            except LabelTableError:
                self._known[path] = []
        return self._known[path]


def _table(rows: Mapping[SessionKey, Sequence[MorphRow]]) -> pd.DataFrame:
    every = [row for of_session in rows.values() for row in of_session]
    keys = [key for key, of_session in rows.items() for _ in of_session]
    whose = {title: [key[place] for key in keys] for place, title in enumerate(SESSION)}
    measured = {name: [getattr(row, name) for row in every] for name in _MEASURED}
    table = pd.DataFrame(whose | measured)
    numbers = {name: "float64" for name in _MEASURED if name not in ("index", "name")}
    return table.astype({**dict.fromkeys(SESSION, object), "name": object, "index": int, **numbers})


def _morph_files(out_dir: Path, task: str, part: str = "") -> Iterator[Path]:
    which = f"{task}_desc-{part}" if part else task
    pattern = f"anat/sub-*_seg-{which}_morph.tsv"
    yield from out_dir.glob(f"sub-*/{pattern}")
    yield from out_dir.glob(f"sub-*/ses-*/{pattern}")


def measured_tasks(out_dir: Path) -> set[str]:
    """The tasks of which some session has a table of volumes."""
    found = set()
    for path in _morph_files(out_dir, "*"):
        with suppress(DatasetError):
            found.add(BidsName.parse(path).get("seg") or "")
    return found


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

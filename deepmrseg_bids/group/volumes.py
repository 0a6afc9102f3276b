"""What OUT_DIR holds of each session: the volumes of each task, and what became of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deepmrseg_bids.bids.names import BidsName, morph_path, source_stem
from deepmrseg_bids.bids.participants import Key
from deepmrseg_bids.bids.tables import MorphRow, SessionRow, read_morph, read_sessions
from deepmrseg_bids.errors import DatasetError
from deepmrseg_bids.findings import worst_first
from deepmrseg_bids.session.resume import findings_of

__all__ = ["TaskVolumes", "read_log", "read_volumes", "tags_of"]


@dataclass(frozen=True)
class TaskVolumes:
    """The volumes of one task in all sessions that have them.

    Attributes:
        rows: by session, in order.
        sources: by session, the stem of the image that was segmented, as ``sub-01_ses-1``.
        structures: index and name, by rising index.
        problems: files that could not be used, one line each.
        broken: the sessions of files that could not be read.
    """

    task: str
    rows: Mapping[Key, Sequence[MorphRow]]
    sources: Mapping[Key, str]
    structures: tuple[tuple[int, str], ...]
    problems: tuple[str, ...] = ()
    broken: frozenset[Key] = frozenset()

    @property
    def names(self) -> list[str]:
        """The structures by rising index, each once."""
        return list(dict.fromkeys(name for _, name in self.structures))

    def values(self, column: str) -> NDArray[np.float64]:
        """A column of :class:`MorphRow` as ``(sessions, names)``; nan where it is not known."""
        place = {name: number for number, name in enumerate(self.names)}
        found = np.full((len(self.rows), len(place)), np.nan)
        for number, rows in enumerate(self.rows.values()):
            for row in rows:
                value = getattr(row, column)
                found[number, place[row.name]] = np.nan if value is None else value
        return found

    def brains(self) -> NDArray[np.float64]:
        """The volume of the brain mask in each session, in mm3, from volumes and percents."""
        volumes, percents = self.values("volume_mm3"), self.values("volume_icv_percent")
        # the largest structure has lost least in rounding
        with np.errstate(invalid="ignore", divide="ignore"):
            brains = 100 * volumes / np.where(percents > 0, percents, np.nan)
        known = np.where(np.isfinite(brains), volumes, -1.0)
        if not known.size:
            return np.full(len(self.rows), np.nan)
        largest = np.argmax(known, axis=1)
        return np.asarray(brains[np.arange(len(brains)), largest])


def read_volumes(out_dir: Path, task: str) -> TaskVolumes:
    """Every ``_seg-<task>_morph.tsv`` of OUT_DIR; one that cannot be used costs itself alone."""
    rows: dict[Key, list[MorphRow]] = {}
    sources: dict[Key, str] = {}
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
            found = read_morph(path)
        except DatasetError as error:
            problems.append(str(error))
            broken.add(key)
            continue
        if key in rows:
            problems.append(f"{path}: left out, the session has another table of {task} volumes")
        else:
            rows[key] = found
            sources[key] = source_stem(str(name.replace(seg=None)))
    structures: dict[int, str] = {}
    for found in rows.values():
        structures.update({row.index: row.name for row in found})
    order = sorted(rows)
    return TaskVolumes(
        task,
        {key: rows[key] for key in order},
        {key: sources[key] for key in order},
        tuple(sorted(structures.items())),
        tuple(problems),
        frozenset(broken),
    )


def _morph_files(out_dir: Path, task: str) -> Iterator[Path]:
    pattern = f"anat/sub-*_seg-{task}_morph.tsv"
    yield from out_dir.glob(f"sub-*/{pattern}")
    yield from out_dir.glob(f"sub-*/ses-*/{pattern}")


def read_log(out_dir: Path) -> tuple[dict[tuple[str, str, str], SessionRow], list[str]]:
    """logs/sessions.tsv by participant_id, session_id and task; and why it could not be read."""
    path = out_dir / "logs" / "sessions.tsv"
    if not path.exists():
        return {}, []
    try:
        rows = read_sessions(path)
    except DatasetError as error:
        return {}, [str(error)]
    return {(row.participant_id, row.session_id, row.task): row for row in rows}, []


def tags_of(out_dir: Path, source: str, task: str) -> list[str]:
    """``severity:code`` of each finding in the sidecar of a session's volumes, worst first."""
    findings = findings_of(out_dir, morph_path(f"{source}_T1w.nii.gz", task))
    return list(dict.fromkeys(finding.tag for finding in worst_first(findings)))

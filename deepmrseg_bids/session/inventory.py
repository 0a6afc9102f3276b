"""What OUT_DIR holds of each session, whatever a run asks for: told from names and sidecars.

The sidecars of a task name the images that it was made from, and with them all its files. So
results are found without looking at BIDS_DIR, and what is wrong with them is told in one place.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

from deepmrseg_bids.bids import names
from deepmrseg_bids.bids.derivatives import tasks_in
from deepmrseg_bids.bids.description import RAW
from deepmrseg_bids.bids.ownership import is_edited
from deepmrseg_bids.bids.provenance import (
    Digests,
    changed_input,
    findings_of,
    flaw_of,
    inputs_of,
    is_unfinished,
    made_by_us,
    model_of,
)
from deepmrseg_bids.bids.tables import SessionRow, read_sessions
from deepmrseg_bids.errors import DatasetError
from deepmrseg_bids.session.job import TaskOutcome
from deepmrseg_bids.session.publish import files_of
from deepmrseg_bids.tasks.spec import MODALITIES, TaskSpec

__all__ = ["EDITED", "LOST", "Inventory", "Recorded", "read_outputs"]

EDITED = "the label map was changed after it was written; the volumes are those of the original"
_DONE = ("done", "resumed")
LOST = "lost: "
"""How the reason begins where a result is not there any more."""
_GONE = f"{LOST}logs/sessions.tsv lists it as done, but its files are missing"


def read_outputs(out_dir: Path) -> Digests:
    """The SHA-256 of files that were written into OUT_DIR, as far as they are remembered."""
    return Digests.read(out_dir / "logs" / "outputs.tsv", root=out_dir)


@dataclass(frozen=True)
class Recorded:
    """The result of one task of one session, as it is in OUT_DIR.

    Attributes:
        images: from which it was made, by modality; they need not be there any more.
        files: that certify it, relative to OUT_DIR, without sidecars.
        flaw: what is lost or damaged; empty if it is whole.
        edited: its label map was changed by somebody.
    """

    spec: TaskSpec
    images: Mapping[str, Path] = field(default_factory=dict)
    files: Sequence[PurePosixPath] = ()
    flaw: str = ""
    edited: bool = False

    @property
    def whole(self) -> bool:
        """Whether it can be used."""
        return not self.flaw

    def outcome(self, out_dir: Path, reason: str = "", *, asked: bool = True) -> TaskOutcome:
        """What to report: resumed with a reason, or failed with what is wrong.

        Args:
            reason: why it was not made again.
            asked: the run asks for it.
        """
        if self.flaw:
            return TaskOutcome(self.spec.name, "failed", self.flaw, asked=asked)
        reasons = [text for text in (reason, EDITED if self.edited else "") if text]
        files = [str(name) for file in self.files for name in (file, names.sidecar_path(file))]
        return TaskOutcome(
            self.spec.name,
            "resumed",
            "; ".join(reasons),
            files=tuple(files),
            findings=findings_of(out_dir, self.files[0]),
            model=model_of(out_dir, self.files[0], self.spec.models[-1]),
            asked=asked,
        )


@dataclass(frozen=True)
class Inventory:
    """The results in OUT_DIR.

    Attributes:
        bids_dir: the raw data set, for the places of the images.
        specs: every task that the run or OUT_DIR knows.
        outputs: the SHA-256 of the files; remembers what it had to read.
        inputs: the same of the scans.
    """

    out_dir: Path
    bids_dir: Path
    specs: Mapping[str, TaskSpec]
    outputs: Digests
    inputs: Digests

    @classmethod
    def of(cls, out_dir: Path, bids_dir: Path, specs: Mapping[str, TaskSpec]) -> Inventory:
        """The results in OUT_DIR, of the tasks that a run knows and of those known there."""
        inputs = Digests.read(out_dir / "logs" / "inputs.tsv")
        specs = {**tasks_in(out_dir), **specs}
        return cls(out_dir, bids_dir, specs, read_outputs(out_dir), inputs)

    @cached_property
    def log(self) -> Mapping[tuple[str, str | None], Mapping[str, SessionRow]]:
        """The rows of ``logs/sessions.tsv``, by subject and session, and by task."""
        try:
            rows = read_sessions(self.out_dir / "logs" / "sessions.tsv")
        except DatasetError:
            return {}
        found: dict[tuple[str, str | None], dict[str, SessionRow]] = {}
        for row in rows:
            subject = names.strip_prefix(row.participant_id, "sub")
            session = names.strip_prefix(row.session_id, "ses") or None
            found.setdefault((subject, session), {})[row.task] = row
        return found

    def subjects(self) -> list[str]:
        """Every subject that has a folder in OUT_DIR or a row in the log."""
        folders = {name.removeprefix("sub-") for name in _folders(self.out_dir, "sub-")}
        return sorted(folders | {subject for subject, _ in self.log})

    def sessions(self, subject: str) -> list[str | None]:
        """The sessions of a subject that have a folder in OUT_DIR or a row in the log."""
        folder = self.out_dir / f"sub-{subject}"
        found: set[str | None] = set(self._logged.get(subject, ()))
        found |= {name.removeprefix("ses-") for name in _folders(folder, "ses-")}
        if (folder / "anat").is_dir():
            found.add(None)
        return sorted(found, key=lambda label: label or "")

    @cached_property
    def _logged(self) -> Mapping[str, Sequence[str | None]]:
        """The sessions in the log, by subject."""
        found: dict[str, list[str | None]] = {}
        for subject, session in self.log:
            found.setdefault(subject, []).append(session)
        return found

    def tasks(self, subject: str, session: str | None) -> list[str]:
        """The tasks of which a session has files in OUT_DIR, or a row that says done."""
        there = _listed(self.out_dir / _anat(subject, session))
        rows = self.log.get((subject, session), {})
        logged = {task for task, row in rows.items() if _was_done(row)}
        return [name for name, kinds in self._kinds.items()
                if name in logged or any(_belongs(file, kinds) for file in there)]  # fmt: skip

    @cached_property
    def _kinds(self) -> dict[str, tuple[str, ...]]:
        """What the names of the files of each task contain."""
        return {
            name: (f"_{names.entities_text(spec.label_map)}.", f"_seg-{name}_")
            for name, spec in self.specs.items()
        }

    def find(
        self,
        subject: str,
        session: str | None,
        task: str,
        images: Mapping[str, Path] | None = None,
    ) -> Recorded | None:
        """The result of a task; None if nothing says that there ever was one.

        Args:
            images: of the session now: among several results, that of these is preferred.
        """
        spec, folder = self.specs[task], _anat(subject, session)
        there = [file for file in _listed(self.out_dir / folder)
                 if _belongs(file, self._kinds[task])]  # fmt: skip
        posteriors = any("_probseg." in file for file in there)
        recorded = [
            self._recorded(spec, found, probabilities=posteriors)
            for found in self._images(folder, there)
            if spec.images(found)
        ]
        recorded.sort(key=lambda one: one.images != spec.images(images or {}))
        if recorded:
            return recorded[0]
        for file in there:
            flaw = flaw_of(self.out_dir, folder / file, self.outputs)
            if not file.endswith(".json") and flaw.startswith("damaged"):
                return Recorded(spec, flaw=flaw)
        return self._without_sidecar(spec, subject, session, there)

    def of_its_scan(self, found: Recorded, *, remembered: bool = False) -> Recorded:
        """The same result, damaged if a scan is not the one that it was made from.

        Args:
            remembered: see :func:`changed_input`.
        """
        if not found.whole:
            return found
        sidecar = self.out_dir / names.sidecar_path(found.files[0])
        flaw = changed_input(sidecar, self.bids_dir, self.inputs, remembered=remembered)
        return replace(found, flaw=f"{flaw}; run the session again" if flaw else "")

    def _images(self, folder: PurePosixPath, there: Sequence[str]) -> Iterator[dict[str, Path]]:
        """The images that the sidecars of a task name, each set of them once.

        Those of another session are none of this one's: its files were put here by somebody.
        """
        here = self.bids_dir / folder
        seen = []
        for file in there:
            path = self.out_dir / folder / file
            if file.endswith(".json") and made_by_us(path) and not is_unfinished(path):
                images = self._named(inputs_of(path))
                if all(image.parent == here for image in images.values()) and images not in seen:
                    seen.append(images)
                    yield images

    def _named(self, inputs: Mapping[str, object]) -> dict[str, Path]:
        prefix = f"bids:{RAW}:"
        paths = [self.bids_dir / unquote(uri.removeprefix(prefix))
                 for uri in inputs if uri.startswith(prefix)]  # fmt: skip
        return {modality: path for modality in MODALITIES for path in paths
                if path.name.partition(".")[0].endswith(f"_{modality}")}  # fmt: skip

    def _recorded(
        self, spec: TaskSpec, images: Mapping[str, Path], *, probabilities: bool
    ) -> Recorded:
        files = files_of(spec, images, self.out_dir, probabilities=probabilities)
        used = spec.images(images)
        edited = False
        for file in files:
            flaw = flaw_of(self.out_dir, file, self.outputs)
            if flaw and is_edited(self.out_dir, file, self.outputs):
                edited = True
            elif flaw:
                return Recorded(spec, used, files, flaw)
        return Recorded(spec, used, files, edited=edited)

    def _without_sidecar(
        self, spec: TaskSpec, subject: str, session: str | None, there: Sequence[str]
    ) -> Recorded | None:
        """A result whose sidecars are gone: the log, or files that we wrote, tell that it was."""
        row = self.log.get((subject, session), {}).get(spec.name)
        if row is not None and _was_done(row):
            if not there:
                return Recorded(spec, flaw=_GONE)
            left = ", ".join(there)
            return Recorded(spec, flaw=f"lost: its sidecars are missing or damaged (left: {left})")
        return None


def _anat(subject: str, session: str | None) -> PurePosixPath:
    folder = PurePosixPath(f"sub-{subject}")
    return (folder / f"ses-{session}" if session else folder) / "anat"


def _was_done(row: SessionRow) -> bool:
    """Whether a row says that there was a result once."""
    return row.status in _DONE or row.reason.startswith(LOST)


def _belongs(file: str, kinds: Sequence[str]) -> bool:
    """Whether a file of an ``anat`` folder is of a task, by what its name contains."""
    return any(kind in file for kind in kinds)


def _folders(folder: Path, prefix: str) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            return [one.name for one in entries if one.name.startswith(prefix) and one.is_dir()]
    except OSError:
        return []


def _listed(folder: Path) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return []

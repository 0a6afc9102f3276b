"""What is asked of a session, and what became of it: how processes talk about the work."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from deepmrseg_bids.bids.provenance import FileDigest
from deepmrseg_bids.findings import Finding
from deepmrseg_bids.inference.precision import Precision
from deepmrseg_bids.session.template_spaces import SpaceJob
from deepmrseg_bids.tasks.brain import TASK as BRAIN
from deepmrseg_bids.tasks.regions import with_regions
from deepmrseg_bids.tasks.registry import known_tasks
from deepmrseg_bids.tasks.spec import T1W, TaskSpec

__all__ = ["SessionJob", "SessionOutcome", "TaskOutcome", "outcome_from_json", "read_outcome"]


@dataclass(frozen=True)
class TaskOutcome:
    """What became of one task.

    Attributes:
        status: done, resumed (by an earlier run), skipped or failed.
        reason: why it is skipped or failed; of a resumed one, why it was not made again where
            its files alone do not say so.
        files: written, relative to OUT_DIR.
        findings: about the input and the result, as in its sidecars.
        asked: False: the run does not ask for it, but it is in OUT_DIR.
    """

    task: str
    status: str
    reason: str = ""
    seconds: float = 0.0
    peak_mib: float = 0.0
    files: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()
    model: str = ""
    asked: bool = True


@dataclass(frozen=True)
class SessionJob:
    """A session and how to segment it; all a worker process needs to know.

    Attributes:
        subject, session: labels without prefix; session None where there is none.
        bids_dir: the raw data set, for BIDS URIs.
        images: the image of each modality.
        models: bundles that are not the shipped ones, as (task, folder).
        regions: the table of composite regions, in the place of that of the task.
        precision: what ``auto`` means is decided by whoever makes the job.
        force_header: read images without sform and qform too.
        memory_gb: what the session is expected to take.
        notes: what was decided while the session was looked up.
        finished: tasks of which it is known what became of them, most often that an earlier
            run did them; ``tasks`` holds the others. Those that the run does not ask for are
            among them, if they are in OUT_DIR.
        recorded: images that results in OUT_DIR were made from, if they are not in ``images``.
        earlier: of ``tasks``, those of which OUT_DIR holds a result of other inputs or models.
        missing: why the session lacks an image, by modality.
        spaces: the output spaces in which something is to be made.
        finished_spaces: those in which an earlier run has made everything.
        force: use nothing that an earlier run has made.
    """

    subject: str
    session: str | None
    bids_dir: Path
    images: Mapping[str, Path]
    tasks: tuple[str, ...]
    models: tuple[tuple[str, Path], ...] = ()
    device: str = "auto"
    precision: Precision = "float32"
    flips: bool = False
    threads: int = 1
    probabilities: bool = False
    regions: Path | None = None
    force_header: bool = False
    memory_gb: float = 2.0
    notes: tuple[str, ...] = ()
    finished: tuple[TaskOutcome, ...] = ()
    recorded: Mapping[str, Path] = field(default_factory=dict)
    earlier: tuple[str, ...] = ()
    missing: Mapping[str, str] = field(default_factory=dict)
    spaces: tuple[SpaceJob, ...] = ()
    finished_spaces: tuple[TaskOutcome, ...] = ()
    force: bool = False

    @property
    def busy(self) -> bool:
        """Whether there is anything left to do."""
        return bool(self.tasks or self.spaces)

    @property
    def runs(self) -> tuple[str, ...]:
        """The tasks that must run: those to write, and what output spaces are made from."""
        carried = [task for space in self.spaces for task in space.tasks]
        brain = [BRAIN.name] if self.spaces else []  # what the registration looks at
        return tuple(dict.fromkeys((*self.tasks, *brain, *carried)))

    @property
    def complete(self) -> bool:
        """Whether earlier runs have done all that is asked for."""
        asked = [task.status for task in self.finished if task.asked]
        return not self.busy and set(asked) == {"resumed"}

    @property
    def t1w(self) -> Path | None:
        """The T1w; None where there is none."""
        return self.images.get(T1W)

    @property
    def name(self) -> str:
        """``sub-01_ses-2``, or ``sub-01``."""
        return f"sub-{self.subject}" + (f"_ses-{self.session}" if self.session else "")

    def spec(self, task: str) -> TaskSpec:
        """What a task of this session is."""
        return _tasks_of(self.models, self.regions)[task]

    def lacking(self, task: str) -> str:
        """Why a task cannot be done with the images of the session; empty if it can.

        Its cause is added where it is known: a filter, a name, a missing folder.
        """
        spec = self.spec(task)
        reason = spec.missing(self.images)
        needed = spec.required if self.images else (T1W,)  # of nothing at all, the T1w is told
        cause = next((self.missing[one] for one in needed
                      if one not in self.images and one in self.missing), "")  # fmt: skip
        return f"{reason}: {cause}" if reason and cause else reason

    def inputs(self, task: str) -> tuple[Path, ...]:
        """The images that a task is made from, the one that its tables are named after first.

        Empty where the one that it cannot do without is not there.
        """
        return tuple(self.spec(task).images(self.images).values())


@lru_cache(maxsize=8)
def _tasks_of(models: tuple[tuple[str, Path], ...], regions: Path | None) -> Mapping[str, TaskSpec]:
    return {name: with_regions(task, regions) for name, task in known_tasks(dict(models)).items()}


@dataclass(frozen=True)
class SessionOutcome:
    """What became of one session.

    Attributes:
        images: those that were used, by modality.
        findings: about the T1w.
        inputs: the SHA-256 of each image that was read.
        spaces: what became of each output space; its ``task`` is the title of the space.
    """

    subject: str
    session: str | None
    images: Mapping[str, str]
    tasks: tuple[TaskOutcome, ...]
    findings: tuple[Finding, ...] = ()
    notes: tuple[str, ...] = ()
    inputs: tuple[FileDigest, ...] = ()
    spaces: tuple[TaskOutcome, ...] = ()

    @property
    def name(self) -> str:
        """``sub-01_ses-2``, or ``sub-01``."""
        return f"sub-{self.subject}" + (f"_ses-{self.session}" if self.session else "")

    @property
    def failed(self) -> bool:
        """Whether any task or output space failed."""
        return any(task.status == "failed" for task in (*self.tasks, *self.spaces))

    def to_json(self) -> str:
        """The same as text."""
        return json.dumps(dataclasses.asdict(self))


def outcome_from_json(text: str) -> SessionOutcome:
    """The inverse of :meth:`SessionOutcome.to_json`."""
    tree = json.loads(text)
    tree.setdefault("spaces", ())
    for entry in (tree, *tree["tasks"], *tree["spaces"]):
        for key in ("notes", "files"):
            if key in entry:
                entry[key] = tuple(entry[key])
        entry["findings"] = tuple(Finding(**one) for one in entry.get("findings", ()))
    for key in ("tasks", "spaces"):
        tree[key] = tuple(TaskOutcome(**task) for task in tree[key])
    tree["inputs"] = tuple(FileDigest(*digest) for digest in tree.get("inputs", ()))
    return SessionOutcome(**tree)


def read_outcome(record: Path) -> SessionOutcome | None:
    """What the process of a session wrote down at its end; None if it did not come to it."""
    try:
        return outcome_from_json(record.read_text(encoding="utf-8"))
    except (OSError, ValueError, KeyError, TypeError):
        return None

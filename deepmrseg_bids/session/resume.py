"""What earlier runs have finished of a session, told from the outputs alone."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from deepmrseg_bids.bids import names
from deepmrseg_bids.bids.ownership import is_edited
from deepmrseg_bids.bids.provenance import (
    Digests,
    Provenance,
    findings_of,
    flaw_of,
    same_provenance,
)
from deepmrseg_bids.inference.bundle import ModelBundle
from deepmrseg_bids.session.inventory import EDITED
from deepmrseg_bids.session.job import SessionJob, TaskOutcome
from deepmrseg_bids.session.publish import provenance_of, task_files
from deepmrseg_bids.session.template_spaces import SpaceJob, left_to_make
from deepmrseg_bids.tasks.brain import TASK as BRAIN

__all__ = ["FinishedWork"]


@dataclass(frozen=True)
class FinishedWork:
    """What is in OUT_DIR already, as these models would make it.

    Attributes:
        bundles: the models of the run, by name.
        digests: SHA-256 of the inputs; remembers what it had to read.
        outputs: the same of the files in OUT_DIR; None: that a file is there is enough.
    """

    out_dir: Path
    bundles: Mapping[str, ModelBundle]
    digests: Digests
    outputs: Digests | None = None

    def tasks(self, job: SessionJob) -> tuple[TaskOutcome, ...]:
        """The tasks of a session whose files are what this job would make."""
        files_of = {
            task: task_files(job, task, self.out_dir) for task in job.tasks if job.inputs(task)
        }
        begun = [
            task
            for task, files in files_of.items()
            if os.path.isfile(os.path.join(self.out_dir, names.sidecar_path(files[0])))
        ]
        found = []
        for task, made in self._expected(job, begun).items():
            files = files_of[task]
            reason = self._reason(files, made)
            if reason is not None:
                model = self.bundles[job.spec(task).models[-1]].label
                found.append(_resumed(task, files, self.out_dir, model, reason))
        return tuple(found)

    def _reason(self, files: Sequence[PurePosixPath], made: Provenance) -> str | None:
        """What to say of files that are as they would be made; None if they are not."""
        if same_provenance(self.out_dir, files, made, self.outputs):
            return ""
        if self.outputs is None or not same_provenance(self.out_dir, files, made):
            return None
        for file in files:
            flaw = flaw_of(self.out_dir, file, self.outputs)
            if flaw and not is_edited(self.out_dir, file, self.outputs):
                return None
        return EDITED

    def spaces(self, job: SessionJob) -> tuple[tuple[SpaceJob, ...], tuple[TaskOutcome, ...]]:
        """The output spaces in which something is left to make, and those in which nothing is.

        Args:
            job: with all tasks that were asked for.
        """
        left: list[SpaceJob] = []
        finished = []
        for space in job.spaces:
            rest: SpaceJob | None = space
            out = (self.out_dir, self.outputs)
            if job.t1w and (self.out_dir / _transform_sidecar(space, job.t1w)).is_file():
                native = self._expected(job, (BRAIN.name, *job.tasks))
                maps = {task: job.spec(task).label_map for task in space.tasks}
                rest = left_to_make(space, job.t1w, native, maps, out) if native else space
            if rest is None:
                finished.append(TaskOutcome(space.title, "resumed"))
            else:
                left.append(rest)
        return tuple(left), tuple(finished)

    def _expected(self, job: SessionJob, tasks: Iterable[str]) -> dict[str, Provenance]:
        """How each task that has its models would be made; nothing of it without the scan."""
        expected = {}
        for task in tasks:
            if any(model not in self.bundles for model in job.spec(task).models):
                continue
            try:
                inputs = {path: self.digests.sha256(path) for path in job.inputs(task)}
            except OSError:
                continue
            expected[task] = provenance_of(job, task, self.bundles, inputs)
        return expected


def _transform_sidecar(space: SpaceJob, t1w: Path) -> PurePosixPath:
    return names.sidecar_path(space.transforms(t1w)[0])


def _resumed(
    task: str, files: Sequence[PurePosixPath], out_dir: Path, model: str, reason: str
) -> TaskOutcome:
    """The outcome of a task that an earlier run did."""
    every = [str(name) for file in files for name in (file, names.sidecar_path(file))]
    findings = findings_of(out_dir, files[0])
    return TaskOutcome(task, "resumed", reason, files=tuple(every), findings=findings, model=model)

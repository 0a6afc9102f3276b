"""The configuration of a run: validated once, frozen, and saved beside its results."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deepmrseg_bids.errors import UsageError
from deepmrseg_bids.runtime import usable_cores

__all__ = ["TASKS", "RunConfig"]

TASKS = ("brain", "deepbrain", "hippocampus", "wml")


@dataclass(frozen=True)
class RunConfig:
    """What ``deepmrseg-bids`` was asked to do; see its ``--help`` for each field.

    Attributes:
        tasks: empty for all that a session's images allow.
        omp_nthreads: threads of one process; 0 lets the run choose.
        models: bundles in the place of the shipped ones, as (task, folder).

    Raises:
        UsageError: a value that means nothing.
    """

    bids_dir: Path
    out_dir: Path
    level: str
    participant_label: tuple[str, ...] = ()
    session_label: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()
    models: tuple[tuple[str, Path], ...] = ()
    bids_filter_file: Path | None = None
    bids_database_dir: Path | None = None
    skip_bids_validation: bool = False
    nprocs: int = 0
    omp_nthreads: int = 0
    device: str = "auto"
    precision: str = "auto"
    probabilities: bool = False
    tta: bool = False
    work_dir: Path | None = None
    reports: bool = True
    force: bool = False
    verbosity: int = 0

    def __post_init__(self) -> None:
        if self.level not in ("participant", "group"):
            raise UsageError(f"the analysis level is participant or group, got {self.level!r}")
        unknown = [task for task in self.tasks if task not in TASKS]
        if unknown:
            raise UsageError(f"unknown tasks {unknown}; known are {', '.join(TASKS)}")
        if self.precision not in ("auto", "float32", "bfloat16"):
            raise UsageError(f"precision is auto, float32 or bfloat16, got {self.precision!r}")
        for name in ("nprocs", "omp_nthreads"):
            if getattr(self, name) < 0:
                raise UsageError(f"{name} is a whole number >= 0, got {getattr(self, name)}")
        object.__setattr__(self, "tasks", tuple(dict.fromkeys(self.tasks)))
        cores = usable_cores()
        object.__setattr__(self, "nprocs", min(self.nprocs or cores, cores))
        object.__setattr__(self, "omp_nthreads", min(self.omp_nthreads, self.nprocs))

    def threads(self, sessions: int) -> int:
        """Threads for one of ``sessions`` sessions: processes times threads stays in bounds.

        >>> RunConfig(Path("/d"), Path("/o"), "participant", nprocs=1).threads(10)
        1
        """
        return self.omp_nthreads or max(1, self.nprocs // max(1, sessions))

    def save(self, path: Path) -> None:
        """Write every field that has a value as TOML."""
        import tomli_w

        values: dict[str, Any] = {}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name == "models":
                value = {task: str(folder) for task, folder in value}
            elif isinstance(value, tuple):
                value = list(value)
            elif isinstance(value, Path):
                value = str(value)
            if value is not None:
                values[field.name] = value
        path.write_text(tomli_w.dumps(values), encoding="utf-8")

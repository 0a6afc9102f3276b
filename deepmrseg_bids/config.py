"""The configuration of a run: validated once, frozen, saved beside its results, read again."""

from __future__ import annotations

import dataclasses
import difflib
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_type_hints

from deepmrseg_bids.errors import UsageError
from deepmrseg_bids.files import write_text
from deepmrseg_bids.imaging.templates import output_spaces
from deepmrseg_bids.system import usable_cores
from deepmrseg_bids.tasks.registry import task_names

__all__ = ["RunConfig", "given_path", "parse_shard", "parse_size", "read_config"]

_UNITS = {"K": 2**-10, "M": 1, "": 1, "G": 2**10, "T": 2**20}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:I?B)?", re.ASCII)
_LEFT_TO_THE_RUN = (("omp_nthreads", 0), ("mem", 0))
_WRITTEN = "# Written by deepmrseg-bids "
_HEADER = (
    _WRITTEN
    + """{version}. To repeat this run:
#     deepmrseg-bids --config-file THIS_FILE
"""
)


_OF_ONE_LEVEL = {"regions": "participant"} | dict.fromkeys(
    ("reference", "ratings", "norms", "harmonise"), "group"
)


@dataclass(frozen=True)
class RunConfig:
    """What ``deepmrseg-bids`` was asked to do; see its ``--help`` for each field.

    Attributes:
        tasks: empty for all that a session's images allow.
        omp_nthreads: threads of one process; 0 lets the run choose.
        mem: MiB that the whole run may take; 0 for what the machine has to spare.
        force_header: read images without sform and qform too.
        models: bundles in the place of the shipped ones, and of tasks of one's own, as
            (task, folder).
        shard: ``K/N`` for the K-th of N parts of the run; empty for the whole.
        use_plugin: YAML that says which scheduler runs the sessions.
        output_spaces: label maps are written in these, besides the scan's own; as
            ``NAME[:cohort-N][:res-N]``.
        same_source: OUT_DIR is of BIDS_DIR, even if its results do not show that.
        regions: the table of composite regions, in the place of that of the task.
        ratings: tables of quality ratings, for the group level.
        norms: reference centiles, for the group level.
        harmonise: a column of participants.tsv, whose differences ComBat takes out.
        reference: data sets to compare with at the group level, as ``DIR`` or ``NAME=DIR``.
        adjust_for: what volumes are adjusted for at the group level: ``intracranial`` volume or
            ``brain-mask``.

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
    force_header: bool = False
    nprocs: int = 0
    omp_nthreads: int = 0
    mem: int = 0
    low_mem: bool = False
    shard: str = ""
    use_plugin: Path | None = None
    device: str = "auto"
    precision: str = "auto"
    output_spaces: tuple[str, ...] = ()
    probabilities: bool = False
    regions: Path | None = None
    tta: bool = False
    work_dir: Path | None = None
    clean_workdir: bool = False
    write_graph: bool = False
    resource_monitor: bool = False
    dry_run: bool = False
    stop_on_first_crash: bool = False
    reports: bool = True
    reports_only: bool = False
    force: bool = False
    same_source: bool = False
    reference: tuple[str, ...] = ()
    adjust_for: str = "intracranial"
    ratings: tuple[Path, ...] = ()
    norms: Path | None = None
    harmonise: str = ""
    verbosity: int = 0

    def __post_init__(self) -> None:
        if self.level not in ("participant", "group"):
            raise UsageError(f"the analysis level is participant or group, got {self.level!r}")
        known = (*task_names(), *(name for name, _ in self.models if name not in task_names()))
        unknown = [task for task in self.tasks if task not in known]
        if unknown and self.level == "participant":  # the group level knows those in OUT_DIR too
            raise UsageError(f"unknown tasks {unknown}; known are {', '.join(known)}")
        if self.precision not in ("auto", "float32", "bfloat16"):
            raise UsageError(f"precision is auto, float32 or bfloat16, got {self.precision!r}")
        if self.adjust_for not in ("intracranial", "brain-mask"):
            raise UsageError(f"--adjust-for is intracranial or brain-mask, got {self.adjust_for!r}")
        for name in ("nprocs", "omp_nthreads", "mem"):
            if getattr(self, name) < 0:
                raise UsageError(f"{name} is a whole number >= 0, got {getattr(self, name)}")
        if self.shard:
            parse_shard(self.shard)
        if self.reports_only and not self.reports:
            raise UsageError("--reports-only and --no-reports cannot be combined")
        if self.level == "group" and (self.dry_run or self.reports_only):
            flag = "--dry-run" if self.dry_run else "--reports-only"
            raise UsageError(f"{flag} is only available at the participant level")
        for name, level in _OF_ONE_LEVEL.items():
            if self.level != level and getattr(self, name):
                raise UsageError(f"--{name} is only available at the {level} level")
        output_spaces(self.output_spaces)  # an error if one is none
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
        """Write every field that has a value as TOML; :func:`read_config` reads it."""
        import tomli_w

        from deepmrseg_bids import __version__

        values: dict[str, Any] = {}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name == "models":
                value = {task: str(folder) for task, folder in value}
            elif isinstance(value, tuple):
                value = [str(one) for one in value]
            elif isinstance(value, Path):
                value = str(value)
            if value is not None:
                values[field.name] = value
        text = _HEADER.format(version=__version__) + tomli_w.dumps(values)
        write_text(path, text)


def parse_size(text: str) -> int:
    """A size of memory in MiB: a bare number is MB, K, M, G and T count in steps of 1024.

    Raises:
        UsageError: not a size, or less than 1 MB.

    >>> parse_size("4G"), parse_size("800"), parse_size("1.5g")
    (4096, 800, 1536)
    """
    match = _SIZE.fullmatch(text.strip().upper())
    size = int(float(match[1]) * _UNITS[match[2]]) if match else 0
    if size < 1:
        raise UsageError(f"memory is a number in MB, or with K, M, G or T (8G), got {text!r}")
    return size


def parse_shard(text: str) -> tuple[int, int]:
    """``K/N`` as (K, N): the K-th of N shards, counted from 1.

    Raises:
        UsageError: not such a text, or K is not from 1 to N.

    >>> parse_shard("2/8")
    (2, 8)
    """
    match = re.fullmatch(r"(\d+)/(\d+)", text, re.ASCII)
    number, count = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 1 <= number <= count:
        raise UsageError(f"--shard takes K/N with K from 1 to N, such as 2/8; got {text!r}")
    return number, count


def read_config(path: Path) -> dict[str, Any]:
    """The values of a TOML file, by field of :class:`RunConfig`, as that class takes them.

    Keys are the long flags, with hyphens or underscores; ``models`` is a table of folders by
    task, ``reports = false`` stands for ``--no-reports``. Relative paths are relative to the
    current folder, as on the command line.

    Raises:
        UsageError: not a TOML file, an unknown key, or a value of the wrong kind.
    """
    try:
        text = path.read_text(encoding="utf-8")
        tree = tomllib.loads(text)
    except (OSError, ValueError, RecursionError) as error:  # those of TOML are ValueErrors
        raise UsageError(f"--config-file {path}: cannot be read as TOML ({error})") from error
    kinds = get_type_hints(RunConfig)
    named = {key.replace("-", "_"): value for key, value in tree.items()}
    if text.startswith(_WRITTEN):  # what was not asked for stands there, too
        named = {key: value for key, value in named.items() if (key, value) not in _LEFT_TO_THE_RUN}
    if unknown := [key for key in tree if key.replace("-", "_") not in kinds]:
        raise UsageError(f"--config-file {path}: unknown {_proposed(unknown, kinds)}")
    values = {}
    for key, value in named.items():
        try:
            values[key] = _value(key, value, kinds[key])
        except (TypeError, ValueError, UsageError) as error:
            raise UsageError(f"--config-file {path}: {key}: {error}") from error
    return values


def _proposed(unknown: list[str], known: Mapping[str, object]) -> str:
    """``key 'nproc' (did you mean 'nprocs'?)`` for each unknown key."""
    texts = []
    for key in unknown:
        near = difflib.get_close_matches(key.replace("-", "_"), known, n=1)
        texts.append(repr(key) + (f" (did you mean {near[0]!r}?)" if near else ""))
    keys = f"{'key' if len(texts) == 1 else 'keys'} {', '.join(texts)}"
    return keys if all("?" in text for text in texts) else f"{keys}; known are {', '.join(known)}"


def _value(key: str, value: Any, kind: Any) -> Any:
    """A value of a TOML file as a field takes it."""
    if key == "mem" and isinstance(value, str):
        return parse_size(value)
    if key == "models":
        table = _typed(value, dict, "a table of folders by task")
        if odd := [task for task in table if not (task.isascii() and task.isalnum())]:
            raise ValueError(f"the name of a task has letters and digits only, got {odd[0]!r}")
        return tuple((task, _path(folder)) for task, folder in table.items())
    if kind in (Path, Path | None):
        return _path(value)
    if kind in (bool, str):
        return _typed(value, kind, {bool: "true or false", str: "a string"}[kind])
    if kind is int:
        if isinstance(value, bool):
            raise TypeError(f"a whole number was expected, got {value!r}")
        number = _typed(value, int, "a whole number")
        if key != "verbosity" and number < 1:  # as of the flags
            raise ValueError(f"must be a whole number of at least 1, got {value!r}")
        return number
    if kind == tuple[Path, ...]:
        return tuple(map(_path, _typed(value, list, "a list of paths")))
    texts = _typed(value, list, "a list of strings")
    return tuple(_typed(text, str, "a list of strings") for text in texts)


def _path(value: Any) -> Path:
    return given_path(_typed(value, str, "a path"))


def given_path(text: str) -> Path:
    """An absolute path; an empty text is no path, for it would be the current folder.

    Raises:
        UsageError: it is empty.
    """
    if not text.strip():
        raise UsageError("an empty path was given (is a variable of the command not set?)")
    return Path(text).absolute()


def _typed(value: Any, kind: type, expected: str) -> Any:
    if not isinstance(value, kind):
        raise TypeError(f"{expected} was expected, got {value!r}")
    return value

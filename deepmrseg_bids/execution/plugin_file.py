"""The file of ``--use-plugin``: who runs the sessions, in the words of nipype."""

from __future__ import annotations

import math
import shlex
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from deepmrseg_bids.errors import UsageError

__all__ = ["Plugin", "read_plugin"]

_Kinds = dict[str, tuple[type, ...]]
_ARGUMENTS: dict[str, _Kinds] = {
    "Linear": {},
    "MultiProc": {"n_procs": (int,), "memory_gb": (int, float)},
    "SLURM": {
        "sbatch_args": (str,),
        "template": (str,),
        "max_jobs": (int,),
        "max_tries": (int,),
        "retry_timeout": (int, float),
    },
}
_SHARDS = "for other schedulers use --shard in a job array (docs/hpc.md)"


@dataclass(frozen=True)
class Plugin:
    """One of nipype's plugins and its arguments, checked.

    Attributes:
        name: ``SLURM``, ``MultiProc`` or ``Linear``.
        arguments: its ``plugin_args``.
    """

    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_scheduler(self) -> bool:
        """Whether sessions become jobs of a cluster."""
        return self.name == "SLURM"

    def limits(self, cores: int, memory_mib: int) -> tuple[int, int]:
        """Cores and MiB of a run that asks for so many, where 0 MiB are no limit.

        MultiProc and Linear only limit what runs on this machine, as ``--nprocs`` and ``--mem``
        do.
        """
        if self.name == "Linear":
            return 1, memory_mib
        if self.name == "MultiProc":
            memory = int(1024 * self.arguments.get("memory_gb", 0))
            least = min((limit for limit in (memory_mib, memory) if limit), default=0)
            return min(cores, self.arguments.get("n_procs", cores)), least
        return cores, memory_mib

    def check(self, *, work_dir: Path | None, device: str, precision: str) -> None:
        """SLURM needs its commands, and a work folder that all nodes see.

        Raises:
            UsageError: SLURM cannot be used like this.
        """
        if not self.is_scheduler:
            return
        for command in ("sbatch", "squeue", "scontrol", "scancel"):
            if shutil.which(command) is None:
                raise UsageError(
                    f"--use-plugin requires SLURM, but {command} is not on PATH here; start "
                    "the app on a machine from which jobs can be submitted, or use --shard "
                    "in a job array (docs/hpc.md)"
                )
        if work_dir is None:
            raise UsageError(
                "--use-plugin with SLURM needs --work-dir: a folder that is shared by "
                "this machine and all nodes"
            )
        if device not in ("auto", "cpu") and precision == "auto":
            raise UsageError(
                f"--device {device} with SLURM needs --precision float32 or "
                "bfloat16: this machine cannot determine what the GPUs of the nodes "
                "support"
            )
        if set("'\\\n") & set(str(work_dir)):
            raise UsageError(
                f"--work-dir {work_dir}: with SLURM it must not contain quotes, "
                "backslashes or line breaks; choose another one"
            )


def read_plugin(path: Path) -> Plugin:
    """Read ``{plugin: NAME, plugin_args: {...}}``.

    Raises:
        UsageError: not such a file, or a plugin or an argument that the app does not know.
    """
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        detail = " ".join(str(error).split())
        raise UsageError(f"--use-plugin {path}: cannot be read as YAML ({detail})") from error
    if not isinstance(tree, dict) or not {"plugin"} <= set(tree) <= {"plugin", "plugin_args"}:
        raise UsageError(
            f"--use-plugin {path}: {{plugin: NAME, plugin_args: {{...}}}} was expected, "
            f"got {tree!r}"
        )
    name, arguments = tree["plugin"], tree.get("plugin_args") or {}
    if name == "SLURMGraph":
        raise UsageError(f"--use-plugin {path}: SLURMGraph does not wait for its jobs; use SLURM")
    if not isinstance(name, str) or name not in _ARGUMENTS:
        raise UsageError(
            f"--use-plugin {path}: unknown plugin {name!r}; known are {', '.join(_ARGUMENTS)}; "
            f"{_SHARDS}"
        )
    _check_arguments(path, name, arguments)
    return Plugin(name, dict(arguments))


def _check_arguments(path: Path, name: str, arguments: Any) -> None:
    known = _ARGUMENTS[name]
    if not isinstance(arguments, dict):
        raise UsageError(f"--use-plugin {path}: plugin_args is a mapping, got {arguments!r}")
    for key, value in arguments.items():
        if key not in known:
            raise UsageError(
                f"--use-plugin {path}: {name} takes no {key!r}; "
                f"its plugin_args are {', '.join(known) or 'none'}"
            )
        kinds = known[key]
        right = isinstance(value, kinds) and not isinstance(value, bool)
        if not right or (str not in kinds and not 0 < value < math.inf):
            what = "a string" if str in kinds else "a number above 0"
            raise UsageError(f"--use-plugin {path}: {key} is {what}, got {value!r}")
    try:
        shlex.split(arguments.get("sbatch_args", ""))
    except ValueError as error:
        text = arguments["sbatch_args"]
        raise UsageError(
            f"--use-plugin {path}: sbatch_args: its quotes do not match: {text!r}"
        ) from error

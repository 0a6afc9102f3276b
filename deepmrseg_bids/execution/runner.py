"""Run nipype workflows so that they leave nothing outside their folders and ask no network."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deepmrseg_bids.execution.plugin_file import Plugin
from deepmrseg_bids.execution.progress import Progress
from deepmrseg_bids.execution.worker_pool import Crew
from deepmrseg_bids.wording import counted

__all__ = ["PRELOAD", "Limits", "Verdict", "execute", "prepare_nipype"]

_log = logging.getLogger("deepmrseg-bids")
PRELOAD = (
    "deepmrseg_bids.execution.local_plugin",
    "deepmrseg_bids.workflows",
    "deepmrseg_bids.reports.figures",
)
"""What every worker needs (:func:`~deepmrseg_bids.execution.worker_pool.warm_up`)."""

_SETTINGS = """\
[execution]
stop_on_first_crash = false
crashfile_format = txt
remove_unnecessary_outputs = false
keep_inputs = true
create_report = false
check_version = false
poll_sleep_duration = 0.1

[logging]
workflow_level = ERROR
utils_level = ERROR
interface_level = ERROR
"""


def prepare_nipype(folder: Path, *, resource_monitor: bool = False) -> None:
    """Settle nipype's settings, for this process and its workers, before it is imported.

    They lie in ``folder``, not in the home directory; no usage statistics are sent.
    """
    monitor = "\n[monitoring]\nenabled = true\n" if resource_monitor else ""
    os.environ["NO_ET"] = os.environ["NIPYPE_NO_ET"] = "1"
    os.environ["NIPYPE_CONFIG_DIR"] = str(folder)
    (folder / "nipype.cfg").write_text(_SETTINGS + monitor, encoding="utf-8")


@dataclass(frozen=True)
class Limits:
    """What the sessions that run at once may take together.

    Attributes:
        cores: of the whole run.
        threads: of one session.
        memory_gb: of the whole run.
    """

    cores: int
    threads: int
    memory_gb: float

    def sessions(self, waiting: int, session_gb: float) -> int:
        """How many sessions run at once.

        >>> Limits(cores=8, threads=2, memory_gb=10).sessions(100, session_gb=3)
        3
        """
        room = int(self.memory_gb // session_gb) if session_gb else waiting
        return max(1, min(waiting, self.cores // self.threads, room))

    def told(self, waiting: int, session_gb: float) -> str:
        """How many sessions run at once, and why, in one line."""
        many = self.sessions(waiting, session_gb)
        return (
            f"{counted(many, 'session')} in parallel, {counted(waiting, 'session')} to process; "
            f"{counted(self.cores, 'core')}, {counted(self.threads, 'thread')} per session; "
            f"{self.memory_gb:.1f} GB of memory, up to {session_gb:.1f} GB per session"
        )


@dataclass
class Verdict:
    """What became of the nodes that did not end well.

    Attributes:
        reasons: why the node of a session failed, by the session's name.
        stopped: sessions were left out because one had failed.
        interrupted: the run was told to stop.
    """

    reasons: dict[str, str] = field(default_factory=dict)
    stopped: bool = False
    interrupted: bool = False


@contextmanager
def _plugins(
    limits: Limits,
    logs: Path,
    scheduler: Plugin | None,
    ended: Callable[[Any, str], None],
    stop: Callable[[], bool],
) -> Iterator[Callable[[], Any]]:
    """Makes the plugin of one workflow after the other."""
    if scheduler is not None:
        from deepmrseg_bids.execution.slurm_plugin import SlurmSessionsPlugin

        yield lambda: SlurmSessionsPlugin(scheduler.arguments, logs, ended, stop)
        return
    from deepmrseg_bids.execution.local_plugin import CrewPlugin

    with Crew(PRELOAD) as crew:
        yield lambda: CrewPlugin(crew, limits.cores, limits.memory_gb, ended, stop)


def execute(
    workflows: Iterable[Any],
    *,
    work: Path,
    logs: Path,
    limits: Limits,
    progress: Progress,
    verdict: Verdict,
    stop_on_first_crash: bool = False,
    keep: bool = True,
    scheduler: Plugin | None = None,
) -> None:
    """Run the nodes of one workflow after the other; what fails does not stop the others.

    Nodes run in worker processes that are kept from workflow to workflow, with the networks
    they have loaded. A worker that is killed costs the session it worked on. Ctrl-C ends the
    workers, and then this function.

    Args:
        work: nipype's folders.
        logs: receives a file for each node that crashed.
        verdict: receives what did not end well.
        stop_on_first_crash: begin nothing more once a session has failed.
        keep: leave the folder of a workflow there when it has run.
        scheduler: who is given a job for each session, in place of workers on this machine.
    """

    def ended(node: Any, reason: str) -> None:
        if reason and hasattr(node.inputs, "job"):
            verdict.reasons[node.inputs.job.name] = reason
        elif reason:
            _log.error("%s: %s", node.fullname, reason)
        progress(node, "exception" if reason else "end")

    def stop() -> bool:
        verdict.stopped = stop_on_first_crash and progress.failed > 0
        return verdict.stopped

    try:
        with _plugins(limits, logs, scheduler, ended, stop) as plugin:
            for workflow in workflows:
                workflow.config["execution"]["crashdump_dir"] = str(logs)
                workflow.base_dir = str(work)
                workflow.run(plugin=plugin())
                if not keep:
                    shutil.rmtree(work / workflow.name, ignore_errors=True)
                if stop():
                    break
    except KeyboardInterrupt:
        verdict.interrupted = True
    finally:
        progress.close()

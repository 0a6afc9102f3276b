"""Run nipype workflows so that they leave nothing outside their folders and ask no network."""

from __future__ import annotations

import os
import shutil
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

from deepmrseg_bids.execution.monitoring import add_resources
from deepmrseg_bids.execution.nodes import NodeResult
from deepmrseg_bids.execution.plugin_file import Plugin
from deepmrseg_bids.execution.worker_pool import WorkerPool
from deepmrseg_bids.wording import counted

__all__ = ["PRELOAD", "Limits", "Settings", "execute", "prepare_nipype"]

PRELOAD = (
    "deepmrseg_bids.inference.predictor",
    "deepmrseg_bids.execution.local_plugin",
    "deepmrseg_bids.workflows",
    "deepmrseg_bids.reports.figures",
)
"""What every worker needs (:func:`~deepmrseg_bids.execution.worker_pool.warm_up`).

The networks' library is loaded there once, while the main process looks for the sessions; it
starts no thread before it is used, so its workers may be forked from there.
"""

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

    def summary(self, waiting: int, session_gb: float) -> str:
        """How many sessions run at once, and why, in one line."""
        many = self.sessions(waiting, session_gb)
        return (
            f"{counted(many, 'session')} in parallel, {counted(waiting, 'session')} to process; "
            f"{counted(self.cores, 'core')}, {counted(self.threads, 'thread')} per session; "
            f"{self.memory_gb:.1f} GB of memory, up to {session_gb:.1f} GB per session"
        )


@dataclass(frozen=True)
class Settings:
    """Where and with what the nodes of workflows run.

    Attributes:
        work: nipype's folders.
        logs: receives a file for each node that crashed.
        limits: what nodes that run at once may take together.
        scheduler: who is given a job for each session, in place of workers on this machine.
        stop_on_first_crash: begin nothing more once a session has failed.
        keep: leave the folder of a workflow there when it has run.
    """

    work: Path
    logs: Path
    limits: Limits
    scheduler: Plugin | None = None
    stop_on_first_crash: bool = False
    keep: bool = True


class _NodesPlugin(Protocol):
    """Who runs the nodes of a graph, in the place of a plugin of nipype."""

    stopped: bool

    def run(self, graph: Any) -> Generator[NodeResult, None, None]: ...


@contextmanager
def _plugin(settings: Settings) -> Iterator[_NodesPlugin]:
    if settings.scheduler is not None:
        from deepmrseg_bids.execution.slurm_plugin import SlurmPlugin

        yield SlurmPlugin(settings.scheduler.arguments, settings.logs)
        return
    from deepmrseg_bids.execution.local_plugin import LocalPlugin

    limits = settings.limits
    with WorkerPool(PRELOAD) as pool:
        yield LocalPlugin(pool, cores=limits.cores, memory_gb=limits.memory_gb)


def execute(workflows: Iterable[Any], settings: Settings) -> Generator[NodeResult, None, None]:
    """Run the nodes of one workflow after the other; each node when it has ended.

    What fails does not stop the others. Nodes run in worker processes that are kept from
    workflow to workflow, with the networks they have loaded. A worker that is killed costs the
    session it worked on. Ctrl-C ends the workers, and then this function; so does closing it.
    """
    with _plugin(settings) as plugin:
        for workflow in workflows:
            workflow.config["execution"]["crashdump_dir"] = str(settings.logs)
            workflow.base_dir = str(settings.work)
            graph = _expanded(workflow)
            with closing(plugin.run(graph)) as results:
                for result in results:
                    failed = bool(result.session) and not result.good
                    plugin.stopped |= failed and settings.stop_on_first_crash
                    yield result
            add_resources(graph)
            if not settings.keep:
                shutil.rmtree(settings.work / workflow.name, ignore_errors=True)
            if plugin.stopped:
                break


def _expanded(workflow: Any) -> Any:
    """The graph of nodes that nipype gives to a plugin."""
    plugin = _KeepGraph()
    workflow.run(plugin=plugin)
    return plugin.graph


class _KeepGraph:
    """For nipype a plugin; it runs nothing."""

    plugin_args: Mapping[str, Any] = MappingProxyType({})
    graph: Any = None

    def run(self, graph: Any, config: Any, updatehash: bool = False) -> None:
        self.graph = graph

"""A nipype plugin for one machine that survives the death of its workers.

nipype's own MultiProc waits for ever for a worker that the kernel has killed (nipype #2548,
#2700), polls, and looks at every node of a workflow each time.
"""

from __future__ import annotations

import contextlib
import traceback
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, cast

from nipype.pipeline.plugins.base import PluginBase
from nipype.pipeline.plugins.tools import report_crash

from deepmrseg_bids.execution.worker_pool import Answer, Crew

__all__ = ["CrewPlugin"]


class CrewPlugin(PluginBase):  # type: ignore[misc]
    """Runs each node in a worker as soon as those before it are done and resources suffice.

    Nodes start in their order; one that does not fit waits, and those behind it with it. A
    node that needs more than there is runs alone. What depends on a node that failed is left
    out.

    Args:
        crew: the processes, kept from workflow to workflow.
        cores, memory_gb: what the nodes that run at once may take together.
        ended: is told each node that ended, with the reason if it failed.
        stop: says whether to start nothing more; what runs is waited for.
    """

    def __init__(
        self,
        crew: Crew,
        cores: int,
        memory_gb: float,
        ended: Callable[[Any, str], None],
        stop: Callable[[], bool] = lambda: False,
    ) -> None:
        super().__init__({})
        self._crew, self._cores, self._memory_gb = crew, cores, memory_gb
        self._ended, self._stop = ended, stop

    def run(self, graph: Any, config: Any, updatehash: bool = False) -> None:
        """Run the nodes of a graph, ``config`` and ``updatehash`` as nipype gives them."""
        before = {node: graph.in_degree(node) for node in graph}
        nodes = sorted(graph, key=lambda node: node.index)
        ready = deque(node for node in nodes if not before[node])
        running: dict[int, Any] = {}

        def settle(node: Any, answer: Answer) -> None:
            if self._told(node, answer):
                for after in graph.successors(node):
                    before[after] -= 1
                    if not before[after]:
                        ready.appendleft(after)  # a subject's page before new subjects

        while running or (ready and not self._stop()):
            while ready and not self._stop() and self._fits(ready[0], running):
                node = ready.popleft()
                if node.run_without_submitting:  # too small for a worker
                    settle(node, _run_here(node, updatehash))
                    continue
                running[node.index] = node
                self._crew.start(node.index, _run_node, node, updatehash)
            for answer in self._crew.wait():
                settle(running.pop(cast(int, answer.task)), answer)

    def _fits(self, node: Any, running: Mapping[int, Any]) -> bool:
        if not running:
            return True  # one that needs more than there is runs alone
        cores = sum(one.n_procs for one in running.values()) + node.n_procs
        memory = sum(one.mem_gb for one in running.values()) + node.mem_gb
        return bool(cores <= self._cores and memory <= self._memory_gb)

    def _told(self, node: Any, answer: Answer) -> bool:
        """Tell how a node ended; whether it ended well."""
        reason = answer.died
        if answer.error is not None:
            reason = _last_line(answer.error)
            with contextlib.suppress(OSError):  # the disk may be full
                report_crash(node, traceback=answer.error.splitlines(keepends=True))
        self._ended(node, reason)
        return not reason


def _run_node(node: Any, updatehash: bool) -> None:
    node.run(updatehash=updatehash)


def _run_here(node: Any, updatehash: bool) -> Answer:
    try:
        node.run(updatehash=updatehash)
    except Exception:  # as in a worker
        return Answer(node.index, error=traceback.format_exc())
    return Answer(node.index)


def _last_line(trace: str) -> str:
    r"""The reason at the end of a traceback.

    >>> _last_line("Traceback\n  ...\nKeyError: 'x'\n")
    "unexpected KeyError: 'x'"
    >>> _last_line("deepmrseg_bids.errors.DatasetError: /out: the disk is full\n")
    '/out: the disk is full'
    """
    kind, _, text = trace.strip().splitlines()[-1].partition(": ")
    if kind.startswith("deepmrseg_bids.errors."):
        return text
    return f"unexpected {kind.rpartition('.')[2]}: {text}"

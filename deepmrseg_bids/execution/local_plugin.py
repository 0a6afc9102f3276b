"""The nodes of a workflow in worker processes of this machine, whose death costs one node.

nipype's own MultiProc waits for ever for a worker that the kernel has killed (nipype #2548,
#2700), polls, and looks at every node of a workflow each time.
"""

from __future__ import annotations

from collections.abc import Collection, Generator
from typing import Any, cast

from deepmrseg_bids.execution.nodes import NodeResult, ReadyNodes, called_result, run_node
from deepmrseg_bids.execution.worker_pool import CallResult, WorkerPool, call_here

__all__ = ["LocalPlugin"]


class LocalPlugin:
    """Runs each node in a worker as soon as those before it are done and resources suffice.

    Nodes start in their order; one that does not fit waits, and those behind it with it. A
    node that needs more than there is runs alone. What depends on a node that failed is left
    out.

    Args:
        pool: the processes, kept from workflow to workflow.
        cores, memory_gb: what the nodes that run at once may take together.

    Attributes:
        stopped: set it to begin nothing more; what runs is waited for.
    """

    def __init__(self, pool: WorkerPool, *, cores: int, memory_gb: float) -> None:
        self._pool, self._cores, self._memory_gb = pool, cores, memory_gb
        self.stopped = False

    def run(self, graph: Any) -> Generator[NodeResult, None, None]:
        """Run the nodes of a graph; each when it has ended."""
        ready = ReadyNodes(graph)
        running: dict[int, Any] = {}
        while running or (ready and not self.stopped):
            while ready and not self.stopped and self._fits(ready.first, running.values()):
                node = ready.take()
                if node.run_without_submitting:  # too small for a worker
                    yield _ended(node, call_here(node.index, run_node, node), ready)
                    continue
                running[node.index] = node
                self._pool.start(node.index, run_node, node)
            for call in self._pool.wait():
                yield _ended(running.pop(cast(int, call.key)), call, ready)

    def _fits(self, node: Any, running: Collection[Any]) -> bool:
        if not running:
            return True  # one that needs more than there is runs alone
        cores = sum(other.n_procs for other in running) + node.n_procs
        memory = sum(other.mem_gb for other in running) + node.mem_gb
        return bool(cores <= self._cores and memory <= self._memory_gb)


def _ended(node: Any, call: CallResult, ready: ReadyNodes) -> NodeResult:
    result = called_result(node, call)
    if not result.reason:
        ready.ended_well(node)
    return result

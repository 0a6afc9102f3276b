"""The nodes of a workflow: which can run now, and how each ended."""

from __future__ import annotations

import contextlib
import errno
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deepmrseg_bids.execution.worker_pool import CallResult
from deepmrseg_bids.session.job import SessionOutcome, read_outcome

__all__ = ["NodeResult", "ReadyNodes", "called_result", "run_node", "session_of"]

_UNFORESEEN = "unexpected"
_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


@dataclass(frozen=True)
class NodeResult:
    """How a node ended.

    Attributes:
        name: of the node.
        session: the session that it worked on; empty where it is none's, as for a page.
        outcome: what became of that session, if its process came to the end.
        reason: why the node failed; empty if it ended well.
    """

    name: str
    session: str = ""
    outcome: SessionOutcome | None = None
    reason: str = ""

    @classmethod
    def of(cls, node: Any, reason: str = "") -> NodeResult:
        """How a node of nipype ended."""
        session = session_of(node)
        outcome = read_outcome(Path(node.inputs.record)) if session else None
        return cls(str(node.fullname), session, outcome, reason)

    @property
    def good(self) -> bool:
        """Whether neither the node failed nor a task or output space of its session."""
        if self.reason or not self.session:
            return not self.reason
        return self.outcome is not None and not self.outcome.failed

    @property
    def skipped(self) -> bool:
        """Whether nothing that was asked for could be done in its session, and nothing failed."""
        tasks = [task for task in self.outcome.tasks if task.asked] if self.outcome else []
        return self.good and bool(tasks) and all(task.status == "skipped" for task in tasks)


class ReadyNodes:
    """The nodes of a graph that can run: all that they need has ended well.

    They come in their order, but what a node makes ready comes first: the page of a subject
    before new subjects. What needs a node that failed never becomes ready.
    """

    def __init__(self, graph: Any) -> None:
        self._graph = graph
        self._needs = {node: graph.in_degree(node) for node in graph}
        nodes = sorted(graph, key=lambda node: node.index)
        self._ready = deque(node for node in nodes if not self._needs[node])

    def __len__(self) -> int:
        return len(self._ready)

    @property
    def first(self) -> Any:
        """The node that is next."""
        return self._ready[0]

    def take(self) -> Any:
        """The node that is next; it is ready no more."""
        return self._ready.popleft()

    def ended_well(self, node: Any) -> None:
        """What needs this node waits for it no longer."""
        for after in self._graph.successors(node):
            self._needs[after] -= 1
            if not self._needs[after]:
                self._ready.appendleft(after)


def session_of(node: Any) -> str:
    """The name of the session that a node segments; empty for all other nodes."""
    return str(node.inputs.job.name) if "job" in node.inputs.copyable_trait_names() else ""


def run_node(node: Any) -> None:
    """Run a node in the process that calls this."""
    node.run()


def called_result(node: Any, call: CallResult) -> NodeResult:
    """How a node ended that was run by a call; what nobody foresaw gets a crash file."""
    reason = call.died
    if call.error is not None:
        reason = _last_line(call.error)
    if reason.startswith(_UNFORESEEN) and call.error is not None:
        from nipype.pipeline.plugins import tools

        with contextlib.suppress(OSError):  # the disk may be full
            tools.report_crash(node, traceback=call.error.splitlines(keepends=True))
    return NodeResult.of(node, reason)


def _last_line(trace: str) -> str:
    r"""The reason at the end of a traceback.

    >>> _last_line("Traceback\n  ...\nKeyError: 'x'\n")
    "unexpected KeyError: 'x'"
    >>> _last_line("deepmrseg_bids.errors.DatasetError: /out: the disk is full\n")
    '/out: the disk is full'
    >>> _last_line("OSError: [Errno 28] No space left on device\n")[:44]
    'No space left on device in the work folder; '
    """
    kind, _, text = trace.strip().splitlines()[-1].strip().partition(": ")
    if kind.startswith("deepmrseg_bids.errors."):
        return text
    if any(text.startswith(f"[Errno {number}]") for number in _DISK):
        said = text.partition("] ")[2]
        return f"{said} in the work folder; free some space, or choose another with --work-dir"
    return f"{_UNFORESEEN} {kind.rpartition('.')[2]}: {text}"

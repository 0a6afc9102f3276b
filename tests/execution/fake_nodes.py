"""Nodes as plugins see them, that write down what they do; a pool that works in this process."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace

from deepmrseg_bids.execution.worker_pool import CallResult
from deepmrseg_bids.session.job import SessionOutcome, TaskOutcome


class Inputs(SimpleNamespace):
    def copyable_trait_names(self):
        return list(vars(self))


class Node:
    """A node; with a session it leaves the record of that session, of which a task failed or not.

    Args:
        done: receives the node's index when it runs.
        fails: it raises.
        here: it is too small for a worker.
    """

    def __init__(self, index, done, n_procs=1, mem_gb=1.0, fails=False, here=False):
        self.index, self.n_procs, self.mem_gb = index, n_procs, mem_gb
        self.run_without_submitting = here
        self.fullname = f"node_{index}"
        self.inputs = Inputs()
        self._done, self._fails = done, fails

    def run(self):
        if self._fails:
            raise ValueError("no")
        self._done.append(self.index)


class SessionNode(Node):
    def __init__(self, index, done, folder: Path, status="done", **more):
        super().__init__(index, done, **more)
        name = f"sub-{index}"
        self.inputs = Inputs(job=SimpleNamespace(name=name), record=str(folder / f"{name}.json"))
        self.folder, self.status = folder, status

    def run(self):
        super().run()
        self.finish()

    def finish(self):
        """Leave what the process of a session leaves."""
        tasks = (TaskOutcome("brain", self.status),)
        outcome = SessionOutcome(str(self.index), None, {}, tasks)
        Path(self.inputs.record).write_text(outcome.to_json())
        self.output_dir().mkdir()
        (self.output_dir() / "result_segment.pklz").touch()

    def output_dir(self):
        return self.folder / self.fullname


class Inline:
    """A pool that works here, at the time when it is waited for.

    Args:
        deaths: why the worker dies, by the index of the node.
    """

    def __init__(self, deaths: Mapping[int, str] = {}):
        self.deaths, self.calls, self.most = dict(deaths), [], 0
        self.ended = False

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.ended = True

    def start(self, key, function, *arguments):
        self.calls.append((key, function, arguments))
        self.most = max(self.most, len(self.calls))

    def wait(self):
        if not self.calls:
            return []
        key, function, arguments = self.calls.pop(0)
        if key in self.deaths:
            return [CallResult(key, died=self.deaths[key])]
        try:
            return [CallResult(key, function(*arguments))]
        except ValueError as error:
            return [CallResult(key, error=f"Traceback\nValueError: {error}\n")]

"""Processes that work on one call at a time, and whose death is noticed at once."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
import time
import traceback
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from multiprocessing import forkserver
from multiprocessing.connection import Connection, wait
from typing import Any

__all__ = ["Answer", "Crew", "warm_up", "why"]

_GRACE = 2.0  # seconds that a worker has to end when it is asked to
_MEMORY = (
    "probably because of memory: request more memory (and set --mem), or run "
    "fewer sessions in parallel (--nprocs); the next run repeats this session"
)


@dataclass(frozen=True)
class Answer:
    """How a call ended.

    Attributes:
        task: what the call was started as.
        error: the traceback of what it raised; None if it ended well or its process died.
        died: why its process ended in the middle of it; empty if it did not.
    """

    task: Hashable
    error: str | None = None
    died: str = ""


def why(exitcode: int | None) -> str:
    """What to tell of a worker that ended in the middle of a session.

    >>> why(3)
    "the worker ended early (exit code 3); the run's log may say more"
    """
    if exitcode == -signal.SIGKILL:
        return f"the worker was killed, {_MEMORY}"
    if exitcode is not None and exitcode < 0:
        name = signal.Signals(-exitcode).name
        if name in ("SIGSEGV", "SIGBUS", "SIGABRT"):
            return f"the worker crashed ({name}), {_MEMORY}"
        return f"the worker was ended by {name}; the next run repeats this session"
    return f"the worker ended unexpectedly (exit code {exitcode}); see the log of the run"


def warm_up(preload: Sequence[str]) -> None:
    """Start the server that workers come from, and go on; it loads these modules meanwhile.

    The environment is that of now; a server that runs already is kept as it is.
    """
    multiprocessing.get_context("forkserver").set_forkserver_preload(list(preload))
    forkserver.ensure_running()


class Crew:
    """Processes for calls; each is kept from call to call, with all it has loaded.

    ::

        with Crew() as crew:
            crew.start("a", function, argument)
            [answer] = crew.wait()

    Workers come from a server process that has loaded ``preload`` once, so a new one starts
    at once and shares the memory of the libraries. They ignore Ctrl-C, which goes to the whole
    terminal: the main process decides. They end when the main process is gone.

    Args:
        preload: modules that every worker needs; see :func:`warm_up`.
    """

    def __init__(self, preload: Sequence[str] = ()) -> None:
        warm_up(preload)
        self._context = multiprocessing.get_context("forkserver")
        self._idle: list[_Worker] = []
        self._busy: dict[Hashable, _Worker] = {}
        self._lost: list[Answer] = []

    def __enter__(self) -> Crew:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    @property
    def busy(self) -> int:
        """How many calls are under way."""
        return len(self._busy) + len(self._lost)

    def pids(self) -> list[int]:
        """The processes of this crew."""
        workers = [*self._idle, *self._busy.values()]
        return [worker.process.pid for worker in workers if worker.process.pid is not None]

    def start(self, task: Hashable, function: Callable[..., object], *arguments: Any) -> None:
        """Give a call to a worker; its end comes out of :meth:`wait`.

        Args:
            function: of a module, so that a worker can import it.
        """
        while self._idle:
            worker = self._idle.pop()
            if worker.take(function, arguments):
                self._busy[task] = worker
                return
            worker.end()  # it died between two calls
        try:
            worker = _Worker(self._context)
        except (OSError, EOFError) as error:
            self._lost.append(Answer(task, died=f"no worker could be started ({error})"))
            return
        self._busy[task] = worker  # one that is dead already comes out of wait()
        worker.take(function, arguments)

    def wait(self) -> list[Answer]:
        """Wait until a call ends; every call that has."""
        answers, self._lost = self._lost, []
        if answers or not self._busy:
            return answers
        by_handle: dict[Any, Hashable] = {}
        for task, worker in self._busy.items():
            by_handle[worker.connection] = task
            by_handle[worker.process.sentinel] = task
        ended = {by_handle[handle]: None for handle in wait(list(by_handle))}
        for task in ended:
            worker = self._busy.pop(task)
            answer = worker.answer(task)
            answers.append(answer)
            if answer.died:
                worker.end()
            else:
                self._idle.append(worker)
        return answers

    def end(self) -> None:
        """End all processes, also those in the middle of a call."""
        workers = [*self._idle, *self._busy.values()]
        self._idle, self._busy, self._lost = [], {}, []
        for worker in workers:
            worker.ask_to_end()
        deadline = time.monotonic() + _GRACE
        for worker in workers:
            worker.end(deadline)


class _Worker:
    """One process and the way to it."""

    def __init__(self, context: Any) -> None:
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs,), daemon=True)
        try:
            self.process.start()
        finally:
            theirs.close()  # so that its end is seen here when the process is gone

    def take(self, function: Callable[..., object], arguments: Sequence[Any]) -> bool:
        """Whether the process is there to take the call."""
        try:
            self.connection.send((function, arguments))
        except OSError:
            return False
        return True

    def answer(self, task: Hashable) -> Answer:
        try:
            if self.connection.poll():
                return Answer(task, error=self.connection.recv())
        except (OSError, EOFError):
            pass
        self.process.join(_GRACE)
        return Answer(task, died=why(self.process.exitcode))

    def ask_to_end(self) -> None:
        with contextlib.suppress(OSError):
            self.process.terminate()

    def end(self, deadline: float = 0.0) -> None:
        self.process.join(max(0.0, deadline - time.monotonic()))
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
        self.connection.close()
        self.process.close()


def _serve(connection: Connection) -> None:
    """The life of a worker: calls come in, ``None`` or a traceback goes out."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    while True:
        try:
            function, arguments = connection.recv()
        except EOFError:
            return
        error = None
        try:
            function(*arguments)
        except BaseException:  # whatever it is belongs to the call, not to the worker
            error = traceback.format_exc()
        connection.send(error)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)

"""Processes that work on one call at a time, and whose death is noticed at once."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import shutil
import signal
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import forkserver, util
from multiprocessing.connection import Connection, wait
from multiprocessing.reduction import ForkingPickler
from typing import Any, TypeVar, cast

__all__ = ["CallResult", "WorkerPool", "call_here", "describe_exit", "warm_up"]

Item = TypeVar("Item")

_LONGEST_TEMP = 107 - len("/pymp-12345678/listener-12345678")
_SHORT_FOLDERS = ("/tmp", "/var/tmp", "/dev/shm")
_GRACE = 2.0  # seconds that a worker has to end when it is asked to
_MEMORY = (
    "probably because of memory: request more memory (and set --mem), or run "
    "fewer sessions in parallel (--nprocs); the next run repeats this session"
)


@dataclass(frozen=True)
class CallResult:
    """How a call ended.

    Attributes:
        key: what the call was started as.
        value: what it returned, if it ended well.
        error: the traceback of what it raised; None if it ended well or its process died.
        died: why its process ended in the middle of it; empty if it did not.
    """

    key: Hashable
    value: Any = None
    error: str | None = None
    died: str = ""

    @property
    def problem(self) -> str:
        """Why there is no value, in one line; empty if there is one."""
        return self.died or (self.error or "").strip().rpartition("\n")[2]


def describe_exit(exitcode: int | None) -> str:
    """Why a worker ended in the middle of a session, for the user.

    >>> describe_exit(3)
    'the worker ended unexpectedly (exit code 3); see the log of the run'
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
    _make_room_for_sockets()
    multiprocessing.get_context("forkserver").set_forkserver_preload(list(preload))
    forkserver.ensure_running()


def _make_room_for_sockets() -> None:
    """Let multiprocessing make its sockets elsewhere if TMPDIR is too long for their paths.

    The path of a socket has 107 bytes (unix(7)); multiprocessing adds two names to TMPDIR.
    """
    settings = cast(Any, multiprocessing.current_process())._config
    if settings.get("tempdir") or len(os.fsencode(tempfile.gettempdir())) <= _LONGEST_TEMP:
        return
    for folder in _SHORT_FOLDERS:
        with contextlib.suppress(OSError):
            settings["tempdir"] = place = tempfile.mkdtemp(prefix="pymp-", dir=folder)
            util.Finalize(None, shutil.rmtree, args=[place, True], exitpriority=-100)
            return


def call_here(key: Hashable, function: Callable[..., object], *arguments: Any) -> CallResult:
    """Make a call in this process; its end is told as that of a call in a worker."""
    try:
        return CallResult(key, function(*arguments))
    except Exception:  # as in a worker, it costs its own call alone
        return CallResult(key, error=traceback.format_exc())


class WorkerPool:
    """Processes for calls; each is kept from call to call, with all it has loaded.

    ::

        with WorkerPool() as pool:
            pool.start("a", function, argument)
            [result] = pool.wait()

    Workers come from a server process that has loaded ``preload`` once, so a new one starts
    at once and shares the memory of the libraries. They ignore Ctrl-C, which goes to the whole
    terminal: the main process decides. They end when the main process is gone.

    Args:
        preload: modules that every worker needs; see :func:`warm_up`.
    """

    def __init__(self, preload: Sequence[str] = ()) -> None:
        self._preload = preload
        _make_room_for_sockets()
        self._context = multiprocessing.get_context("forkserver")
        self._idle: list[_Worker] = []
        self._busy: dict[Hashable, _Worker] = {}
        self._lost: list[CallResult] = []

    def __enter__(self) -> WorkerPool:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    @property
    def busy(self) -> int:
        """How many calls are under way."""
        return len(self._busy) + len(self._lost)

    def pids(self) -> list[int]:
        """The processes of this pool."""
        workers = [*self._idle, *self._busy.values()]
        return [worker.process.pid for worker in workers if worker.process.pid is not None]

    def start(self, key: Hashable, function: Callable[..., object], *arguments: Any) -> None:
        """Give a call to a worker; its result comes out of :meth:`wait`.

        Args:
            function: of a module, so that a worker can import it.
        """
        while self._idle:
            worker = self._idle.pop()
            if worker.take(function, arguments):
                self._busy[key] = worker
                return
            worker.end()  # it died between two calls
        try:
            warm_up(self._preload)
            worker = _Worker(self._context)
        except (OSError, EOFError) as error:
            self._lost.append(CallResult(key, died=f"no worker could be started ({error})"))
            return
        self._busy[key] = worker  # one that is dead already comes out of wait()
        worker.take(function, arguments)

    def wait(self) -> list[CallResult]:
        """Wait until a call ends; every call that has."""
        results, self._lost = self._lost, []
        if results or not self._busy:
            return results
        by_handle: dict[Any, Hashable] = {}
        for key, worker in self._busy.items():
            by_handle[worker.connection] = key
            by_handle[worker.process.sentinel] = key
        ended = {by_handle[handle]: None for handle in wait(list(by_handle))}
        for key in ended:
            worker = self._busy.pop(key)
            result = worker.result(key)
            results.append(result)
            if result.died:
                worker.end()
            else:
                self._idle.append(worker)
        return results

    def map_unordered(
        self, function: Callable[[Item], object], items: Sequence[Item], *, at_once: int
    ) -> Iterator[tuple[Item, CallResult]]:
        """Call a function with each item; each item with its result, in the order they end.

        A call that raises, or whose process dies, costs its own item alone. What runs one at a
        time runs in this process.

        Args:
            function: of a module, so that a worker can import it.
            at_once: how many calls are under way at the same time.
        """
        if at_once < 2 or len(items) < 2:
            for number, item in enumerate(items):
                yield item, call_here(number, function, item)
            return
        waiting = iter(enumerate(items))
        left = len(items)
        while left:
            while self.busy < at_once and (numbered := next(waiting, None)) is not None:
                self.start(numbered[0], function, numbered[1])
            for result in self.wait():
                left -= 1
                yield items[cast(int, result.key)], result

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
        self.connection, worker_end = context.Pipe()
        self.process = context.Process(target=_serve, args=(worker_end,), daemon=True)
        try:
            self.process.start()
        finally:
            worker_end.close()  # so that its end is seen here when the process is gone

    def take(self, function: Callable[..., object], arguments: Sequence[Any]) -> bool:
        """Whether the process is there to take the call."""
        try:
            self.connection.send((function, arguments))
        except OSError:
            return False
        return True

    def result(self, key: Hashable) -> CallResult:
        try:
            if self.connection.poll():
                value, error = self.connection.recv()
                return CallResult(key, value, error)
        except (OSError, EOFError):
            pass
        self.process.join(_GRACE)
        return CallResult(key, died=describe_exit(self.process.exitcode))

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
    """The life of a worker: calls come in; a value, or a traceback, goes out."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    while True:
        try:
            function, arguments = connection.recv()
        except EOFError:
            return
        try:
            answer = ForkingPickler.dumps((function(*arguments), None))
        except BaseException:  # whatever it is belongs to the call, not to the worker
            answer = ForkingPickler.dumps((None, traceback.format_exc()))
        connection.send_bytes(answer)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)

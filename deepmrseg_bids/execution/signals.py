"""A run that is told to stop: Ctrl-C, a scheduler's SIGTERM, a terminal that closes."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["interruptible", "undisturbed"]

_SIGNALS = (signal.SIGTERM, signal.SIGHUP)


@contextmanager
def interruptible() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end this process as Ctrl-C does, with a KeyboardInterrupt.

    A signal that is ignored (as under ``nohup``) stays ignored. Does nothing outside of the
    main thread, which alone may do this.
    """

    def stop(number: int, _: FrameType | None) -> None:
        raise KeyboardInterrupt(signal.Signals(number).name)

    with _handled(
        {number: stop for number in _SIGNALS if signal.getsignal(number) is signal.SIG_DFL}
    ):
        yield


@contextmanager
def undisturbed() -> Iterator[None]:
    """Finish a short piece of work first, whatever signal comes."""
    with _handled(dict.fromkeys((signal.SIGINT, *_SIGNALS), signal.SIG_IGN)):
        yield


@contextmanager
def _handled(handlers: dict[signal.Signals, object]) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}  # type: ignore[arg-type]
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

"""Signals that end a run as Ctrl-C does."""

import os
import signal

import pytest

from deepmrseg_bids.execution.signals import interruptible, undisturbed


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_a_signal_to_end_is_a_keyboard_interrupt(name):
    number = signal.Signals[name]
    before = signal.signal(number, signal.SIG_DFL)  # the tests may run under nohup
    try:
        with pytest.raises(KeyboardInterrupt, match=name), interruptible():
            os.kill(os.getpid(), number)
        assert signal.getsignal(number) == signal.SIG_DFL
    finally:
        signal.signal(number, before)


def test_a_signal_that_is_ignored_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with interruptible():
            os.kill(os.getpid(), signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_short_piece_of_work_is_finished_first(number):
    before = signal.getsignal(number)
    with undisturbed():
        os.kill(os.getpid(), number)
    assert signal.getsignal(number) == before

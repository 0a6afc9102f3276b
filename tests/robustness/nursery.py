"""Fork a run of ``deepmrseg-bids`` for each line of arguments (JSON) on standard input.

Prints ``ready``, and for each run its process id and, when it is gone, its exit code.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import sys

from deepmrseg_bids.app import participant
from deepmrseg_bids.cli import deepmrseg_bids
from deepmrseg_bids.execution import local_plugin, worker_pool
from deepmrseg_bids.reports import figures
from deepmrseg_bids.workflows import init_participant_wf

_LOADED = (participant, local_plugin, figures, init_participant_wf)


def say(word: object) -> None:
    """One line on standard output, at once."""
    sys.stdout.write(f"{word}\n")
    sys.stdout.flush()


def begin(arguments: list[str]) -> None:
    """Be a run; never returns."""
    os.setsid()
    silent = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silent, 1)
    code = 1
    try:
        code = deepmrseg_bids.main(arguments)
    finally:
        os._exit(code)


if __name__ == "__main__":
    fork = multiprocessing.get_context("fork")
    worker_pool.warm_up = lambda preload: None
    worker_pool.multiprocessing.get_context = lambda method: fork
    say("ready")
    for line in sys.stdin:
        if not (pid := os.fork()):
            begin(json.loads(line))
        say(pid)
        _, status = os.waitpid(pid, 0)
        say(os.waitstatus_to_exitcode(status))

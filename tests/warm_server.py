"""Fork a run of one of our commands for each request (a line of JSON) on standard input.

Prints ``ready``, and for each run its process id and, when it is gone, its exit code. What a run
needs is imported before it begins; a run is a session of its own, whose workers are forked from
it in turn.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
import tempfile
from typing import Any

from deepmrseg_bids.app import group, participant
from deepmrseg_bids.cli import deepmrseg, deepmrseg_bids
from deepmrseg_bids.execution import local_plugin, worker_pool
from deepmrseg_bids.reports import figures
from deepmrseg_bids.workflows import init_participant_wf

_LOADED = (participant, group, local_plugin, figures, init_participant_wf)
_MAIN = {"deepmrseg": deepmrseg.main, "deepmrseg_bids": deepmrseg_bids.main}


def say(word: object) -> None:
    """One line on standard output, at once."""
    sys.stdout.write(f"{word}\n")
    sys.stdout.flush()


def begin(asked: dict[str, Any]) -> None:
    """Be a run; never returns."""
    os.setsid()
    for number, name in ((0, os.devnull), (1, asked["out"]), (2, asked["err"])):
        place = os.open(name, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(place, number)
    os.environ.clear()
    os.environ.update(asked["environment"])
    os.chdir(asked["folder"])
    tempfile.tempdir = None  # TMPDIR may be another one
    code: object = 1
    try:
        code = _MAIN[asked["command"]](asked["arguments"])
    except SystemExit as error:
        code = error.code
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code if isinstance(code, int) else 1)


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

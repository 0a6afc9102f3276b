"""What both commands share: options that mean the same, logging, and the way out."""

from __future__ import annotations

import argparse
import logging
import os
import select
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from deepmrseg_bids.errors import DeepMRSegError, UsageError
from deepmrseg_bids.system import usable_cores
from deepmrseg_bids.wording import why

__all__ = ["EXIT_INTERRUPTED", "EXIT_USAGE", "add_compute_options", "both", "complete",
           "folder", "guarded", "model_paths", "positive", "set_up_logging",
           "thread_count"]  # fmt: skip

EXIT_USAGE = 2
EXIT_INTERRUPTED = 130


def both(*flags: str) -> list[str]:
    """Each flag, and behind a long one with hyphens its spelling with underscores.

    >>> both("-w", "--work-dir")
    ['-w', '--work-dir', '--work_dir']
    """
    spelled = []
    for flag in flags:
        spelled.append(flag)
        if flag.startswith("--") and "-" in flag[2:]:
            spelled.append("--" + flag[2:].replace("-", "_"))
    return spelled


def add_compute_options(parser: argparse._ActionsContainer, *, defaults: bool = True) -> None:
    """``--device``, ``--precision``, ``--omp-nthreads`` and ``--tta``.

    Args:
        defaults: without them an option that is not given leaves no value behind.
    """
    absent: dict[str, Any] = {} if defaults else {"default": argparse.SUPPRESS}
    auto = absent or {"default": "auto"}
    parser.add_argument("--device", **auto, metavar="{auto,cpu,cuda[:i]}",
                        help="device for the networks; cuda without a GPU is an error (default: "
                             "auto)")  # fmt: skip
    parser.add_argument("--precision", **auto, choices=("auto", "float32", "bfloat16"),
                        help="auto: bfloat16 if the hardware supports it, otherwise float32 "
                             "(default: auto)")  # fmt: skip
    parser.add_argument(*both("--omp-nthreads"), **absent, type=positive, metavar="N",
                        help="threads per process (default: the available cores, divided by the "
                             "number of parallel sessions)")  # fmt: skip
    parser.add_argument("--tta", **absent, action="store_true",
                        help="average over a left/right flip: slightly more accurate, doubles "
                             "the time of the networks")  # fmt: skip


def complete(parser: argparse.ArgumentParser) -> None:
    """Answer a shell that asks for completions, and end; otherwise do nothing."""
    if "_ARGCOMPLETE" in os.environ:
        import argcomplete

        argcomplete.autocomplete(parser)


def folder(text: str) -> Path:
    """The path of an output folder, for argparse; an empty one would be the current folder."""
    if not text.strip():
        raise argparse.ArgumentTypeError("an empty path was given (is a variable not set?)")
    return Path(text)


def positive(text: str) -> int:
    """A whole number of at least one, for argparse."""
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, got {text!r}")
    return value


def thread_count(asked: int | None) -> int:
    """The threads of one process: what was asked for, never more than there are cores."""
    cores = usable_cores()
    return min(asked or cores, cores)


def model_paths(entries: list[str]) -> dict[str, Path]:
    """``TASK=PATH`` entries as a mapping.

    >>> model_paths(["brain=/models/b"])
    {'brain': PosixPath('/models/b')}
    """
    models = {}
    for entry in entries:
        task, mark, path = entry.partition("=")
        if not mark or not path or not (task.isascii() and task.isalnum()):
            raise UsageError(
                "--model takes TASK=PATH: a task, or a name of letters and digits for one of "
                f"your own, and the folder of a bundle; got {entry!r}"
            )
        models[task] = Path(path)
    return models


def set_up_logging(verbosity: int) -> None:
    """Plain lines on standard error: warnings, more with ``-v``, fewer with ``-q``."""
    level = {-1: logging.ERROR, 0: logging.INFO}.get(verbosity, logging.DEBUG)
    if verbosity < -1:
        level = logging.CRITICAL
    logging.basicConfig(
        level=level, format="%(asctime)s %(levelname)s %(message)s", datefmt="%H:%M:%S", force=True
    )
    for noisy in ("matplotlib", "nibabel", "PIL", "asyncio", "fontTools"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


def guarded(command: Callable[[], int]) -> int:
    """Run a command; an error of ours or of a disk is one line and exit code 2, Ctrl-C is 130."""
    try:
        _check_current_folder()
        code = command()
        sys.stdout.flush()
    except (DeepMRSegError, OSError, MemoryError, UnicodeEncodeError) as error:
        if isinstance(error, BrokenPipeError) and _reader_went_away():
            return 0
        print(f"error: {why(error)}", file=sys.stderr)
        return EXIT_USAGE
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    return code


def _reader_went_away() -> bool:
    """Whether nobody reads our output any more; it is then written to nothing."""
    try:
        here = sys.stdout.fileno()
    except OSError:  # not a file, as in a notebook
        return False
    poll = select.poll()
    poll.register(here, 0)
    gone = any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))
    if gone:
        os.dup2(os.open(os.devnull, os.O_WRONLY), here)
    return gone


def _check_current_folder() -> None:
    """See that the current folder still exists: paths are relative to it.

    Raises:
        UsageError: it does not.
    """
    try:
        os.getcwd()
    except OSError as error:
        raise UsageError(
            "the current folder no longer exists; change to another folder and run again"
        ) from error

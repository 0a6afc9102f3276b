"""What TensorBoard shows of a run, for those who have it installed."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from deepmrseg_bids.errors import TrainingError

__all__ = ["Scalar", "event_writer", "find_tensorboard"]

Scalar = Callable[[str, float, int], None]
"""Notes a value: its name, the value, the step."""


def find_tensorboard() -> Any:
    """The class that writes events.

    Raises:
        TrainingError: the package is not installed.
    """
    try:
        return importlib.import_module("torch.utils.tensorboard").SummaryWriter
    except ImportError as error:
        raise TrainingError(
            "TensorBoard is not installed: pip install 'deepmrseg-bids[tensorboard]', "
            "or train without it"
        ) from error


@contextmanager
def event_writer(writer: Any, folder: Path, step: int) -> Iterator[Scalar]:
    """Write events into ``folder`` from the step after ``step`` on.

    Args:
        writer: the class from :func:`find_tensorboard`; None writes nothing.
    """
    if writer is None:
        yield lambda name, value, step: None
        return
    board = writer(str(folder), purge_step=step + 1)

    def scalar(name: str, value: float, step: int) -> None:
        if math.isfinite(value):
            board.add_scalar(name, value, step)

    try:
        yield scalar
    finally:
        board.close()

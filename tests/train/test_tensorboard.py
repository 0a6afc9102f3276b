"""Events for TensorBoard: what was written is what it reads."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from deepmrseg_bids.errors import TrainingError
from deepmrseg_bids.train.tensorboard import event_writer, find_tensorboard


def test_without_the_package_the_error_says_how_to_get_it(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(TrainingError, match=r"pip install 'deepmrseg-bids\[tensorboard\]'"):
        find_tensorboard()


def test_without_a_writer_nothing_is_written(tmp_path: Path) -> None:
    with event_writer(None, tmp_path / "tensorboard", 0) as scalar:
        scalar("loss", 1.0, 1)
    assert not (tmp_path / "tensorboard").exists()


def test_tensorboard_reads_what_was_written_and_a_resumed_run_once(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    writer = find_tensorboard()
    with event_writer(writer, tmp_path, 0) as scalar:
        for step, loss in ((1, 3.0), (2, 2.0), (3, 1.5)):
            scalar("loss", loss, step)
        scalar("dice/Cube", float("nan"), 3)
    with event_writer(writer, tmp_path, 2) as scalar:  # killed after a checkpoint at 2
        scalar("loss", 1.0, 3)
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    assert events.Tags()["scalars"] == ["loss"]
    assert [(e.step, e.value) for e in events.Scalars("loss")] == [(1, 3.0), (2, 2.0), (3, 1.0)]


def test_events_are_closed_when_training_fails(tmp_path: Path) -> None:
    closed = []

    class Board:
        def __init__(self, folder: str, purge_step: int) -> None:
            self.folder = folder

        def close(self) -> None:
            closed.append(self.folder)

    with pytest.raises(KeyboardInterrupt), event_writer(Board, tmp_path, 0):
        raise KeyboardInterrupt
    assert closed == [str(tmp_path)]

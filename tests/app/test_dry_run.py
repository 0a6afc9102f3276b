"""The plan of a dry run: what each session's row says, and the sum."""

import io
from pathlib import Path

import numpy as np
import pytest

from deepmrseg_bids.app import dry_run as module
from deepmrseg_bids.app.dry_run import (
    Planned,
    predict_sessions,
    summary,
    total_seconds,
    write_plan,
)
from deepmrseg_bids.errors import ImageReadError
from deepmrseg_bids.execution.cost_model import Cost, Speed
from deepmrseg_bids.imaging.grid import Grid
from deepmrseg_bids.inference.bundle import Preparation
from deepmrseg_bids.session.job import SessionJob, TaskOutcome
from tests.support import images_of

BUNDLES = {"brain": None, "icv": None, "outline": None}
SPEED = Speed({"brain": 1.0}, 0.1, {"brain": Preparation(2.0, "head")})


def job(subject="01", *, t1w=True, flair=False, tasks=("brain",), finished=()):
    raw = Path("/d")
    return SessionJob(
        subject, "1", raw,
        images_of(
            raw / f"sub-{subject}_T1w.nii.gz" if t1w else None,
            raw / "f_FLAIR.nii.gz" if flair else None,
        ),
        tasks,
        finished=tuple(TaskOutcome(task, "resumed") for task in finished),
    )  # fmt: skip


@pytest.fixture(autouse=True)
def heads(monkeypatch):
    """Every scan has 100 voxels along each edge, but that of sub-bad, which is broken."""

    def read(path, **_):
        if "bad" in path.name:
            raise ImageReadError(f"{path}: the file is empty")
        return Grid((100, 100, 100), np.eye(4))

    monkeypatch.setattr(module, "read_grid", read)


def rows(*jobs):
    planned, start = predict_sessions(jobs, BUNDLES, lambda: SPEED)
    stream = io.StringIO()
    write_plan(planned, stream, at_once=2, threads=1, start=start)
    *table, last = stream.getvalue().splitlines()
    header, *lines = [line.split("\t") for line in table]
    return [dict(zip(header, line, strict=True)) for line in lines], last


def test_a_session_to_do_has_its_images_tasks_time_and_memory():
    (row,), last = rows(job(flair=True))
    assert (row["participant_id"], row["session_id"]) == ("sub-01", "ses-1")
    assert (row["T1w"], row["FLAIR"]) == ("sub-01_T1w.nii.gz", "f_FLAIR.nii.gz")
    assert (row["tasks"], row["finished"], row["left_out"]) == ("brain", "n/a", "n/a")
    assert int(row["seconds"]) > 1 and int(row["memory_mib"]) > 500
    assert last.startswith(
        "# 1 of 1 session to process, 0 completed, 0 not possible; 2 in parallel"
    )


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        (job(t1w=False), "brain: the session has no T1w image"),
        (job(tasks=("wml",)), "wml: wml requires a FLAIR, but the session has none"),
        (job(tasks=("wml",), flair=True), "wml: wml: no model is installed"),
        (job("bad"), "brain: /d/sub-bad_T1w.nii.gz: the file is empty"),
    ],
)
def test_what_cannot_be_done_has_its_reason_and_costs_nothing(asked, reason):
    (row,), last = rows(asked)
    assert row["left_out"] == reason
    assert (row["tasks"], row["seconds"], row["memory_mib"]) == ("n/a", "n/a", "n/a")
    assert last == "# 0 of 1 session to process, 0 completed, 1 not possible"


def test_one_reason_for_several_tasks_is_said_once():
    (row,), _ = rows(job(t1w=False, tasks=("brain", "deepbrain")))
    assert row["left_out"] == "brain deepbrain: the session has no T1w image"


def test_finished_work_is_named_and_costs_nothing():
    (row,), last = rows(job(tasks=(), finished=("brain",)))
    assert (row["tasks"], row["finished"], row["seconds"]) == ("n/a", "brain", "n/a")
    assert last == "# 0 of 1 session to process, 1 completed, 0 not possible"


def test_the_machine_is_measured_once_and_only_if_there_is_something_to_do():
    asked = []

    def speed():
        asked.append(1)
        return SPEED

    predict_sessions([job(tasks=(), finished=("brain",)), job(t1w=False)], BUNDLES, speed)
    assert not asked
    predict_sessions([job("01"), job("02")], BUNDLES, speed)
    assert len(asked) == 1


def test_sessions_share_the_places_there_are():
    costs = [Cost(seconds, 1) for seconds in (10, 1, 1, 1, 7)]
    assert total_seconds(costs, 1) == 20
    assert total_seconds(costs, 2) == 10
    assert total_seconds(costs, 9) == 10


def test_the_memory_of_a_run_is_that_of_its_largest_sessions_at_once():
    planned = [Planned(job(), {}, Cost(60, mib)) for mib in (1024, 2048, 3072)]
    assert "2 in parallel with 3 threads each: about 2 min and 5.0 GB" in summary(
        planned, at_once=2, threads=3, start=5
    )


def test_a_terminal_gets_columns():
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    stream = Terminal()
    planned, start = predict_sessions([job(), job("0123")], BUNDLES, lambda: SPEED)
    write_plan(planned, stream, at_once=1, threads=1, start=start)
    header, one, other, _ = stream.getvalue().splitlines()
    assert "\t" not in stream.getvalue()
    assert header.index("T1w") == one.index("sub-01_T1w") == other.index("sub-0123_T1w")

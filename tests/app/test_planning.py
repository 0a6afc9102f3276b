"""What a run does: which sessions and pages are left, and what they take."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from deepmrseg_bids.app import request as request_module
from deepmrseg_bids.app.planning import Plan, make_plan
from deepmrseg_bids.app.request import Request
from deepmrseg_bids.bids.provenance import Digests
from deepmrseg_bids.bids.query import Session
from deepmrseg_bids.config import RunConfig
from deepmrseg_bids.execution.runner import Limits
from deepmrseg_bids.imaging.grid import Grid
from deepmrseg_bids.session.job import SessionJob, TaskOutcome
from deepmrseg_bids.session.resume import FinishedWork
from tests.support import images_of

BUNDLES = dict.fromkeys(
    ("brain", "icv", "outline", "deepbrain", "hippocampus", "sides", "wholebrain", "wml")
)


def job(subject, *, tasks=("brain",), finished=()):
    done = tuple(TaskOutcome(task, "resumed") for task in finished)
    return SessionJob(subject, None, Path("/d"), images_of("/d/t.nii.gz"), tasks, finished=done)


@pytest.fixture
def config(tmp_path):
    def make(**changes):
        return RunConfig(Path("/d"), tmp_path, "participant", **changes)

    return make


@pytest.fixture
def plan(config, tmp_path):
    def make(jobs, **changes):
        work = FinishedWork(tmp_path, BUNDLES, Digests(tmp_path / "inputs.tsv"))
        return Plan(Request(config(**changes), BUNDLES), tuple(jobs), work, Limits(1, 1, 1.0))

    return make


def test_a_larger_scan_is_expected_to_take_more_memory(monkeypatch, config):
    def memory(images, edge=256):
        grid = Grid((edge,) * 3, np.eye(4))
        monkeypatch.setattr(request_module, "read_grid", lambda path, **_: grid)
        asked = config(tasks=("brain",), precision="float32")
        [planned] = make_plan(Request(asked, BUNDLES, (), [Session("01", None, images)])).jobs
        return planned.memory_gb

    small, large = (memory(images_of("/d/sub-01_T1w.nii.gz"), edge) for edge in (256, 512))
    assert 0.4 < small < large < 4
    assert 0 < memory({}) < small


@pytest.mark.parametrize(
    ("reports", "pages", "busy"),
    [(True, ("01", "02"), ["01", "01"]), (True, ("01",), ["01", "01", "02"]),
     (False, (), ["01", "01"])],
)  # fmt: skip
def test_a_subject_with_nothing_to_do_but_a_page_gets_its_page(
    plan, tmp_path, reports, pages, busy
):
    for subject in pages:
        (tmp_path / f"sub-{subject}.html").write_text("</html>")
    jobs = [job("01"), job("01", tasks=(), finished=("brain",)),
            job("02", tasks=(), finished=("brain",))]  # fmt: skip
    made = plan(jobs, reports=reports)
    assert [scheduled.subject for scheduled in made.scheduled] == busy
    assert [left.subject for left in made.to_do] == ["01"]


def test_pages_alone_are_made_of_sessions_that_have_results(plan):
    jobs = [job("01", tasks=(), finished=("brain",)), job("02", tasks=())]
    made = plan(jobs, reports_only=True)
    assert [scheduled.subject for scheduled in made.scheduled] == ["01"]


@pytest.mark.parametrize("age", [-1, 1])
def test_a_page_that_is_older_than_a_result_is_written_again(plan, tmp_path, age):
    page, file = tmp_path / "sub-01.html", tmp_path / "a.json"
    for place, time in ((page, 100), (file, 100 - age)):
        place.write_text("</html>")
        os.utime(place, (time, time))
    done = (TaskOutcome("brain", "resumed", files=("a.json",)),)
    made = plan([replace(job("01", tasks=()), finished=done)])
    assert bool(made.scheduled) == (age < 0)


def test_sessions_of_a_subject_stay_in_one_batch(plan):
    made = plan([job(subject) for subject in "aaabbcde"])
    batches = [[planned.subject for planned in batch] for batch in made.batches(2)]
    assert batches == [["a", "a", "a"], ["b", "b"], ["c", "d"], ["e"]]


@pytest.mark.parametrize(
    ("options", "limits"),
    [
        ({"nprocs": 1}, (1, 1)),
        ({"nprocs": 1, "omp_nthreads": 1, "low_mem": True}, (1, 1)),
    ],
)
def test_a_run_takes_the_cores_and_memory_it_was_given(config, options, limits):
    asked = config(tasks=("brain",), precision="float32", mem=2048, **options)
    made = make_plan(Request(asked, BUNDLES, (), [Session("01", None, {})])).limits
    assert (made.cores, made.threads, made.memory_gb) == (*limits, 2.0)

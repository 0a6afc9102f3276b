"""Decisions of the participant level: what is done, and what the run ends with."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from deepmrseg_bids.app import participant
from deepmrseg_bids.bids.outputs import SessionJob, TaskOutcome
from deepmrseg_bids.bids.query import Session
from deepmrseg_bids.bids.tables import SessionRow, write_sessions
from deepmrseg_bids.config import RunConfig
from deepmrseg_bids.errors import UsageError

BUNDLES = dict.fromkeys(("brain", "deepbrain", "hippocampus", "wml"))


def rows(*statuses):
    return [SessionRow("sub-01", "n/a", "brain", status) for status in statuses]


@pytest.mark.parametrize(
    ("statuses", "code"),
    [
        (["done"], 0),
        (["done", "resumed"], 0),
        (["resumed"], 0),
        (["done", "failed"], 3),
        (["done", "skipped"], 3),
        (["resumed", "failed"], 3),
        (["failed"], 4),
        (["skipped", "failed"], 4),
        ([], 4),
    ],
)
def test_the_exit_code_says_whether_all_some_or_nothing_was_done(statuses, code):
    assert participant._exit_code(rows(*statuses)) == code


def config(**changes):
    return RunConfig(Path("/d"), Path("/o"), "participant", **changes)


@pytest.mark.parametrize(
    ("flair", "expected"),
    [
        (None, ("brain", "deepbrain", "hippocampus")),
        (Path("/f.nii.gz"), ("brain", "deepbrain", "hippocampus", "wml")),
    ],
)
def test_by_default_lesions_are_looked_for_where_there_is_a_flair(flair, expected):
    session = Session("01", None, Path("/t.nii.gz"), flair)
    assert participant._tasks(config(), session, BUNDLES) == expected


def test_by_default_a_task_without_a_model_is_left_out():
    session = Session("01", None, Path("/t.nii.gz"), Path("/f.nii.gz"))
    assert participant._tasks(config(), session, {"brain": None}) == ("brain",)


def test_what_is_asked_for_is_tried_so_that_its_absence_gets_a_reason():
    session = Session("01", None, Path("/t.nii.gz"), None)
    assert participant._tasks(config(tasks=("wml",)), session, {"brain": None}) == ("wml",)


def test_a_model_of_another_task_is_refused_before_any_work(monkeypatch):
    opened = SimpleNamespace(task="wml", path=Path("/m"))
    monkeypatch.setattr(participant.ModelBundle, "open", lambda _: opened)
    with pytest.raises(UsageError, match="--model brain=/m: a model of 'wml'"):
        participant._bundles(config(tasks=("brain",), models=(("brain", Path("/m")),)))


@pytest.mark.parametrize("text", ["{", "[]", '"t1w"'])
def test_a_filter_file_that_holds_no_object_is_refused(tmp_path, text):
    path = tmp_path / "filter.json"
    path.write_text(text)
    with pytest.raises(UsageError, match="--bids-filter-file"):
        participant._filters(path)


def test_a_filter_file_is_read(tmp_path):
    path = tmp_path / "filter.json"
    path.write_text('{"t1w": {"acquisition": "mprage"}}')
    assert participant._filters(path) == {"t1w": {"acquisition": "mprage"}}
    assert participant._filters(None) is None


def test_a_larger_scan_is_expected_to_take_more_memory(monkeypatch):
    from deepmrseg_bids import image

    session = Session("01", None, Path("/t.nii.gz"), None)
    monkeypatch.setattr(image, "voxel_count", lambda _: 512**3)
    large = participant._memory_gb(session)
    monkeypatch.setattr(image, "voxel_count", lambda _: 256**3)
    assert large > participant._memory_gb(session) > 1
    assert participant._memory_gb(Session("01", None, None, None)) > 0


def job(subject, *, tasks=("brain",), finished=()):
    done = tuple(TaskOutcome(task, "resumed") for task in finished)
    return SessionJob(subject, None, Path("/d"), Path("/d/t.nii.gz"), None, tasks, finished=done)


@pytest.mark.parametrize(
    ("reports", "pages", "busy"),
    [(True, ("01", "02"), ["01", "01"]), (True, ("01",), ["01", "01", "02"]),
     (False, (), ["01", "01"])],
)  # fmt: skip
def test_a_subject_with_nothing_to_do_but_a_page_gets_its_page(tmp_path, reports, pages, busy):
    for subject in pages:
        (tmp_path / f"sub-{subject}.html").touch()
    jobs = [job("01"), job("01", tasks=(), finished=("brain",)),
            job("02", tasks=(), finished=("brain",))]  # fmt: skip
    asked = replace(config(reports=reports), out_dir=tmp_path)
    assert [one.subject for one in participant._with_work(asked, jobs)] == busy


def test_a_session_whose_process_died_keeps_what_was_finished_before(tmp_path):
    outcome = participant._outcome(job("01", tasks=("wml",), finished=("brain",)), tmp_path)
    found = [(row.task, row.status) for row in participant._rows(outcome)]
    assert found == [("brain", "resumed"), ("wml", "failed")]


def test_a_resumed_task_keeps_what_it_took_when_it_was_done(tmp_path):
    table = tmp_path / "sessions.tsv"
    write_sessions(table, [SessionRow("sub-01", "", "brain", "done", "", 3.5, 900.0),
                           SessionRow("sub-01", "", "wml", "failed", "x", 9.0, 1.0)])  # fmt: skip
    now = [SessionRow("sub-01", "", "brain", "resumed"), SessionRow("sub-01", "", "wml", "resumed")]
    brain, wml = participant._merged(table, now)
    assert (brain.status, brain.seconds, brain.peak_mib) == ("resumed", 3.5, 900.0)
    assert (wml.status, wml.seconds) == ("resumed", None)

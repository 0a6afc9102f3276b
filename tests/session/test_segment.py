"""One session from its scan to its outcome: what a failure costs, and what is told."""

from dataclasses import replace
from pathlib import Path

from deepmrseg_bids.errors import SegmentationError, SkippedTask
from deepmrseg_bids.session import segment
from deepmrseg_bids.session.job import outcome_from_json
from deepmrseg_bids.session.segment import finished_session
from tests.session.conftest import published, segmentation
from tests.support import images_of


def test_an_unexpected_error_keeps_what_was_done_and_fails_the_rest(session, tmp_path):
    results = [
        ("brain", segmentation("brain")),
        ("deepbrain", ZeroDivisionError("by\n zero")),
        ("hippocampus", segmentation("hippocampus")),
    ]
    brain, *others = session(results).tasks
    assert brain.status == "done"
    assert all((tmp_path / "out" / name).stat().st_size for name in brain.files)
    assert [(task.task, task.status) for task in others] == [
        ("deepbrain", "failed"),
        ("hippocampus", "failed"),
    ]
    assert {task.reason for task in others} == {"unexpected ZeroDivisionError: by zero"}
    assert not any("hippocampus" in name for name in published(tmp_path))


def test_too_little_memory_says_what_to_do(session):
    (task,) = session([("brain", MemoryError())]).tasks
    assert task.status == "failed"
    assert task.reason.startswith("out of memory: request more memory")


def test_errors_of_ours_are_reasons_and_do_not_stop_other_tasks(session):
    results = [
        ("brain", SegmentationError("too\nsmall")),
        ("deepbrain", segmentation("deepbrain")),
        ("wml", SkippedTask("no FLAIR")),
    ]
    found = [(task.task, task.status, task.reason) for task in session(results).tasks]
    assert found == [
        ("brain", "failed", "too small"),
        ("deepbrain", "done", ""),
        ("wml", "skipped", "no FLAIR"),
    ]


def test_a_session_without_t1w_is_skipped(session, tmp_path):
    outcome = session(images={}, tasks=("brain", "wml"))
    assert outcome.images == {}
    assert [(task.status, task.reason) for task in outcome.tasks] == [
        ("skipped", "the session has no T1w image")
    ] * 2
    assert not (tmp_path / "out").exists()


def test_a_broken_image_fails_its_tasks(session, tmp_path):
    path = tmp_path / "raw" / "sub-01_T1w.nii.gz"
    path.write_bytes(b"no image")
    outcome = session(images=images_of(path), tasks=("brain", "deepbrain"))
    assert [task.status for task in outcome.tasks] == ["failed", "failed"]
    assert all(str(path) in task.reason for task in outcome.tasks)
    assert not any("unexpected" in task.reason for task in outcome.tasks)


def test_the_record_is_written_last_and_holds_the_outcome(session, tmp_path, monkeypatch):
    record = tmp_path / "records" / "outcome.json"
    seen = {}
    write = segment.write_text

    def watch(path, text):
        seen[Path(path)] = published(tmp_path)
        write(path, text)

    def leave(self, *given, leave=segment.Staging.__exit__):
        assert not record.exists()
        return leave(self, *given)

    monkeypatch.setattr(segment, "write_text", watch)
    monkeypatch.setattr(segment.Staging, "__exit__", leave)
    outcome = session([("brain", segmentation("brain"))], notes=("chosen",))
    assert seen == {record: set(outcome.tasks[0].files)}
    assert outcome_from_json(record.read_text()) == outcome
    assert outcome.notes == ("chosen",)


def test_the_time_and_the_memory_of_each_task_are_told(session):
    (task,) = session([("brain", segmentation("brain"))]).tasks
    assert task.seconds >= 0 and task.peak_mib > 1


def test_a_session_tells_what_was_finished_before_beside_what_it_did(session, again):
    finished = again()
    whole = finished_session(replace(again.job, tasks=(), finished=finished))
    assert (whole.tasks, whole.images) == (finished, {"T1w": str(again.job.t1w)})
    outcome = session([("hippocampus", segmentation("hippocampus"))], finished=finished)
    assert [(t.task, t.status) for t in outcome.tasks] == [
        ("brain", "resumed"), ("deepbrain", "resumed"), ("hippocampus", "done"),
    ]  # fmt: skip
    assert [digest.path for digest in outcome.inputs] == [str(again.job.t1w)]

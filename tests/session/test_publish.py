"""One session from its scan to its files: what is published, and what a failure leaves."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from deepmrseg_bids.errors import SegmentationError, SkippedTask
from deepmrseg_bids.findings import Finding
from deepmrseg_bids.imaging.grid import Grid
from deepmrseg_bids.imaging.labels import Label, LabelTable
from deepmrseg_bids.imaging.nifti import LabelMap
from deepmrseg_bids.session import publish
from deepmrseg_bids.session.job import SessionJob, SessionOutcome, TaskOutcome, outcome_from_json
from deepmrseg_bids.session.publish import finished_session, finished_tasks, segment_session
from deepmrseg_bids.bids.provenance import Digests, FileDigest
from deepmrseg_bids.tasks.results import Measure, Posteriors, Segmentation

TABLE = LabelTable((Label(1, "Brain"),))
GRID = Grid((4, 5, 6), np.eye(4))
DARK = Finding("contrast-doubtful", "warning", "dark é")
STEM = "sub-01/ses-2/anat/sub-01_ses-2"


def segmentation(task, *findings):
    data = np.zeros(GRID.shape, np.uint8)
    data[1:3, 1:3, 1:3] = 1
    posteriors = np.stack([1.0 - data, data]).astype(np.float32)
    return Segmentation(
        task,
        LabelMap(data, GRID),
        TABLE,
        (Measure(1, "Brain", 8.0, 7.0, 9.0, 0.9),),
        (Posteriors(posteriors, GRID, (0, 1)),),
        findings,
        16.0,
    )


class Pool:
    """Predictors, as far as their versions go."""

    def __call__(self, task):
        bundle = SimpleNamespace(version="1", sha256=f"{task}-0123456789abcdef", labels=TABLE)
        return SimpleNamespace(bundle=bundle)


@pytest.fixture
def session(tmp_path, write_scan, monkeypatch):
    """Run one session whose tasks give these results; returns its outcome."""
    t1w = write_scan(
        "raw/sub-01/ses-2/anat/sub-01_ses-2_T1w.nii.gz",
        np.arange(120, dtype=np.uint8).reshape(4, 5, 6),
        GRID,
    )
    monkeypatch.setattr(publish, "prepare_process", lambda: None)
    monkeypatch.setattr(publish, "_pool", lambda *_: Pool())

    def segment(results=(), **changes):
        def run(*_, **__):
            for task, result in results:
                if isinstance(result, Exception) and not isinstance(
                    result, (SegmentationError, SkippedTask)
                ):
                    raise result
                yield task, result

        monkeypatch.setattr(publish, "run", run)
        job = {"subject": "01", "session": "2", "bids_dir": tmp_path / "raw", "t1w": t1w,
               "flair": None, "tasks": tuple(task for task, _ in results)}  # fmt: skip
        return segment_session(
            SessionJob(**(job | changes)),
            tmp_path / "out",
            work=tmp_path / "work",
            record=tmp_path / "records" / "outcome.json",
        )

    return segment


def published(root):
    out = root / "out"
    return {str(p.relative_to(out)) for p in out.rglob("*") if p.is_file()}


def test_an_outcome_comes_back_from_its_text():
    outcome = SessionOutcome(
        "01",
        None,
        "/d/sub-01_T1w.nii.gz",
        (
            TaskOutcome("brain", "done", "", 1.5, 300.0, ("a", "b"), (DARK,), "1 abc"),
            TaskOutcome("wml", "skipped", 'no "FLAIR"'),
        ),
        findings=(DARK,),
        notes=("n", "m"),
        inputs=(FileDigest("/d/sub-01_T1w.nii.gz", 12, 34, "abc"),),
    )
    assert outcome_from_json(outcome.to_json()) == outcome
    nothing = SessionOutcome("01", "2", None, ())
    assert outcome_from_json(nothing.to_json()) == nothing


@pytest.mark.parametrize(("label", "name"), [("2", "sub-01_ses-2"), (None, "sub-01")])
def test_a_job_has_the_name_of_its_session(label, name):
    assert SessionJob("01", label, Path("/d"), None, None, ()).name == name


@pytest.mark.parametrize("probabilities", [False, True])
def test_exactly_the_files_that_are_named_are_published(session, tmp_path, probabilities):
    results = [("brain", segmentation("brain")), ("deepbrain", segmentation("deepbrain"))]
    outcome = session(results, probabilities=probabilities)
    assert [(task.task, task.status) for task in outcome.tasks] == [
        ("brain", "done"),
        ("deepbrain", "done"),
    ]
    endings = ["desc-brain_mask", "seg-brain_morph", "seg-deepbrain_dseg", "seg-deepbrain_morph"]
    if probabilities:
        endings.append("seg-deepbrain_probseg")
    expected = {f"{STEM}_{ending}.json" for ending in endings}
    expected |= {f"{STEM}_{ending}.{'tsv' if 'morph' in ending else 'nii.gz'}"
                 for ending in endings}  # fmt: skip
    files = published(tmp_path)
    assert expected <= files
    assert files == {name for task in outcome.tasks for name in task.files}
    if not probabilities:
        assert files == expected
    assert list((tmp_path / "work").iterdir()) == []


def test_a_sidecar_names_sources_models_and_findings(session, tmp_path):
    outcome = session([("deepbrain", segmentation("deepbrain", DARK))])
    tree = json.loads((tmp_path / "out" / f"{STEM}_seg-deepbrain_dseg.json").read_text())
    uri = "bids:raw:sub-01/ses-2/anat/sub-01_ses-2_T1w.nii.gz"
    assert tree["Sources"] == [uri] == list(tree["InputSHA256"])
    assert tree["SpatialReference"] == uri
    assert set(tree["Models"]) == {"brain", "deepbrain"}
    assert "dark é" in tree["Warnings"]
    assert DARK.to_json() in tree["Findings"]
    assert tree["Parameters"] == {"Precision": "float32", "FlipAveraging": False}
    assert outcome.tasks[0].model == "1 deepbrain-01"
    assert DARK in outcome.tasks[0].findings


def test_volumes_are_told_as_a_share_of_the_brain(session, tmp_path):
    session([("deepbrain", segmentation("deepbrain"))])
    header, row = (
        (tmp_path / "out" / f"{STEM}_seg-deepbrain_morph.tsv").read_text().strip().split("\n")
    )
    found = dict(zip(header.split("\t"), row.split("\t"), strict=True))
    assert float(found["volume_icv_percent"]) == pytest.approx(50)
    assert float(found["volume_mm3"]) == pytest.approx(8)


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
    assert task.reason.startswith("out of memory: give the job more")


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
    outcome = session(t1w=None, tasks=("brain", "wml"))
    assert outcome.t1w is None
    assert [(task.status, task.reason) for task in outcome.tasks] == [
        ("skipped", "the session has no T1w image")
    ] * 2
    assert not (tmp_path / "out").exists()


def test_a_broken_image_fails_its_tasks(session, tmp_path):
    path = tmp_path / "raw" / "sub-01_T1w.nii.gz"
    path.write_bytes(b"no image")
    outcome = session(t1w=path, tasks=("brain", "deepbrain"))
    assert [task.status for task in outcome.tasks] == ["failed", "failed"]
    assert all(str(path) in task.reason for task in outcome.tasks)
    assert not any("unexpected" in task.reason for task in outcome.tasks)


def test_the_record_is_written_last_and_holds_the_outcome(session, tmp_path, monkeypatch):
    record = tmp_path / "records" / "outcome.json"
    seen = {}
    write = publish.write_text

    def watch(path, text):
        seen[Path(path)] = published(tmp_path)
        write(path, text)

    def leave(self, *given, leave=publish.Staging.__exit__):
        assert not record.exists()
        return leave(self, *given)

    monkeypatch.setattr(publish, "write_text", watch)
    monkeypatch.setattr(publish.Staging, "__exit__", leave)
    outcome = session([("brain", segmentation("brain"))], notes=("chosen",))
    assert seen == {record: set(outcome.tasks[0].files)}
    assert outcome_from_json(record.read_text()) == outcome
    assert outcome.notes == ("chosen",)


def test_the_time_and_the_memory_of_each_task_are_told(session):
    (task,) = session([("brain", segmentation("brain"))]).tasks
    assert task.seconds >= 0 and task.peak_mib > 1


def test_the_same_scan_gives_the_same_bytes(session, tmp_path):
    session([("deepbrain", segmentation("deepbrain"))], probabilities=True)
    before = {name: (tmp_path / "out" / name).read_bytes() for name in published(tmp_path)}
    for name in before:
        (tmp_path / "out" / name).unlink()
    session([("deepbrain", segmentation("deepbrain"))], probabilities=True)
    assert before == {name: (tmp_path / "out" / name).read_bytes() for name in published(tmp_path)}


BUNDLES = {task: Pool()(task).bundle for task in ("brain", "deepbrain", "hippocampus")}


@pytest.fixture
def again(session, tmp_path):
    """What a second run takes for finished, after a first one of brain and deepbrain."""
    outcome = session([(task, segmentation(task, DARK)) for task in ("brain", "deepbrain")])
    job = SessionJob("01", "2", tmp_path / "raw", Path(outcome.t1w), None,
                     ("brain", "deepbrain", "hippocampus"), precision="float32")  # fmt: skip

    def ask(bundles=BUNDLES, **changes):
        digests = Digests(tmp_path / "inputs.tsv")
        return finished_tasks(replace(job, **changes), tmp_path / "out", bundles, digests)

    ask.job, ask.outcome = job, outcome
    return ask


def test_what_was_done_is_finished_and_the_rest_is_not(again):
    found = again()
    assert [(t.task, t.status) for t in found] == [("brain", "resumed"), ("deepbrain", "resumed")]
    for now, before in zip(found, again.outcome.tasks, strict=True):
        assert now.files == before.files
        assert now.model == before.model
        assert now.findings == before.findings


def test_another_input_is_not_finished(again):
    again.job.t1w.write_bytes(again.job.t1w.read_bytes() + b"\0")
    assert again() == ()
    again.job.t1w.unlink()
    assert again() == ()


@pytest.mark.parametrize(
    "changes",
    [{"flips": True}, {"precision": "bfloat16"}, {"probabilities": True}, {"t1w": None}],
)
def test_other_parameters_are_not_finished(again, changes):
    assert again(**changes) == ()


def test_a_new_model_undoes_what_it_is_used_for(again):
    new = SimpleNamespace(version="2", sha256="new", labels=TABLE)
    assert [t.task for t in again({**BUNDLES, "deepbrain": new})] == ["brain"]
    assert again({**BUNDLES, "brain": new}) == ()


def test_another_version_of_the_software_makes_it_again(again, monkeypatch):
    monkeypatch.setattr(publish, "__version__", "0.0.other")
    assert again() == ()


def test_a_table_that_is_gone_is_made_again(again, tmp_path):
    (tmp_path / "out" / f"{STEM}_seg-brain_morph.tsv").unlink()
    assert [t.task for t in again()] == ["deepbrain"]


def test_a_session_tells_what_was_finished_before_beside_what_it_did(session, again):
    finished = again()
    whole = finished_session(replace(again.job, tasks=(), finished=finished))
    assert (whole.tasks, whole.t1w) == (finished, str(again.job.t1w))
    outcome = session([("hippocampus", segmentation("hippocampus"))], finished=finished)
    assert [(t.task, t.status) for t in outcome.tasks] == [
        ("brain", "resumed"), ("deepbrain", "resumed"), ("hippocampus", "done"),
    ]  # fmt: skip
    assert [digest.path for digest in outcome.inputs] == [str(again.job.t1w)]

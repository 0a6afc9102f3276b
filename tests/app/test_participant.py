"""The participant level as a whole: what the sessions' processes come to is what is told."""

from dataclasses import replace
from pathlib import Path

import pytest

from deepmrseg_bids.app import participant, request
from deepmrseg_bids.app.participant import run_participant
from deepmrseg_bids.bids.query import Session
from deepmrseg_bids.bids.tables import read_sessions
from deepmrseg_bids.config import RunConfig
from deepmrseg_bids.execution.nodes import NodeResult
from deepmrseg_bids.session.job import SessionOutcome, TaskOutcome
from tests.support import images_of


@pytest.fixture
def study(monkeypatch, tmp_path):
    """Three sessions without scans on disk; how the nodes end is given to ``run``."""
    (tmp_path / "raw").mkdir()
    sessions = [
        Session(label, None, images_of(tmp_path / "raw" / f"sub-{label}_T1w.nii.gz"))
        for label in ("01", "02", "03")
    ]
    monkeypatch.setattr(request, "find_sessions", lambda *_, **__: sessions)

    def run(*ends, **changes):
        def execute(workflows, settings):
            for end in ends:
                if isinstance(end, BaseException):
                    raise end
                yield end

        monkeypatch.setattr(participant, "execute", execute)
        asked = RunConfig(Path("/d"), Path("/o"), "participant", tasks=("brain",), reports=False,
                          precision="float32", **changes)  # fmt: skip
        asked = replace(asked, bids_dir=tmp_path / "raw", out_dir=tmp_path / "out")
        return run_participant(asked, command="")

    run.rows = lambda: {
        row.participant_id: (row.status, row.reason)
        for row in read_sessions(tmp_path / "out" / "logs" / "sessions.tsv")
    }
    return run


def ended(label, status="done", reason=""):
    outcome = SessionOutcome(label, None, {}, (TaskOutcome("brain", status, reason),))
    return NodeResult("segment", f"sub-{label}", outcome)


def died(label, reason="the worker was killed"):
    return NodeResult("segment", f"sub-{label}", None, reason)


def test_sessions_that_are_done_are_all_that_was_asked_for(study):
    assert study(ended("01"), ended("02"), ended("03")) == 0
    assert set(study.rows().values()) == {("done", "")}


def test_a_session_that_fails_or_dies_is_told_with_its_reason(study, caplog):
    assert study(ended("01"), ended("02", "failed", "no signal"), died("03")) == 3
    assert study.rows() == {
        "sub-01": ("done", ""), "sub-02": ("failed", "no signal"),
        "sub-03": ("failed", "the worker was killed"),
    }  # fmt: skip
    assert "sub-03: brain failed: the worker was killed" in caplog.messages


def test_a_node_that_is_no_session_costs_no_session(study, caplog):
    page = NodeResult("batch_0_wf.sub_01_0_wf.report", reason="unexpected KeyError: 'x'")
    assert study(ended("01"), page, ended("02"), ended("03")) == 3  # a report is missing
    assert {status for status, _ in study.rows().values()} == {"done"}
    assert "report not written: unexpected KeyError: 'x'" in caplog.messages


def test_an_interrupted_run_tells_what_was_done_before(study):
    with pytest.raises(KeyboardInterrupt):
        study(ended("01"), died("02"), KeyboardInterrupt())
    rows = study.rows()
    assert (rows["sub-01"], rows["sub-02"]) == (("done", ""), ("failed", "the worker was killed"))
    assert rows["sub-03"][0] == "failed" and "interrupted" in rows["sub-03"][1]


@pytest.mark.parametrize(("stop", "status"), [(True, "skipped"), (False, "failed")])
def test_after_a_failure_what_was_not_begun_is_skipped_if_that_was_asked_for(study, stop, status):
    study(ended("01"), died("02"), stop_on_first_crash=stop)
    assert study.rows()["sub-03"][0] == status


def test_a_shard_without_sessions_is_done_and_leaves_nothing(study, tmp_path, caplog):
    caplog.set_level("INFO")
    assert study(shard="4/4") == 0
    assert "shard 4/4: contains no sessions" in caplog.text
    assert not (tmp_path / "out" / "logs").exists()

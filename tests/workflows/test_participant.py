"""The workflow: one node a session, a page a subject, and names that nipype takes."""

import os
import re
from dataclasses import replace
from pathlib import Path

import pytest

from deepmrseg_bids.execution.runner import prepare_nipype
from deepmrseg_bids.session.job import SessionJob, TaskOutcome


@pytest.fixture(scope="module")
def init(tmp_path_factory):
    """The workflows, by a nipype whose settings lie in a folder of this test."""
    before = dict(os.environ)
    prepare_nipype(tmp_path_factory.mktemp("nipype"))
    from deepmrseg_bids import workflows

    yield workflows
    os.environ.clear()
    os.environ.update(before)


def job(subject="01", session="1", **changes):
    return replace(
        SessionJob(subject, session, Path("/raw"), {}, ("brain",), memory_gb=2.5), **changes
    )


@pytest.fixture
def build(init, tmp_path):
    def make(jobs, **changes):
        settings = init.NodeSettings(
            tmp_path / "out", tmp_path / "records", {"brain": "abc"}, command="c", **changes
        )
        return init.init_participant_wf(jobs, settings)

    return make


def nodes(workflow, start):
    names = [name for name in workflow.list_node_names() if name.split(".")[-1].startswith(start)]
    return [workflow.get_node(name) for name in names]


JOBS = [job("01", "1"), job("01", "2", memory_gb=3.25), job("02", None)]


def test_every_session_has_one_node_with_its_threads_and_memory(build, tmp_path):
    found = nodes(build([replace(one, threads=3) for one in JOBS]), "segment")
    assert len(found) == len(JOBS)
    assert {node.n_procs for node in found} == {3}
    memory = {node.inputs.job.name: node.mem_gb for node in found}
    assert memory == {"sub-01_ses-1": 2.5, "sub-01_ses-2": 3.25, "sub-02": 2.5}
    for node in found:
        assert node.inputs.record == str(tmp_path / "records" / f"{node.inputs.job.name}.json")
        assert node.inputs.out_dir == str(tmp_path / "out")
        assert node.inputs.weights == {"brain": "abc"}


def test_a_finished_session_has_no_node_but_its_place_on_the_page(build, monkeypatch, tmp_path):
    from deepmrseg_bids.interfaces import report

    shown = []
    monkeypatch.setattr(
        report, "subject_page", lambda outcomes, out, command: shown.extend(outcomes) or out / "p"
    )
    done = (TaskOutcome("brain", "resumed", files=("a",)),)
    workflow = build([job("01", "1", tasks=(), finished=done)])
    assert nodes(workflow, "segment") == []
    workflow.base_dir = str(tmp_path / "w")
    workflow.run(plugin="Linear")
    assert [(one.session, one.tasks) for one in shown] == [("1", done)]


@pytest.mark.parametrize("reports", [True, False])
def test_a_subject_has_a_page_if_reports_are_wanted(build, reports):
    found = nodes(build(JOBS, reports=reports), "report")
    assert len(found) == (2 if reports else 0)
    assert all(node.inputs.command == "c" for node in found)


@pytest.mark.parametrize("label", ["a+b", "été", "1", "x-y", "a b", "<i>"])
def test_odd_labels_make_names_that_are_safe(build, label):
    workflow = build([job(label, label), job(label, None), job(label + "+", label)])
    for name in workflow.list_node_names():
        assert all(re.fullmatch(r"[0-9A-Za-z_]+", part) for part in name.split(".")), name
    assert len(nodes(workflow, "segment")) == 3


def test_labels_that_look_alike_keep_nodes_of_their_own(build):
    workflow = build([job("a+", "1+"), job("a+", "1_"), job("a_", "1+")])
    assert len({str(node) for node in nodes(workflow, "segment")}) == 3

"""One workflow after the other: what comes out, what stays, and when the run stops."""

from contextlib import closing

import networkx
import pytest

from deepmrseg_bids.execution import runner
from deepmrseg_bids.execution.runner import Limits, Settings
from tests.execution.fake_nodes import Inline, SessionNode


class Workflow:
    """Sessions that know nothing of one another; hands its graph to a plugin as nipype does."""

    def __init__(self, name, nodes):
        self.name, self.config, self.base_dir = name, {"execution": {}}, None
        self._graph = networkx.DiGraph()
        self._graph.add_nodes_from(nodes)

    def run(self, plugin):
        plugin.run(self._graph, config=self.config, updatehash=False)


@pytest.fixture
def execute(nipype, tmp_path, monkeypatch):
    """Run two workflows of three sessions each; ``made`` has all nodes, ``pool`` their workers."""
    pool, done = Inline(), []
    monkeypatch.setattr(runner, "WorkerPool", lambda preload: pool)

    def go(failing=(), **settings):
        nodes = [
            SessionNode(index, done, tmp_path, "failed" if index in failing else "done")
            for index in range(6)
        ]
        for name in ("a", "b"):
            (tmp_path / name).mkdir(exist_ok=True)
        workflows = [Workflow("a", nodes[:3]), Workflow("b", nodes[3:])]
        limits = Limits(cores=1, threads=1, memory_gb=10)
        return runner.execute(workflows, Settings(tmp_path, tmp_path / "logs", limits, **settings))

    go.pool, go.done = pool, done
    return go


def test_every_session_comes_out_with_its_name_and_outcome_when_it_has_ended(execute):
    names = []
    for result in execute():
        names.append(result.session)
        assert len(execute.done) == len(names), "no other has begun before this one is told"
        assert result.good and result.outcome.subject == result.session.removeprefix("sub-")
    assert names == [f"sub-{index}" for index in range(6)]
    assert execute.pool.ended


def test_a_session_that_fails_stops_nothing(execute):
    assert [result.good for result in execute(failing=[0])] == [False] + [True] * 5


@pytest.mark.parametrize(("failing", "ended"), [(1, 2), (2, 3), (4, 5)])
def test_if_asked_nothing_more_begins_once_a_session_has_failed(execute, failing, ended):
    assert len(list(execute(failing=[failing], stop_on_first_crash=True))) == ended


@pytest.mark.parametrize("keep", [True, False])
def test_the_folder_of_a_workflow_stays_if_it_is_to_be_kept(execute, tmp_path, keep):
    list(execute(keep=keep))
    assert (tmp_path / "a").exists() == (tmp_path / "b").exists() == keep


def test_a_run_that_is_left_early_ends_its_workers(execute):
    with closing(execute()) as results:
        next(results)
    assert execute.pool.ended
    assert execute.done == [0]

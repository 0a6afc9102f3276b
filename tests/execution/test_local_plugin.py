"""The plugin of this machine: order, limits, what a failure costs, and when nothing more begins."""

from types import SimpleNamespace

import networkx
import pytest

from deepmrseg_bids.execution.local_plugin import LocalPlugin
from tests.execution.fake_nodes import Inline, Node


@pytest.fixture
def run(nipype):
    """Run nodes that depend on one another; what was done, and the reason of each that ended."""

    def go(edges=(), *, nodes=3, pool=None, cores=2, memory_gb=10.0, stop=False, **settings):
        done, reasons, graph, pool = [], {}, networkx.DiGraph(), pool or Inline()
        made = [Node(index, done, **settings.get(f"n{index}", {})) for index in range(nodes)]
        graph.add_nodes_from(made)
        graph.add_edges_from((made[a], made[b]) for a, b in edges)
        plugin = LocalPlugin(pool, cores=cores, memory_gb=memory_gb)
        for result in plugin.run(graph):
            reasons[int(result.name.removeprefix("node_"))] = result.reason
            plugin.stopped |= stop and bool(result.reason)
        return SimpleNamespace(done=done, reasons=reasons, pool=pool)

    return go


def test_a_node_runs_after_those_it_needs(run):
    assert run([(2, 1), (1, 0)]).done == [2, 1, 0]


def test_what_becomes_ready_goes_before_what_waits(run):
    assert run([(0, 4)], nodes=5, cores=1).done == [0, 4, 1, 2, 3]


@pytest.mark.parametrize(
    ("limits", "at_once"),
    [({"cores": 2}, 2), ({"cores": 1}, 1), ({"cores": 9, "memory_gb": 2.5}, 2), ({"cores": 9}, 6)],
)
def test_no_more_run_at_once_than_cores_and_memory_allow(run, limits, at_once):
    ended = run(nodes=6, **limits)
    assert ended.pool.most == at_once
    assert ended.done == list(range(6))


def test_a_node_that_needs_more_than_there_is_runs_alone(run):
    ended = run(n1={"mem_gb": 99.0, "n_procs": 8}, cores=9)
    assert ended.done == [0, 1, 2]
    assert ended.pool.most == 1


def test_a_failure_costs_what_depends_on_it_and_nothing_else(run):
    ended = run([(0, 1)], nodes=4, n0={"fails": True})
    assert ended.done == [2, 3]
    assert ended.reasons == {0: "unexpected ValueError: no", 2: "", 3: ""}


def test_a_death_is_a_failure_with_its_reason(run):
    ended = run([(0, 1)], nodes=3, pool=Inline({0: "killed"}))
    assert ended.reasons == {0: "killed", 2: ""}


def test_when_it_is_told_to_stop_what_runs_is_waited_for(run):
    ended = run(nodes=6, n0={"fails": True}, stop=True)
    assert ended.reasons == {0: "unexpected ValueError: no", 1: ""}


def test_a_node_that_needs_no_worker_gets_none(run):
    ended = run([(0, 1), (1, 2)], n1={"here": True}, pool=Inline({1: "a worker would die"}))
    assert ended.done == [0, 1, 2]
    ended = run([(0, 1), (1, 2)], n1={"here": True, "fails": True})
    assert ended.reasons == {0: "", 1: "unexpected ValueError: no"}

"""The plugin: order, limits, what a failure costs, and when nothing more is begun."""

import logging
import os
from types import SimpleNamespace

import networkx
import pytest

from deepmrseg_bids.execution.runner import prepare_nipype
from deepmrseg_bids.execution.worker_pool import Answer


class Inline:
    """A crew that works here, at the time when it is waited for."""

    def __init__(self, deaths=()):
        self.deaths, self.calls, self.most = dict(deaths), [], 0

    @property
    def busy(self):
        return len(self.calls)

    def start(self, task, function, *arguments):
        self.calls.append((task, function, arguments))
        self.most = max(self.most, self.busy)

    def wait(self):
        if not self.calls:
            return []
        task, function, arguments = self.calls.pop(0)
        if task in self.deaths:
            return [Answer(task, died=self.deaths[task])]
        try:
            function(*arguments)
        except ValueError as error:
            return [Answer(task, error=f"Traceback\nValueError: {error}\n")]
        return [Answer(task)]


class Node:
    def __init__(self, index, done, n_procs=1, mem_gb=1.0, fails=False, here=False):
        self.run_without_submitting = here
        self.index, self.n_procs, self.mem_gb = index, n_procs, mem_gb
        self._done, self._fails = done, fails

    def run(self, updatehash):
        if self._fails:
            raise ValueError("no")
        self._done.append(self.index)


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Run nodes that depend on one another; returns what was done and what was told."""
    before = dict(os.environ)
    prepare_nipype(tmp_path)
    from deepmrseg_bids.execution import local_plugin

    monkeypatch.setattr(local_plugin, "report_crash", lambda *_, **__: None)

    def go(edges=(), *, nodes=3, crew=None, cores=2, memory_gb=10.0, stop=None, **settings):
        done, told, graph, crew = [], [], networkx.DiGraph(), crew or Inline()
        made = [Node(index, done, **settings.get(f"n{index}", {})) for index in range(nodes)]
        graph.add_nodes_from(made)
        graph.add_edges_from((made[a], made[b]) for a, b in edges)

        def ended(node, reason):
            told.append((node.index, reason))

        asked = (lambda: stop(told)) if stop else (lambda: False)
        local_plugin.CrewPlugin(crew, cores, memory_gb, ended, asked).run(graph, {})
        return SimpleNamespace(done=done, told=dict(told), crew=crew)

    yield go
    os.environ.clear()
    os.environ.update(before)
    logging.getLogger("nipype").handlers.clear()


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
    assert ended.crew.most == at_once
    assert ended.done == list(range(6))


def test_a_node_that_needs_more_than_there_is_runs_alone(run):
    ended = run(n1={"mem_gb": 99.0, "n_procs": 8}, cores=9)
    assert ended.done == [0, 1, 2]
    assert ended.crew.most == 1


def test_a_failure_costs_what_depends_on_it_and_nothing_else(run):
    ended = run([(0, 1)], nodes=4, n0={"fails": True})
    assert ended.done == [2, 3]
    assert ended.told == {0: "unexpected ValueError: no", 2: "", 3: ""}


def test_a_death_is_a_failure_with_its_reason(run):
    ended = run([(0, 1)], nodes=3, crew=Inline({0: "killed"}))
    assert ended.told == {0: "killed", 2: ""}


def test_when_it_is_told_to_stop_what_runs_is_waited_for(run):
    ended = run(nodes=6, n0={"fails": True}, stop=lambda told: any(reason for _, reason in told))
    assert ended.told == {0: "unexpected ValueError: no", 1: ""}


def test_a_node_that_needs_no_worker_gets_none(run):
    ended = run([(0, 1), (1, 2)], n1={"here": True}, crew=Inline({1: "a worker would die"}))
    assert ended.done == [0, 1, 2]
    ended = run([(0, 1), (1, 2)], n1={"here": True, "fails": True})
    assert ended.told == {0: "", 1: "unexpected ValueError: no"}

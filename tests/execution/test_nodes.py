"""How a node ended, and which can run."""

import networkx
import pytest

from deepmrseg_bids.execution.nodes import NodeResult, ReadyNodes, called_result
from deepmrseg_bids.execution.worker_pool import CallResult
from tests.execution.fake_nodes import Node, SessionNode


@pytest.mark.parametrize(("status", "good"), [("done", True), ("skipped", True), ("failed", False)])
def test_a_session_ends_well_if_none_of_its_tasks_failed(tmp_path, status, good):
    node = SessionNode(1, [], tmp_path, status)
    node.run()
    result = NodeResult.of(node)
    assert (result.session, result.reason, result.good) == ("sub-1", "", good)
    assert [task.status for task in result.outcome.tasks] == [status]


@pytest.mark.parametrize("text", [None, "", "{}", '{"tasks": []}'])
def test_a_session_without_an_outcome_has_not_ended_well(tmp_path, text):
    if text is not None:
        (tmp_path / "sub-1.json").write_text(text)
    result = NodeResult.of(SessionNode(1, [], tmp_path))
    assert result.outcome is None and not result.good


def test_a_session_whose_process_died_has_not_ended_well_whatever_it_wrote(tmp_path):
    node = SessionNode(1, [], tmp_path)
    node.run()
    result = NodeResult.of(node, "killed")
    assert not result.good and result.outcome is not None


def test_other_nodes_are_no_sessions():
    assert NodeResult.of(Node(1, [])) == NodeResult("node_1")
    assert NodeResult.of(Node(1, [])).good and not NodeResult.of(Node(1, []), "no").good


@pytest.mark.parametrize(
    ("call", "reason", "crashes"),
    [
        (CallResult(0, None), "", 0),
        (CallResult(0, died="the worker was killed"), "the worker was killed", 0),
        (CallResult(0, error="Traceback\n  ...\nKeyError: 'x'\n"), "unexpected KeyError: 'x'", 1),
        (CallResult(0, error="T\ndeepmrseg_bids.errors.DatasetError: a: b\n"), "a: b", 0),
        (CallResult(0, error="T\n\tdeepmrseg_bids.errors.DatasetError: a: b\n"), "a: b", 0),
    ],
)
def test_what_a_node_raises_is_its_reason_and_what_nobody_foresaw_gets_a_crash_file(
    nipype, call, reason, crashes
):
    assert called_result(Node(0, []), call).reason == reason
    assert len(nipype) == crashes


def test_a_node_is_ready_when_all_that_it_needs_has_ended_well():
    first, second, last = nodes = [Node(index, []) for index in range(3)]
    graph = networkx.DiGraph()
    graph.add_nodes_from(nodes)
    graph.add_edges_from([(first, last), (second, last)])
    ready = ReadyNodes(graph)
    assert (ready.take(), ready.take(), len(ready)) == (first, second, 0)
    ready.ended_well(first)
    assert not ready
    ready.ended_well(second)
    assert ready.first is last

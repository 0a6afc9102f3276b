"""Which sessions a shard of a run does: equal work, decided by the data set alone.

Every shard of a job array deals the same cards to the same hands without asking the others:
what is finished already, or which shard runs when, changes nothing. All sessions of a subject
go to one shard, so that the subject's page is written once and shows them all.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence

from deepmrseg_bids.bids.query import Session
from deepmrseg_bids.execution.cost_model import Speed, predict
from deepmrseg_bids.imaging.grid import Grid
from deepmrseg_bids.inference.bundle import ModelBundle
from deepmrseg_bids.tasks.registry import costs_of
from deepmrseg_bids.tasks.spec import TaskSpec

__all__ = ["deal", "expected_work"]

# a machine that all shards agree on: seconds of a step; those of a window are each task's
_STEP = 0.04


def expected_work(
    grids: Mapping[str, Grid], tasks: Sequence[TaskSpec], bundles: Mapping[str, ModelBundle]
) -> float:
    """About how many seconds a session takes on one core; only ratios matter.

    Args:
        grids: of the images that can be read, by modality.
        tasks: of the session.
        bundles: the models of the run.
    """
    if all(task.missing(grids) for task in tasks):
        return _STEP  # no more than to say so
    windows = {model: costs_of(model).window_seconds for model in bundles}
    speed = Speed(windows, _STEP, {model: bundle.preparation for model, bundle in bundles.items()})
    return predict(grids, tasks, speed).seconds


def deal(
    sessions: Sequence[Session], shard: tuple[int, int], work: Callable[[Session], float]
) -> list[Session]:
    """The sessions of one shard, in their order.

    The subjects with most work are dealt first, each to the shard that has least so far
    (Graham 1969: the fullest shard then has at most 4/3 of what the best dealing could give).

    Args:
        sessions: all sessions of the run.
        shard: (K, N), the K-th of N, counted from 1.
        work: what a session is expected to cost, in any unit.

    >>> four = [Session(label, None, {}) for label in "abcd"]
    >>> cost = {"a": 1.0, "b": 1.0, "c": 2.0, "d": 4.0}
    >>> [s.subject for s in deal(four, (2, 2), lambda s: cost[s.subject])]
    ['a', 'b', 'c']
    """
    number, count = shard
    costs: defaultdict[str, float] = defaultdict(float)
    for session in sessions:
        costs[session.subject] += work(session)
    loads = [(0.0, hand) for hand in range(1, count + 1)]  # a heap: equal loads, lowest first
    mine = set()
    for subject in sorted(costs, key=lambda subject: (-costs[subject], subject)):
        load, hand = heapq.heappop(loads)
        if hand == number:
            mine.add(subject)
        heapq.heappush(loads, (load + costs[subject], hand))
    return [session for session in sessions if session.subject in mine]

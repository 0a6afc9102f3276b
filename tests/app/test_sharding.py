"""How sessions are dealt to the shards of a job array."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepmrseg_bids.app.sharding import deal, expected_work
from deepmrseg_bids.bids.query import Session
from deepmrseg_bids.imaging.grid import Grid
from deepmrseg_bids.inference.bundle import ModelBundle, shipped_bundles
from deepmrseg_bids.tasks.registry import find_task
from tests.support import images_of

COSTS = st.dictionaries(
    st.text("abc", min_size=1, max_size=4), st.lists(st.floats(0.1, 100), min_size=1, max_size=4)
)


def dealt(costs, count):
    """Each shard of a data set: subject -> the costs of its sessions."""
    sessions = [
        Session(subject, str(visit), images_of(f"{cost}"))
        for subject in sorted(costs)
        for visit, cost in enumerate(costs[subject])
    ]
    work = {(s.subject, s.session): float(str(s.images["T1w"])) for s in sessions}
    shards = [
        deal(sessions, (number, count), lambda s: work[s.subject, s.session])
        for number in range(1, count + 1)
    ]
    return sessions, shards, lambda shard: sum(work[s.subject, s.session] for s in shard)


@given(COSTS, st.integers(1, 6))
def test_every_session_is_in_one_shard_and_in_its_order(costs, count):
    sessions, shards, _ = dealt(costs, count)
    assert sorted((s for shard in shards for s in shard), key=sessions.index) == sessions
    assert all(shard == sorted(shard, key=sessions.index) for shard in shards)


@given(COSTS, st.integers(1, 6))
def test_all_sessions_of_a_subject_are_in_one_shard(costs, count):
    _, shards, _ = dealt(costs, count)
    owners = [{s.subject for s in shard} for shard in shards]
    assert sum(map(len, owners)) == len(costs)


@given(COSTS, st.integers(1, 6))
def test_no_shard_has_more_than_an_equal_share_and_one_subject(costs, count):
    _, shards, cost = dealt(costs, count)
    if costs:
        share = sum(map(sum, costs.values())) / count
        assert max(map(cost, shards)) <= share + max(map(sum, costs.values())) + 1e-9


def test_large_sessions_count_for_more_than_small_ones():
    _, shards, cost = dealt({"big": [8.0]} | {f"s{n}": [1.0] for n in range(16)}, 3)
    assert [cost(shard) for shard in shards] == [8.0, 8.0, 8.0]


@pytest.mark.parametrize("count", [1, 5])
def test_more_shards_than_subjects_leave_some_empty(count):
    _, shards, _ = dealt({"a": [1.0], "b": [1.0]}, count)
    assert sum(bool(shard) for shard in shards) == min(count, 2)


def test_where_nothing_is_known_of_the_work_the_count_is_shared():
    sessions = [Session(f"{n:02}", None, {}) for n in range(9)]
    assert len(deal(sessions, (2, 3), lambda _: 1.0)) == 3


def test_more_tasks_and_larger_scans_are_more_work_and_broken_ones_hardly_any():
    bundles = {task: ModelBundle.open(path) for task, path in shipped_bundles().items()}
    coarse, fine = (Grid((n,) * 3, np.diag([200 / n] * 3 + [1.0])) for n in (100, 400))

    def work(grid, *tasks):
        grids = {} if grid is None else {"T1w": grid}
        return expected_work(grids, [find_task(task) for task in tasks], bundles)

    every = ("brain", "deepbrain", "hippocampus")
    assert 0 < work(None, *every) < work(coarse, "brain") < work(coarse, *every)
    assert work(coarse, *every) < work(fine, *every)

"""What volumes of many sessions say together: worked numbers, properties, few sessions."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deepmrseg_bids.errors import MetricError
from deepmrseg_bids.metrics.cohort import (
    FEWEST,
    LIMIT,
    adjust_by_residuals,
    asymmetry_percent,
    deviations,
    flagged,
    joint_deviations,
    retest,
    yearly_change,
)

few = settings(max_examples=40, deadline=None)
values = st.lists(st.floats(0, 1e4), min_size=3, max_size=20)


def cohort(n: int, p: int, seed: int = 0) -> np.ndarray:
    """Volumes whose sizes go together: three causes and some noise of their own."""
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, 3)) @ rng.standard_normal((3, p)) + 0.3 * rng.standard_normal(
        (n, p)
    )


@few
@given(values, st.floats(0.1, 100), st.floats(-1e4, 1e4))
def test_deviations_do_not_depend_on_unit_and_zero(x: list[float], scale: float, shift: float):
    x = [round(value) for value in x]
    moved = deviations(scale * np.array(x) + shift)
    assert moved == pytest.approx(deviations(x), abs=1e-6)


def test_one_extreme_value_does_not_hide_itself_or_others() -> None:
    x = np.r_[np.arange(20.0), 1e6, -1e6]
    assert [bool(f) for f in flagged(deviations(x))] == [False] * 20 + [True, True]


def test_equal_values_deviate_by_nothing_and_one_other_value_does() -> None:
    assert deviations([5.0] * 10).tolist() == [0.0] * 10
    assert flagged(deviations([5.0] * 11 + [6.0]))[-1] is True


def test_an_unknown_value_stays_unknown_and_disturbs_no_other() -> None:
    x = np.array([1.0, 2.0, math.nan, 3.0, 9.0])
    found = deviations(x)
    assert math.isnan(found[2])
    assert found[[0, 1, 3, 4]].tolist() == deviations([1.0, 2.0, 3.0, 9.0]).tolist()


def test_too_few_sessions_are_not_flagged() -> None:
    assert flagged([9.0] * (FEWEST - 1)) == [None] * (FEWEST - 1)
    assert flagged([9.0] * FEWEST) == [True] * FEWEST


@pytest.mark.parametrize("n", [5, 12, 60])
def test_the_joint_space_exists_with_fewer_sessions_than_structures(n: int) -> None:
    found = joint_deviations(deviations(cohort(n, 19)))
    assert np.isfinite(found.score).all()
    assert found.share.sum(axis=1) == pytest.approx(np.ones(n))


def test_volumes_that_do_not_go_together_are_found_though_each_is_usual() -> None:
    rng = np.random.default_rng(3)
    size = rng.standard_normal(60)
    x = size[:, None] + 0.2 * rng.standard_normal((60, 8))
    x[7] = [1.5, -1.5] * 4
    scores = deviations(x)
    assert np.abs(scores[7]).max() < LIMIT
    found = joint_deviations(scores).score
    assert found[7] > LIMIT and np.argmax(found) == 7


def test_outliers_do_not_hide_each_other_in_the_joint_space() -> None:
    x = cohort(60, 8)
    x[:6, 0] += 30
    found = joint_deviations(deviations(x))
    assert (found.score[:6] > LIMIT).all()
    assert (found.share[:6].argmax(axis=1) == 0).all()


def test_few_of_many_usual_sessions_are_flagged_without_cause() -> None:
    found = joint_deviations(deviations(cohort(500, 15, seed=4))).score
    assert np.mean(found > LIMIT) < 0.01


def test_a_session_with_few_of_its_volumes_has_no_place_in_the_joint_space() -> None:
    scores = deviations(cohort(20, 6))
    scores[4, :4] = math.nan
    scores[5, :2] = math.nan
    found = joint_deviations(scores).score
    assert math.isnan(found[4]) and np.isfinite(np.delete(found, 4)).all()


def test_two_sessions_span_no_joint_space() -> None:
    assert np.isnan(joint_deviations(np.zeros((2, 4))).score).all()


def test_residuals_do_not_correlate_with_brain_size_and_keep_the_mean() -> None:
    rng = np.random.default_rng(0)
    brains = rng.normal(1.4e6, 1e5, 50)
    volumes = 1000 + 0.002 * brains + rng.normal(0, 50, 50)
    found = adjust_by_residuals(volumes, brains, [True] * 50)
    assert abs(np.corrcoef(found.volumes, brains)[0, 1]) < 1e-9
    assert found.volumes.mean() == pytest.approx(volumes.mean())
    assert found.slope == pytest.approx(0.002, rel=0.2) and found.n == 50


def test_outliers_are_adjusted_but_do_not_bend_the_line() -> None:
    brains = np.arange(100.0, 110.0)
    volumes = 2 * brains
    volumes[9] = 1e5
    found = adjust_by_residuals(volumes, brains, [True] * 9 + [False])
    assert found.slope == pytest.approx(2.0)
    assert found.volumes[9] > 9e4


def test_two_sessions_or_equal_brains_give_no_line() -> None:
    for brains in ([1.0, 2.0, math.nan], [5.0, 5.0, 5.0]):
        found = adjust_by_residuals([1.0, 2.0, 3.0], brains, [True] * 3)
        assert np.isnan(found.volumes).all() and math.isnan(found.slope)


@few
@given(st.floats(0.1, 1e5), st.floats(0.1, 1e5))
def test_asymmetry_changes_its_sign_when_the_sides_change_places(left: float, right: float):
    assert asymmetry_percent(left, right) == pytest.approx(-asymmetry_percent(right, left))
    assert abs(asymmetry_percent(left, right)) <= 200


def test_no_volume_has_no_asymmetry() -> None:
    assert math.isnan(asymmetry_percent(0.0, 0.0))


def test_sessions_within_thirty_days_have_no_change_a_year() -> None:
    change = yearly_change([0.0, 0.05, 0.0, 0.5], [100.0, 90.0] * 2, [1, 1, 2, 2])
    assert math.isnan(change["mm3"][1]) and math.isnan(change["percent"][1])
    assert change["mm3"][2] == pytest.approx(-20)


def test_the_line_through_many_sessions_has_least_squares_and_each_person_one() -> None:
    rng = np.random.default_rng(5)
    whose = rng.integers(0, 9, 60)
    years, volumes = rng.uniform(0, 9, 60), rng.uniform(900, 1100, 60)
    change = yearly_change(years, volumes, whose)
    for person in np.unique(whose):
        own = whose == person
        slope = np.polyfit(years[own], volumes[own], 1)[0]
        assert change["mm3"][person] == pytest.approx(slope)
        assert change["percent"][person] == pytest.approx(100 * slope / volumes[own].mean())


def test_volumes_of_nothing_have_no_change_in_percent() -> None:
    change = yearly_change([0.0, 1.0], [0.0, 0.0], [1, 1])
    assert change["mm3"][1] == 0 and math.isnan(change["percent"][1])


def test_retest_of_equal_volumes_agrees_fully() -> None:
    found = retest([[100.0, 100.0, math.nan], [200.0, 200.0, math.nan], [300.0, 300.0, 300.0]])
    assert (found.ccc, found.icc, found.bias, found.cv_percent) == (1.0, 1.0, 0.0, 0.0)


def test_variation_within_people_is_the_root_mean_square_over_people() -> None:
    found = retest([[99.0, 101.0], [198.0, 202.0]])
    assert found.cv_percent == pytest.approx(math.sqrt(2))
    assert math.isnan(found.ccc) and math.isnan(found.icc) and found.bias == 3.0


def test_one_volume_of_a_person_is_no_retest() -> None:
    for people in ([[1.0, 2.0], [1.0, math.nan]], [[1.0], [2.0]]):
        with pytest.raises(MetricError, match="two volumes"):
            retest(people)

"""Intervals by load, floor and confidence, fitted to samples and read from a bundle's facts."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from scipy import stats

from deepmrseg_bids.inference.calibration import Calibration, logit
from deepmrseg_bids.metrics.overlap import StructureAgreement
from deepmrseg_bids.train.calibrate import confidence_fit, coverage, floor_of, interval_ranges
from deepmrseg_bids.train.evaluation import Evaluated

ENDS = (1500.0, 5000.0, 15000.0)


def sample(predicted: float, reference: float, dice: float = 0.7, sure: float | None = 0.8):
    nan = math.nan
    agreement = StructureAgreement(1, dice, nan, nan, nan, predicted, reference, "both")
    return Evaluated("s", "Lesion", agreement, sure)


def people(count: int = 400, seed: int = 1) -> list[Evaluated]:
    """Small loads are measured badly and large ones well; the posteriors are always sure."""
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(count):
        truth = float(np.exp(rng.uniform(np.log(50), np.log(40000))))
        spread = 0.15 + 0.8 / (1 + truth / 1000)
        found = max(truth * np.exp(rng.normal(0, spread)) + abs(rng.normal(0, 200)), 5.0)
        dice = 0.85 * truth / (truth + 2000) * rng.uniform(0.9, 1.05)
        rows.append(sample(found, truth, dice, float(rng.uniform(0.75, 0.9))))
    return rows


def test_intervals_hold_in_each_range_of_people_left_out():
    for end, count, share in coverage(people(120), ENDS):
        assert count >= 5 and 0.8 <= share <= 1.0, (end, count, share)


def test_ranges_are_wide_for_small_loads_and_few_samples_are_joined():
    ranges = interval_ranges(people(), ENDS)["ranges"]
    assert [end for end, *_ in ranges] == [*ENDS, None]
    widths = [high / low for _, low, high in ranges]
    assert widths[0] > 2 * widths[-1]
    few = [sample(v, v) for v in (400, 900, 3000, 3200, 4000, 4100, 4500)]
    assert [end for end, *_ in interval_ranges(few, ENDS)["ranges"]] == [None]
    with pytest.raises(ValueError, match="at least 5"):
        interval_ranges(few[:3], ENDS)


def test_what_a_bundle_states_survives_its_json_and_gives_the_interval():
    stated = json.loads(
        json.dumps({"volume_interval_ranges": {"x": interval_ranges(people(), ENDS)}})
    )
    known = Calibration.of(stated, "x")
    for volume in (10.0, 1499.0, 1501.0, 90000.0):
        low, high = known.interval(volume)
        assert 0 <= low < high
    assert Calibration.of(stated, "another").interval(10.0) == (None, None)


def test_facts_of_older_bundles_mean_what_they_did():
    known = Calibration.of({"volume_interval": {"x": [0.5, 2.0]}, "volume_if_none": {"x": 50}}, "x")
    assert known.interval(10.0) == (5.0, 20.0)
    assert known.interval(0.0) == (0.0, 50.0)
    assert not known.below_floor(0.0)
    assert known.confidence(0.8, 10.0) == 0.8 and known.confidence(None, 0.0) is None


def test_a_load_below_the_floor_may_be_none():
    known = Calibration.of(
        {"volume_interval": {"x": [0.5, 2.0]}, "volume_floor": {"x": 1500.0}}, "x"
    )
    assert known.below_floor(1499.0) and not known.below_floor(1500.0)
    assert known.interval(1000.0) == (0.0, 2000.0)
    assert known.interval(10.0) == (0.0, 1500.0)
    assert known.interval(1500.0) == (750.0, 3000.0)


def test_the_floor_is_above_what_is_found_in_most_people_without_lesions():
    rng = np.random.default_rng(3)
    clean = [sample(float(v), 0.0) for v in np.exp(rng.normal(5.5, 0.6, 60))]
    floor = floor_of([*clean, *people()], none_below_mm3=49)
    fresh = np.exp(rng.normal(5.5, 0.6, 4000))
    assert 0.9 <= float((fresh < floor).mean()) <= 0.99
    few = [sample(row.agreement.volume_mm3 + truth, truth)
           for row, truth in zip(clean, rng.uniform(0, 900, 60), strict=True)]  # fmt: skip
    assert floor_of(few, none_below_mm3=1000) == floor_of(clean, none_below_mm3=1000)
    with pytest.raises(ValueError, match="at least 5"):
        floor_of(clean[:4], none_below_mm3=300)


def test_confidence_ranks_people_by_their_true_dice():
    rows, fresh = people(60), people(200, seed=2)
    a, b, c = confidence_fit(rows)
    known = Calibration(fit=(a, b, c))
    told = [known.confidence(row.confidence, row.agreement.volume_mm3) for row in fresh]
    truth = [row.agreement.f1 for row in fresh]
    assert stats.spearmanr(told, truth).statistic > 0.8
    assert stats.spearmanr([row.confidence for row in fresh], truth).statistic < 0.3
    assert abs(np.mean(told) - np.mean(truth)) < 0.06
    assert logit(0.0) == pytest.approx(-logit(1.0)) and math.isfinite(logit(1.0))

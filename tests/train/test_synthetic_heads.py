"""Synthetic scans: any contrast, the same on both sides, dark outside."""

from __future__ import annotations

import numpy as np
import pytest

from deepmrseg_bids.train.synthetic_heads import PAIRS, synthesize

CODES = np.array([0, 2, 41, 3, 42, 4, 43, 10, 49, 17, 53, 18, 54, 26, 58, 600])


def head() -> np.ndarray:
    """A slab of each tissue, 512 voxels each: (16, 8, 64) int16."""
    return np.repeat(CODES, 512).reshape(len(CODES), 8, 64).astype(np.int16)


def means(image: np.ndarray) -> dict[int, float]:
    return {int(code): float(image[k].mean()) for k, code in enumerate(CODES)}


@pytest.fixture(params=range(12))
def seed(request: pytest.FixtureRequest) -> int:
    return request.param


def test_a_scan_has_the_shape_of_the_label_map_and_is_never_negative(seed: int) -> None:
    image = synthesize(head(), np.random.default_rng(seed))
    assert image.shape == head().shape
    assert image.dtype == np.float32
    assert np.isfinite(image).all()
    assert image.min() >= 0
    assert image.max() < 1.5


def test_both_sides_look_alike(seed: int) -> None:
    found = means(synthesize(head(), np.random.default_rng(seed)))
    for right, left in PAIRS.items():
        if right in found and left in found:
            assert found[right] == pytest.approx(found[left], abs=0.02)


def test_air_is_dark(seed: int) -> None:
    image = synthesize(head(), np.random.default_rng(seed))
    assert image[0].mean() < 0.06
    assert image[0].max() < 0.15


def test_the_same_generator_state_gives_the_same_scan(seed: int) -> None:
    one, two = (synthesize(head(), np.random.default_rng(seed)) for _ in range(2))
    assert np.array_equal(one, two)


def test_contrasts_differ_between_draws() -> None:
    draws = [means(synthesize(head(), np.random.default_rng(seed))) for seed in range(40)]
    brighter = [found[2] > found[3] for found in draws]  # white against grey matter
    assert 5 < sum(brighter) < 40
    assert len({round(found[17], 3) for found in draws}) > 30


def test_a_right_side_alone_gets_a_tissue_of_its_own() -> None:
    codes = np.full((8, 8, 8), 53, np.int16)
    assert synthesize(codes, np.random.default_rng(0)).mean() > 0.03


def test_every_right_code_has_a_left_code_below_it() -> None:
    assert all(left < right for right, left in PAIRS.items())
    assert not set(PAIRS) & set(PAIRS.values())

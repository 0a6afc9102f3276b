"""Uneven brightness: found in a brain of any orientation, and taken out again."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deepmrseg_bids.imaging.brightness import brightness_gradient
from deepmrseg_bids.imaging.grid import Grid
from tests.support import ORIENTATIONS, stored_as


def brain(spacing: float = 4.0) -> tuple[np.ndarray, np.ndarray, Grid]:
    """Intensities of two tissues in a ball of 70 mm radius, the ball, and their grid."""
    shape = (40, 44, 40)
    grid = Grid(shape, np.diag([spacing, spacing, spacing, 1.0]))
    away = (np.indices(shape).T - (np.array(shape) - 1) / 2).T * spacing
    inside = (away**2).sum(axis=0) < 70**2
    tissue = np.random.default_rng(0).choice([60.0, 100.0], size=shape)
    return (tissue * inside).astype(np.float32), inside, grid


def lit(image: np.ndarray, grid: Grid, slope: list[float]) -> np.ndarray:
    """Brighter by exp(slope) per 100 mm along the axes of the world."""
    places = grid.to_world(np.indices(image.shape).reshape(3, -1).T)
    return (image * np.exp(places @ np.array(slope) / 100).reshape(image.shape)).astype("f4")


@pytest.mark.parametrize("codes", ORIENTATIONS[::5])
def test_a_gradient_is_found_along_the_axes_of_the_world(codes: str) -> None:
    image, inside, grid = brain()
    stored, there = stored_as(lit(image, grid, [0.2, -0.7, 0.4]), grid, codes)
    found = brightness_gradient(stored, stored_as(inside, grid, codes)[0], there)
    assert found is not None
    np.testing.assert_allclose(found.slope, [0.2, -0.7, 0.4], atol=0.03)
    assert 2.0 < found.ratio < 3.3


@settings(max_examples=20, deadline=None)
@given(st.lists(st.floats(-0.8, 0.8), min_size=3, max_size=3), st.floats(0.01, 1e4))
def test_a_scan_is_even_after_its_gradient_was_taken_out(slope: list[float], scale: float) -> None:
    image, inside, grid = brain()
    uneven = lit(image * np.float32(scale), grid, slope)
    found = brightness_gradient(uneven, inside, grid)
    assert found is not None
    again = brightness_gradient(found.evened(uneven, grid), inside, grid)
    assert again is not None and again.ratio < 1.05
    plain = found.evened(uneven, grid)[inside] / image[inside]
    assert plain.std() / plain.mean() < 0.03


def test_an_even_scan_has_no_gradient_and_a_speck_of_brain_tells_nothing() -> None:
    image, inside, grid = brain()
    found = brightness_gradient(image, inside, grid)
    assert found is not None and found.ratio < 1.05
    inside[:, 10:] = False
    assert brightness_gradient(image, inside, grid) is None
    assert brightness_gradient(image, inside & False, grid) is None

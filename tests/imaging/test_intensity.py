"""Normalisation: mean 0 and standard deviation 1 over what counts, whatever the scale."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deepmrseg_bids.errors import SignalError
from deepmrseg_bids.imaging.intensity import AIR, OUTSIDE, normalise


def head(seed: int = 0, shape: tuple[int, ...] = (16, 18, 20)) -> tuple[np.ndarray, np.ndarray]:
    """Air around a ball of tissue: the image and the ball."""
    rng = np.random.default_rng(seed)
    away = sum((i - n / 2) ** 2 for i, n in zip(np.indices(shape), shape, strict=True))
    ball = away < 49
    image = np.where(ball, 100 + 15 * rng.standard_normal(shape), rng.random(shape))
    return image.astype(np.float32), ball


@pytest.mark.parametrize("mode", ["brain", "crop"])
def test_what_counts_has_mean_zero_and_deviation_one(mode) -> None:
    image, ball = head()
    out = normalise(image, mode=mode, mask=ball)[ball]
    assert abs(out.mean()) < 0.02
    assert abs(out.std() - 1) < 0.03


def test_crop_without_a_mask_counts_every_voxel() -> None:
    image = np.random.default_rng(0).normal(7, 3, (20, 20, 20))
    out = normalise(image, mode="crop")
    assert abs(out.mean()) < 0.01
    assert abs(out.std() - 1) < 0.03


def test_head_leaves_air_out_of_the_count_and_far_below_the_tissue() -> None:
    image, ball = head()
    out = normalise(image, mode="head")
    assert np.all(out[~ball] < out[ball].min())
    assert np.array_equal(out, normalise(image, mode="head", mask=~ball))


@pytest.mark.parametrize("contrast", [0.1, 1, 2])
def test_air_of_a_head_has_one_value_whatever_the_contrast_of_the_tissue(contrast) -> None:
    image, ball = head()
    image[~ball] = 0
    image[ball] = 100 + contrast * (image[ball] - 100)
    out = normalise(image, mode="head")
    assert out[~ball] == pytest.approx(AIR, abs=0.01)
    assert abs(out[ball].mean()) < 0.1


def test_outside_the_brain_becomes_the_outside_value() -> None:
    image, ball = head()
    assert np.all(normalise(image, mode="brain", mask=ball)[~ball] == OUTSIDE)


def test_outside_the_crop_mask_becomes_the_mean() -> None:
    image, ball = head()
    assert np.all(normalise(image, mode="crop", mask=ball)[~ball] == 0)


@settings(max_examples=40, deadline=None)
@given(
    mode=st.sampled_from(["head", "brain", "crop"]),
    scale=st.floats(0.01, 1000),
    shift=st.floats(-500, 500),
)
def test_scale_and_shift_of_the_intensities_do_not_matter(mode, scale, shift) -> None:
    image, ball = head()
    once = normalise(image, mode=mode, mask=ball)
    again = normalise(image.astype(np.float64) * scale + shift * scale, mode=mode, mask=ball)
    assert np.abs(once - again).max() < 0.02


@pytest.mark.parametrize("kind", [np.int16, np.int32, np.uint8, np.float64])
def test_the_type_of_the_numbers_does_not_matter(kind) -> None:
    image, _ = head()
    whole = np.round(image)
    expected = normalise(whole, mode="head")
    assert expected.dtype == np.float32
    assert np.array_equal(normalise(whole.astype(kind), mode="head"), expected)


def test_values_are_clipped_to_five_deviations_on_both_sides() -> None:
    image = np.random.default_rng(0).normal(0, 1, (20, 20, 20))
    image[0, 0, 0], image[1, 1, 1] = 1e6, -1e6
    out = normalise(image, mode="crop")
    assert (out.min(), out.max()) == (-5, 5)
    assert abs(np.median(out)) < 0.1


def test_one_absurd_voxel_barely_moves_the_others() -> None:
    image, ball = head()
    spiked = image.copy()
    spiked[0, 0, 0] = 1e7
    moved = normalise(spiked, mode="head")[ball] - normalise(image, mode="head")[ball]
    assert np.abs(moved).max() < 0.05


def test_the_input_is_left_as_it_was() -> None:
    image, ball = head()
    kept = image.copy()
    normalise(image, mode="brain", mask=ball)
    assert np.array_equal(image, kept)


def test_an_empty_mask_is_no_signal() -> None:
    image, ball = head()
    with pytest.raises(SignalError, match="'brain'"):
        normalise(image, mode="brain", mask=np.zeros_like(ball))


@pytest.mark.parametrize("value", [0.0, 7.0, -3.0])
def test_a_constant_image_is_no_signal(value: float) -> None:
    with pytest.raises(SignalError):
        normalise(np.full((4, 4, 4), value), mode="crop")
    with pytest.raises(SignalError):
        normalise(np.full((4, 4, 4), value), mode="head")


def test_brain_without_a_mask_is_a_mistake_of_the_caller() -> None:
    with pytest.raises(ValueError, match=r"needs a mask of shape \(4, 4, 4\), got None"):
        normalise(np.ones((4, 4, 4)), mode="brain")


def test_a_mask_of_another_shape_is_told_with_both_shapes() -> None:
    with pytest.raises(ValueError, match=r"\(4, 4, 4\), got \(3,\)"):
        normalise(np.ones((4, 4, 4)), mode="crop", mask=np.ones(3, bool))

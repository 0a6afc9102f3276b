"""Augmentation: what is drawn is what is applied, and labels follow the image."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deepmrseg_bids.imaging.intensity import OUTSIDE, brain_coordinates, normalise
from deepmrseg_bids.imaging.labels import Label, LabelTable
from deepmrseg_bids.train.augment import Augmentation, apply, brain_centre, draw
from deepmrseg_bids.train.config import AugmentConfig, TrainConfig, load_config
from deepmrseg_bids.train.crops import batches, whole
from deepmrseg_bids.train.samples import Prepared

ALL = AugmentConfig(
    flip=0.5, rotate_deg=15, scale=0.15, shear=0.05, shift_mm=2, elastic_mm=1, bias=0.5,
    gamma=0.4, noise=0.2, blur_mm=1, thick_mm=3, remap=0.4, invert=0.2, strip=0.3, deface=0.3,
    shading=0.8,
)  # fmt: skip
GEOMETRY = AugmentConfig(
    flip=0.5, rotate_deg=20, scale=0.15, shear=0.05, shift_mm=2, elastic_mm=0.7
)
PLAIN = AugmentConfig()
CROP = (16, 16, 16)
INNER = (slice(2, 18),) * 3  # of an image with edge 20
SIDES = (
    'labels = [{ index = 5, name = "Ball" }]',
    'labels = [{ index = 3, name = "Left-Blob" }, { index = 7, name = "Right-Blob" }]',
)


@pytest.fixture
def config(settings_file) -> TrainConfig:
    return load_config(settings_file(SIDES, ("classes = 2", "classes = 3")))


@pytest.fixture
def brain_config(settings_file) -> TrainConfig:
    changes = (SIDES, ("classes = 2", "classes = 3"), ('"crop"', '"brain"'))
    return load_config(settings_file(*changes))


def prepared(*, edge: int = 20, codes: bool = False) -> Prepared:
    """Two bright balls in noise in a brain: left (class 1) at low x, right at high x."""
    i, j, k = np.indices((edge,) * 3)
    middle = (edge - 1) / 2
    target = np.zeros((edge,) * 3, np.uint8)
    for number, x in ((1, middle - 4), (2, middle + 4)):
        target[(i - x) ** 2 + (j - middle) ** 2 + (k - middle) ** 2 < 8] = number
    brain = (i - middle) ** 2 + (j - middle) ** 2 + (k - middle) ** 2 < 72
    rng = np.random.default_rng(0)
    image = (
        0.3 * brain + 0.02 * rng.random(target.shape) + 0.2 * (target == 1) + 0.6 * (target == 2)
    )
    kept = np.where(target, target + 16, brain * 2).astype(np.int16) if codes else None
    return Prepared(None if codes else image.astype(np.float16), brain, target, kept, (middle,) * 3)


def drawn(seed: int, config: AugmentConfig = ALL) -> Augmentation:
    return draw(np.random.default_rng(seed), config, spacing=1.0)


def share(found: np.ndarray, expected: np.ndarray) -> float:
    """Dice."""
    return 2 * np.sum(found & expected) / max(np.sum(found) + np.sum(expected), 1)


# --- drawing


def test_the_same_generator_state_draws_the_same_choices() -> None:
    one, two = dataclasses.asdict(drawn(5)), dataclasses.asdict(drawn(5))
    assert all(np.array_equal(one[name], two[name]) for name in one)
    assert dataclasses.asdict(drawn(6))["seed"] != one["seed"]


def test_nothing_is_drawn_where_nothing_is_asked_for() -> None:
    found = drawn(3, PLAIN)
    assert np.array_equal(found.linear, np.eye(3))
    assert not (found.flip or found.shift.any() or found.elastic.any() or found.bias.any())
    assert (found.gamma, found.noise, found.blur, found.thick[1]) == (1, 0, 0, 1)
    assert found.curve is None
    assert found.outline is None
    assert found.deface is None
    assert found.shading is None


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 10**6))
def test_choices_stay_within_their_settings(seed: int) -> None:
    found = drawn(seed)
    volume = abs(np.linalg.det(found.linear))
    assert np.exp(-0.45) <= volume <= np.exp(0.45)  # rotation and shear keep it, scale changes it
    assert np.abs(found.shift).max() <= 2
    assert np.abs(found.bias).max() <= 0.5
    assert np.exp(-0.4) <= found.gamma <= np.exp(0.4)
    assert 0 <= found.noise <= 0.2
    assert 0 <= found.blur <= 1
    assert 1 <= found.thick[1] <= 3
    assert found.shading is not None
    assert np.linalg.norm(found.shading[0]) <= 0.8 + 1e-9
    assert np.abs(found.shading[1]).max() <= 0.8
    if found.curve is not None:
        assert found.curve[0] == 0
        assert 0 <= found.curve.min() <= found.curve.max() <= 1 + 1e-9


def test_millimetres_become_voxels() -> None:
    fine, coarse = (draw(np.random.default_rng(0), GEOMETRY, spacing=s) for s in (1.0, 2.0))
    assert np.allclose(fine.shift, 2 * coarse.shift)
    assert np.allclose(fine.elastic, 2 * coarse.elastic)


def test_a_remapped_curve_keeps_the_order_of_tissues() -> None:
    config = AugmentConfig(remap=1)
    for seed in range(20):
        assert np.all(np.diff(drawn(seed, config).curve) >= 0)


def test_each_chance_comes_about_as_often_as_it_says() -> None:
    found = [drawn(seed) for seed in range(400)]
    assert 0.4 < np.mean([a.flip for a in found]) < 0.6
    assert 0.5 < np.mean([a.curve is not None for a in found]) < 0.7
    assert 0.2 < np.mean([a.outline is not None for a in found]) < 0.4
    assert 0.2 < np.mean([a.deface is not None for a in found]) < 0.4


# --- applying


@pytest.mark.parametrize("codes", [False, True])
@pytest.mark.parametrize("seed", range(6))
def test_the_same_choices_give_the_same_crop_to_the_last_bit(config, codes, seed) -> None:
    one, two = (apply(prepared(codes=codes), drawn(seed), config) for _ in range(2))
    assert np.array_equal(one[0], two[0])
    assert np.array_equal(one[1], two[1])


@pytest.mark.parametrize("codes", [False, True])
@pytest.mark.parametrize("seed", range(20))
def test_a_crop_is_finite_and_of_the_asked_shape_and_classes(config, codes, seed) -> None:
    image, target = apply(prepared(codes=codes), drawn(seed), config)
    assert image.shape == target.shape == CROP
    assert (image.dtype, target.dtype) == (np.float32, np.uint8)
    assert np.isfinite(image).all()
    assert np.abs(image).max() <= 5
    assert set(np.unique(target)) <= {0, 1, 2}


def test_without_augmentation_the_crop_is_the_plain_crop(config) -> None:
    whole = prepared()
    image, target = apply(whole, drawn(0, PLAIN), config)
    assert np.array_equal(target, whole.target[INNER])
    expected = normalise(whole.image[INNER], mode="crop", mask=whole.mask[INNER])
    assert np.abs(image - expected).max() < 1e-3


@pytest.mark.parametrize("centre", [9.0, 9.5, 10.0])
def test_a_plain_crop_takes_every_voxel_once_wherever_the_centre_lies(config, centre) -> None:
    whole = prepared()
    counted = np.arange(20**3, dtype=np.float32).reshape(20, 20, 20) % 251
    target = (counted % 3).astype(np.uint8)
    moved = dataclasses.replace(whole, target=target, centre=(centre, 9.5, 9.5))
    _, found = apply(moved, drawn(0, PLAIN), config)
    starts = [k for k in range(5) if np.array_equal(found, target[k : k + 16, 2:18, 2:18])]
    assert starts
    assert abs(starts[0] + 7.5 - centre) <= 0.5


def test_the_prepared_sample_is_left_as_it_was(config) -> None:
    one, two = prepared(), prepared()
    for seed in range(5):
        apply(one, drawn(seed), config)
    assert np.array_equal(one.image, two.image)
    assert np.array_equal(one.target, two.target)
    assert np.array_equal(one.mask, two.mask)


def test_a_flip_mirrors_the_image_and_exchanges_left_and_right(config) -> None:
    plain = drawn(0, PLAIN)
    image, target = apply(prepared(), plain, config)
    mirrored, flipped = apply(prepared(), dataclasses.replace(plain, flip=True), config)
    assert np.abs(mirrored - image[::-1]).max() < 1e-3
    assert np.array_equal(flipped, np.array(config.labels.mirrored)[target[::-1]])
    assert np.argwhere(flipped == 1)[:, 0].max() < 8 <= np.argwhere(flipped == 2)[:, 0].min()


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(seed=st.integers(0, 10**6))
def test_left_stays_on_the_left_and_labels_follow_the_image(config, seed: int) -> None:
    chosen = drawn(seed, GEOMETRY)
    image, target = apply(prepared(), chosen, config)
    left, right = (np.argwhere(target == number)[:, 0].mean() for number in (1, 2))
    assert left < right
    bright = image > (image.max() + np.median(image[target > 0])) / 2
    brightest = 1 if chosen.flip else 2  # the tissue moves in a flip, its name does not
    assert share(bright, target == brightest) > 0.6
    assert image[target == brightest].mean() > image[target == 3 - brightest].mean() + 0.5


@pytest.mark.parametrize("seed", range(10))
def test_changes_of_intensity_do_not_move_the_labels(config, seed: int) -> None:
    only = dataclasses.replace(
        ALL, flip=0, rotate_deg=0, scale=0, shear=0, shift_mm=0, elastic_mm=0
    )
    image, target = apply(prepared(), drawn(seed, only), config)
    plain_image, plain_target = apply(prepared(), drawn(seed, PLAIN), config)
    assert np.array_equal(target, plain_target)
    assert not np.array_equal(image, plain_image)


def test_a_shift_moves_image_and_labels_by_whole_voxels(config) -> None:
    chosen = dataclasses.replace(drawn(0, PLAIN), shift=np.array([2.0, -1, 0]))
    _, target = apply(prepared(), chosen, config)
    assert np.array_equal(target, prepared().target[4:20, 1:17, 2:18])


def test_an_elastic_field_of_one_value_is_a_shift(config) -> None:
    elastic = np.zeros((3, 6, 6, 6), np.float32)
    elastic[0] = 1
    chosen = dataclasses.replace(drawn(0, PLAIN), elastic=elastic)
    _, target = apply(prepared(), chosen, config)
    assert np.array_equal(target, prepared().target[3:19, 2:18, 2:18])


def test_stripping_takes_away_all_but_the_brain(brain_config) -> None:
    whole = prepared()
    mask = whole.mask[INNER]
    image, _ = apply(whole, dataclasses.replace(drawn(0, PLAIN), outline=1), brain_config)
    assert np.all(image[~mask] == OUTSIDE)
    assert np.all(image[mask] != OUTSIDE)


def test_defacing_never_cuts_into_the_brain(config) -> None:
    whole = prepared()
    lit = dataclasses.replace(whole, image=(whole.image + 0.2).astype(np.float16))
    for seed in range(20):
        plane = drawn(seed, AugmentConfig(deface=1)).deface
        assert plane is not None
        close = (plane[0], plane[1], 0.0)
        image, _ = apply(lit, dataclasses.replace(drawn(0, PLAIN), deface=close), config)
        plain, _ = apply(lit, drawn(0, PLAIN), config)
        assert np.allclose(image[whole.mask[INNER]], plain[whole.mask[INNER]], atol=1e-3)


def test_shading_changes_brightness_by_its_logarithm_over_100_mm(config) -> None:
    slope = np.array([[np.log(2), 0, 0], [0, 0, 0]])
    ones = np.ones((20,) * 3)
    sample = dataclasses.replace(prepared(), image=ones.astype(np.float16), mask=ones > 0)
    plain = drawn(0, PLAIN)
    shaded, _ = apply(sample, dataclasses.replace(plain, shading=slope), config)
    spacing = config.preparation.spacing
    line = 2 ** ((np.arange(16) - 7.5) * spacing / 100)
    expected = normalise(
        np.broadcast_to(line[:, None, None], CROP).astype("f4"),
        mode="crop",
        mask=np.ones(CROP, bool),
    )
    assert np.allclose(shaded, expected, atol=1e-4)


def test_noise_and_synthesis_follow_the_seed_of_the_choices(config) -> None:
    chosen = dataclasses.replace(drawn(0, PLAIN), noise=0.2)
    other = dataclasses.replace(chosen, seed=chosen.seed + 1)
    for codes in (False, True):
        one, two = (apply(prepared(codes=codes), a, config)[0] for a in (chosen, other))
        assert not np.array_equal(one, two)


def test_thick_slices_blur_along_their_axis_alone(config) -> None:
    noise = np.random.default_rng(0).random((20, 20, 20)).astype(np.float16)
    whole = dataclasses.replace(prepared(), image=noise, mask=np.ones(noise.shape, bool))
    image, _ = apply(whole, dataclasses.replace(drawn(0, PLAIN), thick=(2, 4.0)), config)
    along_x, along_y, along_z = (np.abs(np.diff(image, axis=axis)).mean() for axis in range(3))
    assert along_x == pytest.approx(along_y, rel=0.1)
    assert along_z < 0.5 * along_x


# --- mirrored classes


def test_the_mirror_exchanges_sides_and_keeps_what_has_none() -> None:
    table = LabelTable(
        (Label(1, "Left-A"), Label(2, "Brain"), Label(3, "Right-A"), Label(4, "Left-B"))
    )
    assert table.mirrored == (0, 3, 2, 1, 4)


def test_two_mirrors_are_none() -> None:
    lookup = np.array(load_config("deepbrain").labels.mirrored)
    assert np.array_equal(lookup[lookup], np.arange(15))
    assert np.all(lookup[1:] != np.arange(1, 15))


def test_contrast_and_brightness_change_the_scale_of_what_counts_and_nothing_else(config) -> None:
    whole = prepared()
    plain, target = apply(whole, drawn(0, PLAIN), config)
    changed = dataclasses.replace(drawn(0, PLAIN), contrast=1.5, brightness=-0.25)
    image, same = apply(whole, changed, config)
    counted = whole.mask[INNER]
    np.testing.assert_allclose(image[counted], 1.5 * plain[counted] - 0.25, atol=1e-5)
    np.testing.assert_array_equal(image[~counted], plain[~counted])
    np.testing.assert_array_equal(same, target)


def test_contrast_and_brightness_are_drawn_within_their_ranges() -> None:
    found = [drawn(seed, AugmentConfig(contrast=0.2, brightness=0.3)) for seed in range(50)]
    assert all(np.exp(-0.2) <= one.contrast <= np.exp(0.2) for one in found)
    assert all(abs(one.brightness) <= 0.3 for one in found)
    assert np.std([one.contrast for one in found]) > 0.05
    assert np.std([one.brightness for one in found]) > 0.1
    plain = drawn(3, PLAIN)
    assert (plain.contrast, plain.brightness) == (1.0, 0.0)


def test_coarse_voxels_blur_along_every_axis(config) -> None:
    noise = np.random.default_rng(0).random((20, 20, 20)).astype(np.float16)
    whole = dataclasses.replace(prepared(), image=noise, mask=np.ones(noise.shape, bool))
    plain, _ = apply(whole, drawn(0, PLAIN), config)
    image, _ = apply(whole, dataclasses.replace(drawn(0, PLAIN), coarse=2.0), config)
    for axis in range(3):
        rough, smooth = (np.abs(np.diff(x, axis=axis)).mean() for x in (plain, image))
        assert smooth < 0.8 * rough
    found = [drawn(seed, AugmentConfig(coarse_mm=3)).coarse for seed in range(50)]
    assert 1 == min(found) < 2 < max(found) <= 3
    assert 5 <= sum(one > 1 for one in found) <= 35


# --- the middle of the brain


def one_sided(*, edge: int = 30) -> Prepared:
    """A round brain whose middle is neither that of the image nor that of the target."""
    places = np.indices((edge,) * 3)
    brain = np.zeros((edge,) * 3, bool)
    for centre, radius in (((13.3, 15.6, 14.2), 7), ((16.4, 18.9, 18.1), 4)):
        away = sum((axis - c) ** 2 for axis, c in zip(places, centre, strict=True))
        brain |= away <= radius**2
    image = brain * np.random.default_rng(0).uniform(0.5, 1, brain.shape)
    return Prepared(image.astype(np.float16), brain, brain.astype(np.uint8), None, (10, 20, 20))


@pytest.fixture
def located(settings_file) -> TrainConfig:
    """Settings with coordinates, and crops that hold the whole brain."""
    return load_config(
        settings_file(
            ("in_channels = 1", "in_channels = 4"),
            ('intensity = "crop"', 'intensity = "brain"\ncoordinates = true'),
            ("crop = [16, 16, 16]", "crop = [42, 40, 44]"),
        )
    )


def middle(mask: np.ndarray) -> np.ndarray:
    return np.argwhere(mask).mean(axis=0)


def test_the_middle_of_the_brain_is_the_mean_of_its_voxels() -> None:
    brain = one_sided()
    assert np.allclose(brain.brain_centre, middle(brain.mask))


def test_a_plain_crop_knows_where_the_brain_is_to_the_voxel(located) -> None:
    brain = one_sided()
    _, target = apply(brain, drawn(0, PLAIN), located)
    assert np.allclose(brain_centre(brain, drawn(0, PLAIN), located), middle(target > 0))


@pytest.mark.parametrize(
    "change",
    [
        {"flip": 1.0},
        {"shift_mm": 3.0},
        {"rotate_deg": 40.0},
        {"scale": 0.2},
        {"shear": 0.2},
        {"flip": 0.5, "rotate_deg": 20.0, "scale": 0.15, "shear": 0.05, "shift_mm": 3.0},
    ],
    ids=lambda change: " ".join(change),
)
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(seed=st.integers(0, 10_000))
def test_the_middle_of_the_brain_moves_with_the_crop(located, change, seed) -> None:
    brain, chosen = one_sided(), drawn(seed, AugmentConfig(**change))
    _, target = apply(brain, chosen, located)
    told = brain_centre(brain, chosen, located)
    assert np.abs(told - middle(target > 0)).max() < 0.51  # nearest voxels


def test_a_bent_crop_knows_its_brain_as_well_as_it_is_bent(located) -> None:
    brain = one_sided()
    for seed in range(10):
        chosen = drawn(seed, AugmentConfig(elastic_mm=1.0))
        _, target = apply(brain, chosen, located)
        assert np.abs(brain_centre(brain, chosen, located) - middle(target > 0)).max() < 2


def test_the_network_sees_the_way_to_the_middle_of_the_brain_in_three_channels(located) -> None:
    augment = AugmentConfig(flip=0.5, rotate_deg=20.0, shift_mm=3.0)
    located = dataclasses.replace(located, augment=augment)
    brain = one_sided()
    images, targets = next(batches([brain], located, range(5, 6)))
    assert images.shape == (2, 4, 42, 40, 44)
    for image, target in zip(images.numpy(), targets.numpy(), strict=True):
        place = middle(target > 0)
        for axis, channel in enumerate(image[1:]):
            told = np.moveaxis(channel, axis, 0)
            assert (told == told[:, :1, :1]).all()  # it changes along its own axis alone
            away = (np.arange(len(told)) - place[axis]) / 60
            expected = np.abs(away) if axis == 0 else away
            assert np.abs(told[:, 0, 0] - expected).max() < 0.51 / 60


def test_what_validation_sees_has_the_same_channels(located) -> None:
    images, target = whole(one_sided(), located)
    assert images.shape == (1, 4, *target.shape)
    centre = brain_centre(one_sided(), drawn(0, PLAIN), located)
    assert np.array_equal(images[0, 1:], brain_coordinates(target.shape, centre.tolist(), 1.0))

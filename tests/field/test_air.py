"""Air that is not 0: an offset, a scale or a sign of the intensities changes nothing."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from deepmrseg_bids.imaging.air import find_air, with_air_at_zero
from deepmrseg_bids.imaging.scaling import logarithms
from deepmrseg_bids.tasks.brain import find_brain
from deepmrseg_bids.tasks.lesions import Surroundings
from tests.field.real_head import as_read, head, padded, pool, tilted, usual_brain
from tests.tasks.phantom import dice

CHANGED = {
    "z-scores": lambda d: (d - d.mean()) / d.std(),
    "CT-like": lambda d: d - 1024,
    "shifted up": lambda d: d + 1000,
    "negated": lambda d: -d,
    "negated and shifted": lambda d: 4095 - d,
    "scaled": lambda d: d * 0.001,
}


def noisy() -> np.ndarray:
    """The head in air that is noise, as scanners make it."""
    noise = np.abs(np.random.default_rng(0).normal(0, 0.01 * head().data.max(), head().data.shape))
    return (head().data + noise).astype(np.float32)


@pytest.mark.parametrize("surround", ["exact", "noise", "pad", "bright pad"])
@pytest.mark.parametrize("name", CHANGED)
def test_the_reader_brings_air_to_zero(name: str, surround: str) -> None:
    data = head().data if surround == "exact" else noisy()
    changed = CHANGED[name](data.astype(np.float64))
    span = float(np.ptp(changed))
    if "pad" in surround:
        changed = np.pad(changed, 8, constant_values=0.0 if surround == "pad" else 40 * span)
    read = as_read(changed).data.astype(np.float64)
    if "pad" in surround:
        assert np.all(np.abs(read[0]) < 0.03 * span)
        read = read[8:-8, 8:-8, 8:-8]
    np.testing.assert_allclose(read / span, data / np.ptp(data), atol=0.03)


@pytest.mark.parametrize("name", CHANGED)
def test_what_was_stripped_is_the_darkest(name: str) -> None:
    """A skull-stripped scan, z-scored within the brain, with 0 around it."""
    away = np.sqrt(((np.indices((60, 70, 60)) - 30) ** 2).sum(axis=0))
    rng = np.random.default_rng(0)
    inside = away < 25
    tissue = np.clip(140 - 3 * away + rng.normal(0, 8, away.shape), 5, None)
    changed = CHANGED[name](tissue)
    data = np.where(inside, changed, 0 if name == "z-scores" else CHANGED[name](0 * tissue))
    read = as_read(data).data
    assert np.all(read[~inside] == 0) and np.percentile(read[inside], 1) > 0
    assert np.corrcoef(read[inside], tissue[inside])[0, 1] > 0.999


@pytest.mark.parametrize("around", [-1.0, -5.0])
def test_a_value_just_below_a_stripped_brain_is_outside_it(around: float) -> None:
    away = np.sqrt(((np.indices((60, 70, 60)) - 30) ** 2).sum(axis=0))
    tissue = np.clip(900 - 30 * away + np.random.default_rng(0).normal(0, 60, away.shape), 0, None)
    read = as_read(np.where(away < 25, tissue, around)).data
    assert np.all(read[away >= 25] == 0) and np.all(read[away < 25] > 0)


@pytest.mark.parametrize("order", ["around one another", "on single sides"])
def test_padding_of_several_values_is_outside_the_scan(order: str) -> None:
    data = noisy().astype(np.float64)
    ways = {
        "around one another": [([(6, 6)] * 3, -1.0), ([(6, 6)] * 3, -1000.0), ([(6, 6)] * 3, 9e5)],
        "on single sides": [
            ([(15, 0), (0, 0), (0, 0)], -1.0),
            ([(0, 0), (12, 12), (0, 0)], -1000.0),
            ([(0, 0), (0, 0), (9, 4)], 9e5),
        ],
    }
    inside = np.ones(data.shape, bool)
    for widths, value in ways[order]:
        data = np.pad(data, widths, constant_values=value)
        inside = np.pad(inside, widths)
    volume = as_read(data)
    assert np.all(volume.data[~inside] == 0)
    np.testing.assert_array_equal(volume.data[inside].reshape(noisy().shape), noisy())
    (told,) = [one.message for one in volume.findings if one.code == "scan-padded"]
    assert all(f"{value:g}" in told for _, value in ways[order])


def test_a_usual_scan_and_a_crop_within_a_head_stay_as_they_are() -> None:
    crop = head().data[30:60, 40:80, 30:60]
    for data in (head().data, crop):
        assert with_air_at_zero(data, find_air(data)) is data


@pytest.mark.parametrize("name", ["z-scores", "negated"])
def test_the_brain_is_the_same_whatever_the_level_of_air(name: str) -> None:
    usual = usual_brain()
    changed = tilted(as_read(CHANGED[name](head().data.astype(np.float64))), 20, 1)
    found = find_brain(changed, pool()("brain"))
    assert found.volume_mm3 == pytest.approx(usual.volume_mm3, rel=0.01)
    assert dice(found.mask_on(changed.grid), usual.mask_on(head().grid)) > 0.99


def test_padding_of_another_value_than_air_is_outside_the_scan() -> None:
    usual = usual_brain()
    shifted = as_read(head().data.astype(np.float64) + 1000)
    changed = padded(shifted, 12, value=-1000.0)
    found = find_brain(changed, pool()("brain"))
    assert "scan-padded" in {one.code for one in changed.findings}
    assert found.volume_mm3 == pytest.approx(usual.volume_mm3, rel=0.01)


@pytest.mark.parametrize("offset", [-1024.0, 1000.0])
def test_fluid_of_a_flair_is_found_whatever_its_offset(offset: float) -> None:
    usual = usual_brain()
    mask, none = usual.mask_on(head().grid), np.zeros(head().data.shape, bool)
    flair = [head().data, as_read(head().data.astype(np.float64) + offset).data]
    around = [
        Surroundings.of(image, mask, none, head().grid, centre=usual.centre) for image in flair
    ]
    assert around[0].ventricle is not None and around[1].ventricle is not None
    np.testing.assert_allclose(around[0].ventricle, around[1].ventricle, atol=2.1)


@pytest.mark.parametrize("log", [np.log1p, np.log2, np.log10])
def test_logarithms_of_a_scan_are_told(log: Callable[[np.ndarray], np.ndarray]) -> None:
    counts = np.round(noisy() * (800 / noisy().max())) + 1
    assert [one.tag for one in logarithms(log(counts).astype(np.float32))] == [
        "warning:log-transformed"
    ]
    for usual in (counts, noisy(), counts / 37, np.sqrt(counts)):
        assert logarithms(usual.astype(np.float32)) == []

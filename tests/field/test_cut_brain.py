"""Brain that was cut off or emptied, and masks that a stripped scan brings along."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from deepmrseg_bids.imaging.nifti import Volume
from deepmrseg_bids.tasks.brain import find_brain, segment
from deepmrseg_bids.tasks.qc import check_brain
from tests.field.real_head import as_read, head, pool, usual_brain

TOP = 70  # slices of 2 mm; the brain reaches higher


def codes(volume: Volume) -> dict[str, str]:
    found = find_brain(volume, pool()("brain"))
    return {one.code: one.severity for one in found.findings}


def mask() -> np.ndarray:
    return usual_brain().mask_on(head().grid)


def stripped(value: float = 0.0) -> np.ndarray:
    return np.where(mask(), head().data, value)


def emptied(data: np.ndarray, first: int, last: int) -> Volume:
    data = data.copy()
    data[:, :, first:last] = 0
    return replace(head(), data=data)


def test_a_whole_head_has_no_finding() -> None:
    assert {one.severity for one in usual_brain().findings} <= {"info"}


@pytest.mark.parametrize(("first", "last"), [(TOP, None), (50, 56)], ids=["the top", "a slab"])
def test_brain_that_was_emptied_is_told(first: int, last: int | None) -> None:
    found = codes(emptied(head().data, first, last or head().data.shape[2]))
    assert found["brain-cut"] == "warning"


def test_brain_that_is_wrapped_around_is_told() -> None:
    rolled = np.roll(head().data, 25, axis=2)
    assert "brain-cut" in codes(replace(head(), data=rolled))


@pytest.mark.parametrize("name", ["zero", "z-scored", "offset", "bright around"])
def test_a_stripped_head_keeps_its_mask(name: str) -> None:
    inside = head().data[mask()]
    data = {
        "zero": stripped(),
        "z-scored": np.where(mask(), (head().data - inside.mean()) / inside.std(), 0),
        "offset": stripped() - 1024,
        "bright around": stripped(50 * float(inside.max())),
    }[name]
    volume = as_read(data)
    found = find_brain(volume, pool()("brain"))
    written = segment(volume, found, pool()("brain"))
    assert written.measures[0].volume_mm3 == pytest.approx(mask().sum() * 8, rel=0.01)
    assert written.measures[0].low_mm3 is None
    told = {one.code: one for one in found.findings}
    assert "its own mask" in told["skull-stripped"].message and "brain-cut" not in told


def test_a_stripped_brain_without_its_top_is_told() -> None:
    assert codes(emptied(stripped(), TOP - 6, head().data.shape[2]))["brain-cut"] == "warning"


def test_the_volume_of_a_stripped_half_is_told_as_it_is_written() -> None:
    data = stripped()
    data[: data.shape[0] // 2] = 0
    volume = replace(head(), data=data)
    found = find_brain(volume, pool()("brain"))
    written = segment(volume, found, pool()("brain")).measures[0].volume_mm3 / 1000
    told = {one.code: one.message for one in found.findings}
    assert "brain-cut" in told
    assert (f"brain volume {written:.0f} ml" in told.get("brain-volume", "")) == (written < 850)
    assert f"({written:.0f} ml;" in told["skull-stripped"]


@pytest.mark.parametrize(("noise", "told"), [(0.0, "skull-stripped"), (0.03, "mask-doubtful")])
def test_noise_around_a_stripped_brain_is_told(noise: float, told: str) -> None:
    rng = np.random.default_rng(0)
    level = noise * float(np.median(head().data[mask()]))
    data = np.where(mask(), head().data, np.abs(rng.normal(0, level or 1e-9, head().data.shape)))
    found = check_brain(mask(), data, head().grid, head().grid, confidence=0.97)
    skin = ndimage.binary_dilation(mask(), iterations=9) & ~ndimage.binary_dilation(
        mask(), iterations=6
    )
    scalp = np.where(skin, np.median(head().data[mask()]), data)
    whole = check_brain(mask(), scalp, head().grid, head().grid, confidence=0.97)
    assert told in {one.code for one in found}
    assert {"skull-stripped", "mask-doubtful"}.isdisjoint(one.code for one in whole)

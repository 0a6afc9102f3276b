"""What is not a T1w, but named so, is told by the order of its tissues."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy import ndimage

from deepmrseg_bids.imaging.grid import Grid
from deepmrseg_bids.tasks.contrast import check_contrast
from tests.field.real_head import as_read, head, usual_brain

FLUID, GREY, WHITE = 0.35, 0.72, 1.0  # of the head's own white matter
CONTRASTS = {"FLAIR": (0.3, 1.15, 1.0), "PD": (1.25, 1.2, 1.0), "T2w": (2.2, 1.4, 1.0),
             "a child of three months": (0.4, 1.2, 1.0)}  # fmt: skip


def mask() -> np.ndarray:
    return usual_brain().mask_on(head().grid)


def with_levels(fluid: float, grey: float, white: float) -> np.ndarray:
    """The same head with other levels of its three tissues."""
    data = head().data / np.percentile(head().data[mask()], 90)
    inner = np.interp(data, (0, FLUID, GREY, WHITE, 1.5), (0, fluid, grey, white, 1.5 * white))
    return np.where(mask(), inner, data)


def surface() -> np.ndarray:
    return np.exp(-ndimage.distance_transform_edt(mask()) * 2.0 / 15)


def tags(data: np.ndarray, grid: Grid | None = None) -> set[str]:
    volume = as_read(data, grid)
    return {one.tag for one in check_contrast(mask(), volume.data, volume.grid)}


@pytest.mark.robustness(
    "a FLAIR, a T2w or a PD named T1w",
    tried="the tissues of a good head with the levels of a FLAIR, a PD, a T2w, a child of three "
    "months",
)
def test_other_orders_of_tissues_are_errors(came_out: Callable[[str], None]) -> None:
    told = {name: tags(with_levels(*levels)) for name, levels in CONTRASTS.items()}
    assert set(map(frozenset, told.values())) == {frozenset({"error:contrast-doubtful"})}, told
    came_out("error contrast-doubtful")


T1W: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "as it is": lambda d: d,
    "brighter on one side": lambda d: d * np.exp(np.linspace(-0.4, 0.4, d.shape[1]))[:, None],
    "of much noise": lambda d: np.abs(d + np.random.default_rng(0).normal(0, 0.15, d.shape)),
    "blurred": lambda d: ndimage.gaussian_filter(d, 1.3),
    "z-scores": lambda d: (d - d.mean()) / d.std(),
    "stripped": lambda d: np.where(mask(), d, 0),
    "brighter towards the surface": lambda d: d * (1 + 0.4 * surface()),
}


@pytest.mark.parametrize("kind", T1W)
def test_a_t1w_is_one_however_it_is_lit(kind: str) -> None:
    data = head().data / np.percentile(head().data[mask()], 90)
    assert "error:contrast-doubtful" not in (found := tags(T1W[kind](data)))
    assert not found or kind == "brighter towards the surface"

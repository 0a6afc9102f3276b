"""Whether a FLAIR has the contrast of one: thick slices, tight extraction, many lesions, others."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from scipy import ndimage

from deepmrseg_bids.imaging.grid import Grid, centred_grid
from deepmrseg_bids.tasks.flair_contrast import MOST_STEP, check_flair, tissue_step
from tests.tasks.phantom import paint

GRID = centred_grid((0, 0, 0), (80, 96, 76), 2.0)
BRAIN, TISSUE, WHITE = (70, 84, 64), (67, 81, 61), (61, 75, 55)
VENTRICLES = ((-14, 0, 10), (9, 34, 10)), ((14, 0, 10), (9, 34, 10))
SULCI = [((s * 45, y, 40), (20, 2, 26)) for s in (-1, 1) for y in range(-60, 61, 24)]
# fluid, cortex, white matter
FLAIR, T1W = (30.0, 115.0, 100.0), (30.0, 75.0, 110.0)
T2W, PD = (300.0, 120.0, 90.0), (105.0, 110.0, 95.0)


@cache
def head(levels: tuple[float, float, float]) -> np.ndarray:
    """A brain with fluid around it and in it; sulci are lined with cortex."""
    fluid, cortex, white = levels
    lining = [(centre, tuple(r + 5 for r in radii), cortex) for centre, radii in SULCI]
    parts = [((0, 0, 0), BRAIN, fluid), ((0, 0, 0), TISSUE, cortex), ((0, 0, 0), WHITE, white)]
    inner = [(centre, radii, fluid) for centre, radii in (*SULCI, *VENTRICLES)]
    image = paint(GRID, [*parts, *lining, *inner])
    image[paint(GRID, [((0, 0, 0), BRAIN, 1.0)]) == 0] = 0
    rng = np.random.default_rng(1)
    return ndimage.gaussian_filter(image, 0.6) + rng.normal(0, 2, image.shape) * (image > 0)


INSIDE = paint(GRID, [((0, 0, 0), BRAIN, 1.0)]) > 0


def with_lesions(image: np.ndarray) -> np.ndarray:
    """A wide bright rim around the ventricles."""
    rims = [(centre, tuple(r + 9 for r in radii), 1.0) for centre, radii in VENTRICLES]
    rim = (paint(GRID, rims) > 0) & (image > 60)
    return np.where(rim, 1.6 * image, image)


def odd(image: np.ndarray, inside: np.ndarray = INSIDE) -> list[str]:
    return [f"{one.severity}:{one.message}" for one in check_flair(image, inside, GRID)]


VARIANTS = {
    "as it is": lambda image: (image, INSIDE),
    "tight": lambda image: (image, ndimage.binary_erosion(INSIDE, iterations=2)),
    "thick": lambda image: (ndimage.uniform_filter1d(image, 3, axis=2), INSIDE),
}


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("lesions", [False, True])
def test_a_flair_is_one_also_brain_extracted_thick_and_full_of_lesions(variant, lesions):
    image = head(FLAIR)
    assert odd(*VARIANTS[variant](with_lesions(image) if lesions else image)) == []


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(
    ("levels", "said"), [(T1W, "is it a T1w"), (T2W, "T2w"), (PD, "T2w or PD")]
)
def test_other_contrasts_are_an_error_that_names_them(variant, levels, said):
    (found,) = odd(*VARIANTS[variant](head(levels)))
    assert found.startswith("error:FLAIR: ") and said in found


def test_lesions_around_the_ventricles_make_no_step():
    image = head(FLAIR)
    plain, ill = (tissue_step(one, INSIDE, GRID) for one in (image, with_lesions(image)))
    assert ill <= plain + 0.01 < MOST_STEP < tissue_step(head(T1W), INSIDE, GRID)


def test_an_empty_brain_and_one_without_a_cortex_say_nothing():
    nothing = np.zeros(GRID.shape, bool)
    assert check_flair(head(FLAIR), nothing, GRID) == []
    nothing[40:43, 48:51, 38:41] = True
    assert tissue_step(head(FLAIR), nothing, GRID) == 1.0


def test_other_voxels_than_those_of_the_network_are_not_called_a_t1w():
    small = Grid(GRID.shape, np.diag([1.0, 1.0, 1.0, 1.0]))
    assert check_flair(head(T1W), INSIDE, small) == []

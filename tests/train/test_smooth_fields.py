"""Smooth fields are what torch's interpolation makes of the same few values."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from deepmrseg_bids.train.smooth_fields import smooth


@pytest.mark.parametrize(
    ("points", "size", "mode"),
    [((6, 6), (33, 20), "bicubic"), ((7, 4), (5, 40), "bicubic"),
     ((6, 6, 6), (33, 20, 14), "trilinear")],
)  # fmt: skip
def test_a_field_is_what_interpolation_gives(points, size, mode: str) -> None:
    knots = np.random.default_rng(0).standard_normal((2, *points), dtype=np.float32)
    wanted = functional.interpolate(
        torch.from_numpy(knots)[None], size=size, mode=mode, align_corners=True
    )[0]
    np.testing.assert_allclose(smooth(knots, size), wanted.numpy(), atol=2e-6)


def test_a_constant_stays_constant() -> None:
    np.testing.assert_allclose(smooth(np.full((1, 6, 6), 3, np.float32), (17, 9)), 3, rtol=1e-6)

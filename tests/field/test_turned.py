"""A head that lies otherwise than its header says: turned over, or with axes exchanged."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from deepmrseg_bids.imaging.grid import Grid
from deepmrseg_bids.imaging.nifti import Volume
from deepmrseg_bids.inference.predictor import Predictor
from deepmrseg_bids.tasks.brain import check_orientation, find_brain, may_be_turned
from tests.field.real_head import head, pool, usual_brain


def turned(order: tuple[int, int, int], flips: tuple[int, ...] = ()) -> Volume:
    """The voxels in another order, under the same header."""
    data = np.ascontiguousarray(np.flip(head().data.transpose(order), flips))
    return replace(head(), data=data, grid=Grid(data.shape, head().grid.affine))


def test_a_head_that_lies_as_its_header_says_costs_no_look() -> None:
    assert not may_be_turned(usual_brain())


def test_a_head_that_lies_well_is_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[int] = []
    whole = Predictor.__call__

    def counted(self: Predictor, image: np.ndarray) -> np.ndarray:
        looks.append(1)
        return whole(self, image)

    monkeypatch.setattr(Predictor, "__call__", counted)
    assert check_orientation(head(), pool()("brain")) == () and len(looks) == 1


@pytest.mark.robustness(
    "axes exchanged in the header", tried="bottom-top and back-front of a good head exchanged"
)
def test_exchanged_axes_are_told(came_out: Callable[[str], None]) -> None:
    volume = turned((0, 2, 1))
    assert may_be_turned(find_brain(volume, pool()("brain")))
    (found,) = check_orientation(volume, pool()("brain"))
    assert found.tag == "error:orientation-doubtful"
    assert "bottom-top in the header is back-front of the head" in found.message
    assert "back-front in the header is bottom-top of the head" in found.message
    came_out("error orientation-doubtful reports which axes are exchanged")

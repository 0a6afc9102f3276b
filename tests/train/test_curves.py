"""Learning curves: what the tables say is what is drawn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deepmrseg_bids.train.curves import draw_curves, smoothed, write_curves

STEPS = [
    {"step": str(k), "loss": f"{3 / k:.5f}", "learning_rate": f"{k / 100:.6f}"}
    for k in range(1, 101)
]
SCORES = [
    {"step": str(step), "mean": str(mean), "Ball": str(mean), "Cube": "nan"}
    for step, mean in ((50, 0.5), (100, 0.7))
]


def panels(figure) -> dict:
    return {axes.get_label(): axes for axes in figure.axes}


def lines(axes) -> dict:
    return {line.get_label(): line for line in axes.get_lines()}


def test_without_validation_the_loss_and_the_rate_are_drawn() -> None:
    found = panels(draw_curves(STEPS, [], title="toy"))
    assert set(found) == {"loss", "rate"}
    raw, smooth = found["loss"].get_lines()
    assert np.allclose(raw.get_ydata(), [3 / k for k in range(1, 101)], atol=1e-5)
    assert np.all(np.diff(smooth.get_ydata()) < 0)
    assert found["rate"].get_lines()[0].get_ydata()[-1] == 1
    heights = [found[name].get_position().height for name in ("loss", "rate")]
    assert heights[0] > heights[1]


def test_validations_are_drawn_label_by_label() -> None:
    figure = draw_curves(STEPS, SCORES, title="toy")
    found = lines(panels(figure)["Dice"])
    assert set(found) == {"Ball", "Cube", "mean"}
    assert found["mean"].get_xydata().tolist() == [[50, 0.5], [100, 0.7]]
    assert figure.get_suptitle() == "toy"


def test_the_kept_step_is_marked() -> None:
    found = panels(draw_curves(STEPS, SCORES, title="toy", kept=50))
    for name in ("loss", "Dice"):
        assert set(lines(found[name])["kept: step 50"].get_xdata()) == {50}
    assert all("kept" not in str(name) for name in lines(found["rate"]))


def test_one_step_is_enough(tmp_path: Path) -> None:
    write_curves(draw_curves(STEPS[:1], SCORES[:1], title="toy"), tmp_path / "curves.png")
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert [p.name for p in tmp_path.iterdir()] == ["curves.png"]


@settings(deadline=None)
@given(st.lists(st.floats(-100, 100), min_size=1, max_size=60), st.integers(0, 80))
def test_smoothing_keeps_length_and_bounds_and_leaves_a_constant(values, window: int) -> None:
    given_ = np.array(values)
    found = smoothed(given_, window)
    assert found.shape == given_.shape
    assert given_.min() - 1e-9 <= found.min() <= found.max() <= given_.max() + 1e-9
    assert np.allclose(smoothed(np.full(len(values), 2.5), window), 2.5)
    assert smoothed(given_, 1) == pytest.approx(given_, abs=1e-9)

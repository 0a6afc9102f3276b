"""The learning curves of a run as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from deepmrseg_bids.files import replacing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["draw_curves", "smoothed", "write_curves"]


def smoothed(values: NDArray[np.float64], window: int) -> NDArray[np.float64]:
    """(n,) means over ``window`` neighbours; at both ends over those that are there.

    >>> smoothed(np.array([0.0, 3.0, 6.0, 9.0]), 3).tolist()
    [1.5, 3.0, 6.0, 7.5]
    """
    window = max(1, min(window, len(values)))
    total = np.concatenate([[0.0], np.cumsum(values)])
    place = np.arange(len(values))
    low = np.maximum(place - (window - 1) // 2, 0)
    high = np.minimum(place + window // 2 + 1, len(values))
    means: NDArray[np.float64] = (total[high] - total[low]) / (high - low)
    return means


def draw_curves(
    steps: Sequence[Mapping[str, str]],
    scores: Sequence[Mapping[str, str]],
    *,
    title: str,
    kept: int | None = None,
) -> Figure:
    """Loss and learning rate of each step, and, if there are validations, their Dice.

    Args:
        steps: the rows of ``log.csv``.
        scores: the rows of ``validation.csv``.
        kept: the step whose weights are kept, to be marked; None marks nothing.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 5) if scores else (6, 5), layout="constrained")
    mosaic: Any = [["loss", "Dice"], ["rate", "Dice"]] if scores else [["loss"], ["rate"]]
    panels: dict[str, Any] = figure.subplot_mosaic(mosaic, height_ratios=[3, 1])
    at, loss = _column(steps, "step"), _column(steps, "loss")
    panels["loss"].plot(at, loss, color="C0", alpha=0.35, lw=0.5)
    panels["loss"].plot(at, smoothed(loss, len(loss) // 25), color="C0", lw=1.5, label="smoothed")
    panels["loss"].set(ylabel="loss", yscale="log")
    panels["rate"].plot(at, _column(steps, "learning_rate"), color="C1", lw=1)
    panels["rate"].set(xlabel="step", ylabel="learning rate")
    if scores:
        _draw_dice(panels["Dice"], scores)
    if kept is not None:
        for name in set(panels) - {"rate"}:
            panels[name].axvline(kept, color="k", ls=":", lw=1, label=f"kept: step {kept}")
    for name in set(panels) - {"rate"}:
        panels[name].legend(fontsize=6)
    figure.suptitle(title)
    return figure


def _draw_dice(panel: Any, scores: Sequence[Mapping[str, str]]) -> None:
    at = _column(scores, "step")
    for name in list(scores[0])[2:]:
        panel.plot(at, _column(scores, name), lw=0.8, label=name)
    panel.plot(at, _column(scores, "mean"), "k.-", lw=2, label="mean")
    panel.set(xlabel="step", ylabel="Dice on held-out samples", ylim=(0, 1))


def _column(rows: Sequence[Mapping[str, str]], name: str) -> NDArray[np.float64]:
    return np.array([float(row[name]) for row in rows])


def write_curves(figure: Figure, path: Path) -> None:
    """Save as PNG beside the final name, then move it there."""
    with replacing(path) as part:
        figure.savefig(part, dpi=100, format="png")

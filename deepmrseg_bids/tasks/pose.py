"""How a head lies in the scanner, by where its deep structures lie to each other."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from deepmrseg_bids.imaging.labels import LabelTable
from deepmrseg_bids.tasks.results import Posteriors

__all__ = ["TILTED_DEG", "tilt", "upright_axes"]

TILTED_DEG = 10.0
"""Heads that are turned by more are looked at again; of 28 people scanned with care the most
turned one has 6 degrees."""
_FEWEST = 8  # structures that tell how a head lies

_DECIMALS = 6  # so that the crop does not depend on how a library rounds
# centres on the right, millimetres to the right, front and top of the middle of all; the mean of
# 28 manual segmentations of both sides
_CENTRES: Mapping[str, tuple[float, float, float]] = {
    "Accumbens-Area": (8.7, 15.6, -2.0),
    "Amygdala": (20.2, -0.4, -14.1),
    "Caudate": (12.3, 11.7, 13.0),
    "Hippocampus": (23.5, -16.7, -10.2),
    "Pallidum": (18.2, 0.0, 2.0),
    "Putamen": (23.1, 4.6, 4.0),
    "Thalamus-Proper": (10.8, -14.8, 7.4),
}


def upright_axes(found: Posteriors, table: LabelTable) -> NDArray[np.float64] | None:
    """(3, 3) unit vectors towards right, front and top of the head, as columns.

    None where too few structures are known or were found.
    """
    labels = found.labels()
    known = {
        number: place
        for number, label in enumerate(table, start=1)
        if (place := _place(label.name)) is not None and (labels == number).any()
    }
    if len(known) < _FEWEST:
        return None
    centres = ndimage.center_of_mass(labels > 0, labels, list(known))
    seen = found.grid.to_world(np.array(centres))
    usual = np.array(list(known.values()))
    u, _, v = np.linalg.svd((seen - seen.mean(axis=0)).T @ (usual - usual.mean(axis=0)))
    turn: NDArray[np.float64] = u @ np.diag([1, 1, np.sign(np.linalg.det(u @ v))]) @ v
    return np.round(turn, _DECIMALS)


def tilt(axes: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """The angle between two sets of axes (3, 3), degrees.

    >>> round(tilt(np.eye(3), np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])))
    90
    """
    cosine = (np.trace(axes.T @ other) - 1) / 2
    return float(np.degrees(np.arccos(np.clip(cosine, -1, 1))))


def _place(name: str) -> tuple[float, float, float] | None:
    side, _, structure = name.partition("-")
    if side not in ("Left", "Right") or structure not in _CENTRES:
        return None
    x, y, z = _CENTRES[structure]
    return (x if side == "Right" else -x), y, z

"""Reference centiles of volumes by age and sex, from a table of the user."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deepmrseg_bids.errors import DatasetError, UsageError
from deepmrseg_bids.tsv import NOT_KNOWN, read_foreign_tsv

__all__ = ["Curve", "Norms", "read_norms", "sex_of"]

_CENTILE = re.compile(r"centile_(\d+(?:\.\d+)?)")


@dataclass(frozen=True)
class Curve:
    """The centiles of one structure for one sex.

    Attributes:
        ages: ``(A,)`` rising.
        volumes: ``(A, C)`` in mm3, one column for each centile, rising.
    """

    ages: NDArray[np.float64]
    volumes: NDArray[np.float64]


@dataclass(frozen=True)
class Norms:
    """Reference centiles.

    Attributes:
        centiles: ``(C,)`` from 0 to 100, rising.
        curves: by structure and sex (``f``, ``m``, or empty for both).
    """

    centiles: tuple[float, ...]
    curves: Mapping[tuple[str, str], Curve]

    def centile(self, name: str, sex: str, age: float, volume: float) -> float:
        """Where a volume stands: linear between the nearest ages and centiles.

        A volume outside the outermost centiles has the outermost one; nan without a curve or
        outside its ages.
        """
        curve = self.curves.get((name, sex_of(sex))) or self.curves.get((name, ""))
        if curve is None or not np.isfinite([age, volume]).all():
            return float("nan")
        if not curve.ages[0] <= age <= curve.ages[-1]:
            return float("nan")
        here = [float(np.interp(age, curve.ages, column)) for column in curve.volumes.T]
        return float(np.interp(volume, here, self.centiles))


def sex_of(text: str) -> str:
    """``f`` or ``m`` for the usual words of both; empty for others.

    >>> sex_of("Female"), sex_of("M"), sex_of("n/a")
    ('f', 'm', '')
    """
    first = text.strip().lower()[:1]
    return {"f": "f", "w": "f", "m": "m"}.get(first, "")


def read_norms(path: Path) -> Norms:
    """Read a table with ``name``, ``sex``, ``age`` and columns such as ``centile_5``.

    Raises:
        UsageError: it cannot be read, lacks a column, or its centiles do not rise.
    """
    try:
        table = read_foreign_tsv(path)
        table.require("name", "age")
        columns = {c: float(m[1]) for c in table.columns if (m := _CENTILE.fullmatch(c))}
        if len(columns) < 2:
            raise DatasetError(f"{path}: it needs two columns such as centile_5 and centile_95")
        frame = table.frame(["age", *columns])
    except DatasetError as error:
        raise UsageError(f"--norms: {error}") from error
    order = sorted(columns, key=lambda column: columns[column])
    frame = frame.assign(sex=[sex_of(row.get("sex", NOT_KNOWN)) for row in table.rows])
    curves = {}
    for (name, sex), rows in frame.groupby(["name", "sex"]):
        ordered = rows.dropna(subset=["age", *order]).sort_values("age")
        volumes = ordered[order].to_numpy(dtype=np.float64)
        if not len(ordered) or (np.diff(volumes, axis=1) < 0).any():
            raise UsageError(f"--norms: {path}: {name}: centiles must be numbers that rise")
        curves[(str(name), str(sex))] = Curve(ordered["age"].to_numpy(dtype=np.float64), volumes)
    return Norms(tuple(columns[column] for column in order), curves)

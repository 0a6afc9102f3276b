"""Reference centiles of volumes by age and sex, from a table of the user."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
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

    def at(self, ages: NDArray[np.float64] | np.float64) -> NDArray[np.float64]:
        """The volumes at other ages, ``(..., C)``: linear between the nearest ones."""
        return np.stack([np.interp(ages, self.ages, one) for one in self.volumes.T], axis=-1)


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
        curve = self.curve(name, sex)
        if curve is None or not np.isfinite([age, volume]).all():
            return float("nan")
        if not curve.ages[0] <= age <= curve.ages[-1]:
            return float("nan")
        return float(np.interp(volume, curve.at(np.float64(age)), self.centiles))

    def curve(self, name: str, sex: str) -> Curve | None:
        """The curve of a structure for one sex, or else for both; None if there is none."""
        return self.curves.get((name, sex_of(sex))) or self.curves.get((name, ""))

    def of(self, names: Collection[str]) -> Norms:
        """The same with the curves of these structures alone."""
        kept = {key: curve for key, curve in self.curves.items() if key[0] in names}
        return Norms(self.centiles, kept)

    @property
    def names(self) -> frozenset[str]:
        """The structures that it has curves of."""
        return frozenset(name for name, _ in self.curves)


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

"""What a volume is expected to be, by age, sex and head size, and how far from it each one is."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
from scipy.stats import median_abs_deviation

__all__ = ["FEWEST_PER_TERM", "FEWEST_SPLINE", "Covariates", "Expected", "expected"]

FEWEST_PER_TERM = 5
"""So many sessions for each coefficient, at the least: with fewer there is no model."""
FEWEST_SPLINE = 60
"""With so many sessions age is a natural cubic spline (3 degrees of freedom), else a line."""
_SPLINE = 3

_Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Covariates:
    """What is known of each session; nan or an empty text where it is not.

    Attributes:
        age: ``(sessions,)`` in years, or whatever the data set counts in.
        sex: ``(sessions,)`` as the data set writes it.
    """

    age: _Floats
    sex: npt.NDArray[np.object_]

    @cached_property
    def columns(self) -> Mapping[str, _Floats]:
        """Their columns of a model by the name of the term; the same for all structures."""
        columns: dict[str, _Floats] = {}
        if _varies(self.age):
            n = int(np.isfinite(self.age).sum())
            columns |= _spline(self.age) if n >= FEWEST_SPLINE else {"age": self.age}
        sexes = self.sex.tolist()
        values = sorted({one for one in sexes if one})
        if 2 <= len(values) <= 4:
            known = np.array([bool(one) for one in sexes])
            for value in values[1:]:
                is_it = np.array([one == value for one in sexes], dtype=float)
                columns[f"sex {value}"] = np.where(known, is_it, np.nan)
        return columns


@dataclass(frozen=True)
class Expected:
    """A model of one structure.

    Attributes:
        volumes: ``(sessions,)`` expected, in mm3; nan where a covariate is not known.
        z: ``(sessions,)`` volume minus expected, in robust standard deviations of that.
        terms: of the model, besides the intercept; empty if there is no model.
        n: sessions that it was fitted to.
        sd: the robust standard deviation, mm3.
        lacking: terms of the model that the sessions are too few for.
    """

    volumes: _Floats
    z: _Floats
    terms: tuple[str, ...]
    n: int
    sd: float
    lacking: tuple[str, ...] = ()


def expected(
    volumes: npt.ArrayLike,
    covariates: Covariates,
    *,
    brains: npt.ArrayLike | None = None,
    usable: npt.ArrayLike | None = None,
) -> Expected:
    """Fit a robust regression of volumes on age, sex and head size.

    Huber's M-estimator (Huber and Ronchetti, Robust Statistics, 2009; statsmodels' RLM): sessions
    far from the others bend it little. The scale is 1.4826 times the median absolute deviation of
    the residuals. A covariate that is the same or unknown in (nearly) all sessions is left out.

    Args:
        volumes, brains: ``(sessions,)`` in mm3; without brains their size is no covariate.
        usable: ``(sessions,)`` boolean: the model is fitted to these only.
    """
    import statsmodels.api as sm

    v = np.asarray(volumes, dtype=np.float64)
    nothing = np.full(v.shape, np.nan)
    columns = _columns(covariates, None if brains is None else np.asarray(brains, float))
    if not columns:
        return Expected(nothing, nothing, (), 0, np.nan)
    design = np.column_stack([np.ones(len(v)), *(_scaled(c) for c in columns.values())])
    known = np.isfinite(v) & np.isfinite(design).all(axis=1)
    fitted = known if usable is None else known & np.asarray(usable, dtype=bool)
    n = int(fitted.sum())
    if n < FEWEST_PER_TERM * design.shape[1]:
        return Expected(nothing, nothing, (), n, np.nan, lacking=tuple(columns))
    if np.linalg.matrix_rank(design[fitted]) < design.shape[1]:
        return Expected(nothing, nothing, (), n, np.nan)
    with warnings.catch_warnings():  # it stops after 50 steps, which is near enough
        warnings.simplefilter("ignore")
        found = sm.RLM(v[fitted], design[fitted], M=sm.robust.norms.HuberT()).fit()
    guess = np.where(np.isfinite(design).all(axis=1), design @ found.params, np.nan)
    sd = float(median_abs_deviation((v - guess)[fitted], scale="normal"))
    z = (v - guess) / sd if sd > 0 else nothing
    return Expected(guess, z, tuple(columns), n, sd)


def _columns(covariates: Covariates, brains: _Floats | None) -> Mapping[str, _Floats]:
    """The columns of the model by the name of their term; several of one term have numbers."""
    columns = dict(covariates.columns)
    if brains is not None and _varies(brains):
        columns["head size"] = brains
    return columns


def _spline(age: _Floats) -> dict[str, _Floats]:
    from patsy import dmatrix

    known = np.isfinite(age)
    basis = np.full((len(age), _SPLINE), np.nan)
    formula = f"cr(age, df={_SPLINE}, constraints='center') - 1"
    basis[known] = np.asarray(dmatrix(formula, {"age": age[known]}))
    return {f"age (spline {k + 1})": basis[:, k] for k in range(_SPLINE)}


def _varies(values: _Floats) -> bool:
    known = values[np.isfinite(values)]
    return known.size * 2 > values.size and bool(np.ptp(known) > 0)


def _scaled(column: _Floats) -> _Floats:
    """The same around 0, of size 1: the fit is then well conditioned."""
    spread = float(np.nanstd(column))
    return (column - np.nanmean(column)) / (spread or 1.0)

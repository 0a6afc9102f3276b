"""ComBat: sites come to one mean, effects of covariates stay."""

from __future__ import annotations

import importlib.util

import numpy as np
import pandas as pd
import pytest

from deepmrseg_bids.errors import MetricError
from deepmrseg_bids.metrics.harmonise import harmonised
from tests.support import unavailable

N = 60


def study() -> tuple[pd.DataFrame, np.ndarray, pd.DataFrame]:
    draw = np.random.default_rng(1)
    age = draw.uniform(20, 80, N)
    sites = np.repeat(["A", "B", "C"], N // 3).astype(object)
    noise = draw.normal(0, 20, (N, 5))
    values = 1000 - 5 * age[:, None] + np.where(sites == "B", 150, 0)[:, None] + noise
    return pd.DataFrame(values, columns=list("vwxyz")), sites, pd.DataFrame({"age": age})


def need_combat() -> None:
    """``make setup`` installs the extra."""
    if importlib.util.find_spec("combatlearn") is None:
        unavailable("combatlearn not found: pip install '.[harmonise]'")


def test_sites_come_to_one_mean_and_the_effect_of_age_stays() -> None:
    need_combat()
    volumes, sites, covariates = study()
    sites[0] = ""
    found, terms = harmonised(volumes, sites, covariates)
    assert (
        terms == ("age",) and found.iloc[0].isna().all() and found.iloc[1:].notna().all(axis=None)
    )
    rest = found + 5 * covariates["age"].to_numpy()[:, None]
    means = rest.mean(axis=1).groupby(sites).mean()
    assert means[["A", "B", "C"]].std() < 10
    slope = np.polyfit(covariates["age"][1:], found.mean(axis=1)[1:], 1)[0]
    assert slope == pytest.approx(-5, abs=0.5)


def test_one_site_or_a_missing_package_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    volumes, sites, covariates = study()
    monkeypatch.setitem(__import__("sys").modules, "combatlearn", None)
    with pytest.raises(MetricError, match="pip install"):
        harmonised(volumes, sites, covariates)


def test_too_few_sites_are_told() -> None:
    need_combat()
    volumes, _, covariates = study()
    with pytest.raises(MetricError, match="two sites"):
        harmonised(volumes, np.full(N, "A", dtype=object), covariates)

"""What a volume is expected to be: recovered effects, outliers, missing values, splines."""

from __future__ import annotations

import numpy as np
import pytest

from deepmrseg_bids.metrics.expected import Covariates, expected


def people(n: int, seed: int = 1) -> tuple[Covariates, np.ndarray, np.ndarray]:
    """Ages, sexes and brains, and volumes that follow from them with an SD of 50 mm3."""
    draw = np.random.default_rng(seed)
    age, brain = draw.uniform(20, 80, n), draw.normal(1.4e6, 1e5, n)
    sex = np.array([("F", "M")[k % 2] for k in range(n)], dtype=object)
    clean = 4000 - 10 * age + 200 * (sex == "M") + 0.001 * (brain - 1.4e6)
    return Covariates(age, sex), brain, clean + draw.normal(0, 50, n)


def test_effects_are_taken_out_and_z_has_the_scale_of_the_noise() -> None:
    covariates, brain, volumes = people(50)
    found = expected(volumes, covariates, brains=brain)
    assert found.terms == ("age", "sex M", "head size") and found.n == 50
    assert found.sd == pytest.approx(50, rel=0.4)
    for of in (covariates.age, brain, (covariates.sex == "M").astype(float)):
        assert abs(np.corrcoef(found.z, of)[0, 1]) < 0.25


def test_an_outlier_bends_the_model_little_and_stands_out() -> None:
    covariates, brain, volumes = people(50)
    before = expected(volumes, covariates, brains=brain)
    volumes[7] += 2000
    after = expected(volumes, covariates, brains=brain)
    assert after.z[7] > 20
    assert np.abs(after.volumes - before.volumes).max() < 40


def test_excluded_sessions_do_not_enter_the_fit_and_have_their_z() -> None:
    covariates, brain, volumes = people(50)
    usable = np.arange(50) >= 20
    volumes[:20] -= 3000
    found = expected(volumes, covariates, brains=brain, usable=usable)
    assert found.n == 30 and (found.z[:20] < -20).all()


def test_many_sessions_have_a_spline_of_age() -> None:
    covariates, brain, volumes = people(200)
    curved = volumes - 0.5 * (covariates.age - 50) ** 2
    found = expected(curved, covariates, brains=brain)
    assert "age (spline 3)" in found.terms
    assert found.sd == pytest.approx(50, rel=0.3)


def test_what_is_not_known_costs_its_session_and_a_bare_covariate_the_term() -> None:
    covariates, _, volumes = people(50)
    covariates.age[3] = np.nan
    found = expected(volumes, covariates)
    assert np.isnan(found.z[3]) and np.isfinite(np.delete(found.z, 3)).all()
    alike = Covariates(np.full(50, 40.0), covariates.sex)
    assert expected(volumes, alike).terms == ("sex M",)
    assert expected(volumes[:12], Covariates(covariates.age[:12], covariates.sex[:12])).terms == ()
    nobody = Covariates(np.full(50, np.nan), np.full(50, "", dtype=object))
    assert expected(volumes, nobody).terms == () and np.isnan(expected(volumes, nobody).z).all()

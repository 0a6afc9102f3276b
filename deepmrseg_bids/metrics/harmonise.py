"""Volumes of several sites brought to one scale with ComBat."""

from __future__ import annotations

import warnings

import numpy as np
import numpy.typing as npt
import pandas as pd

from deepmrseg_bids.errors import MetricError

__all__ = ["FEWEST_PER_SITE", "harmonised"]

FEWEST_PER_SITE = 3
"""With fewer sessions a site has no variance to speak of."""


def harmonised(
    volumes: pd.DataFrame, sites: npt.ArrayLike, covariates: pd.DataFrame
) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """ComBat (Johnson et al., Biostatistics 8, 2007; Fortin et al., NeuroImage 167, 2018).

    Args:
        volumes: ``(sessions, structures)``; a session with nan is left out.
        sites: ``(sessions,)`` text; empty where it is not known.
        covariates: ``(sessions, ...)`` whose effects are kept, numbers or text; a session that
            lacks one is left out.

    Returns:
        The harmonised volumes, nan for sessions that were left out, and the covariates used.

    Raises:
        MetricError: combatlearn is not installed, or there are not two sites of enough sessions.
    """
    try:
        from combatlearn import ComBat
    except ImportError as error:
        raise MetricError(
            "--harmonise requires combatlearn: pip install 'deepmrseg-bids[harmonise]'"
        ) from error
    site = pd.Series(np.asarray(sites, dtype=object), index=volumes.index)
    sized = volumes.loc[:, volumes.std().gt(0) & volumes.notna().any()]
    known = covariates.loc[:, [bool(covariates[c].dropna().nunique() > 1) for c in covariates]]
    usable = (site != "") & sized.notna().all(axis=1) & known.notna().all(axis=1)
    counts = site[usable].value_counts()
    usable &= site.isin(counts.index[counts >= FEWEST_PER_SITE])
    if site[usable].nunique() < 2:
        raise MetricError(
            f"--harmonise needs two sites with at least {FEWEST_PER_SITE} sessions each, with "
            f"all volumes and covariates; got {dict(counts) or 'none'}"
        )
    numbers = [c for c in known if pd.api.types.is_numeric_dtype(known[c])]
    texts = [c for c in known if c not in numbers]
    combat = ComBat(
        batch=site[usable],
        continuous_covariates=known.loc[usable, numbers] if numbers else None,
        discrete_covariates=known.loc[usable, texts] if texts else None,
        method="fortin",
    )
    out = pd.DataFrame(np.nan, index=volumes.index, columns=volumes.columns)
    with warnings.catch_warnings():  # a task of one structure has nothing to shrink towards
        warnings.simplefilter("ignore", UserWarning)
        made = np.asarray(combat.fit_transform(sized[usable]), dtype=np.float64)
    out.loc[usable.to_numpy(), sized.columns] = made
    return out, tuple(map(str, known.columns))

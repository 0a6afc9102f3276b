"""The tables of a cross-validation, of all its runs together."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from deepmrseg_bids.files import write_text
from deepmrseg_bids.train.comparison import Judged, calibration, compare, summaries
from deepmrseg_bids.train.evaluation import (
    plain,
    summary_columns,
    tsv,
    volume_intervals,
    write_rows,
)

__all__ = ["write_tables"]

_COMPARISON = ("index", "name", "measure", "first", "second", "n", "first_mean", "second_mean",
               "difference_mean", "difference_median", "w", "p", "p_holm", "rank_biserial",
               "cohens_dz")  # fmt: skip
_CALIBRATION = ("index", "name", "network", "n", "coverage", "rho")
_WHICH = ("network", "repeat", "fold")


def write_tables(
    judged: Sequence[Judged], out: Path, networks: Sequence[str], protocol: Mapping[str, Any]
) -> None:
    """Write ``per_sample.tsv``, ``summary.tsv``, ``comparison.tsv``, ``calibration.tsv`` and
    ``summary.json``; every file is moved into place when it is complete.

    Args:
        networks: those of the protocol; two are compared.
        protocol: what ``summary.json`` says of it beside the results.
    """
    columns = {name: [getattr(row, name) for row in judged] for name in _WHICH}
    write_rows([row.row for row in judged], out / "per_sample.tsv", more=columns)
    scores = summaries(judged)
    entries = [{**entry, "network": network} for network, rows in scores.items() for entry in rows]
    write_text(out / "summary.tsv", tsv((*summary_columns(entries), "network"), entries))
    tests = compare(judged, *networks) if len(networks) == 2 else []
    write_text(out / "comparison.tsv", tsv(_COMPARISON, tests))
    calibrated = [entry for network in scores for entry in calibration(judged, network)]
    write_text(out / "calibration.tsv", tsv(_CALIBRATION, calibrated))
    tree = {
        "samples": len({row.row.sample_id for row in judged}),
        **protocol,
        "f1_mean": {
            network: _finite_mean(entry["f1_mean"] for entry in rows)
            for network, rows in scores.items()
        },
        "structures": [plain(entry) for entry in entries],
        "comparison": [plain(entry) for entry in tests],
        "calibration": [plain(entry) for entry in calibrated],
        "volume_interval": {
            network: volume_intervals([row.row for row in judged if row.network == network])
            for network in scores
        },
    }
    write_text(out / "summary.json", json.dumps(tree, indent=2) + "\n")


def _finite_mean(values: Iterable[float]) -> float | None:
    kept = [value for value in values if math.isfinite(value)]
    return float(np.mean(kept)) if kept else None

"""The tables of ratings: what each rater says of each result, and how far raters agree."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import pandas as pd

from deepmrseg_bids.bids.ratings import LEVELS, Ratings
from deepmrseg_bids.bids.tables import write_table
from deepmrseg_bids.group.columns import RATINGS, RATINGS_AGREEMENT
from deepmrseg_bids.group.volumes import TaskVolumes
from deepmrseg_bids.metrics.reliability import kappa

__all__ = ["write_rating_tables"]


def write_rating_tables(
    folder: Path, volumes: Sequence[TaskVolumes], ratings: Ratings
) -> pd.DataFrame:
    """Write ``group_ratings.tsv`` and, of several raters, ``group_ratings_agreement.tsv``.

    Returns:
        The first of them: one row per session and task with volumes.
    """
    raters = ratings.raters
    named = {rater: f"rating_{rater}" if rater else "rating_unnamed" for rater in raters}
    rows: list[dict[str, Any]] = []
    for task in volumes:
        final, comments = ratings.of(task.task), ratings.comments(task.task)
        own = {rater: ratings.by(rater, task.task) for rater in raters}
        for session in task.sources:
            row: dict[str, Any] = {"participant_id": session[0], "session_id": session[1] or None,
                   "task": task.task, "rating": final.get(session),
                   "comment": comments.get(session)}  # fmt: skip
            for rater in raters:
                if session in own[rater]:
                    row[named[rater]] = own[rater][session].rating
            rows.append(row)
    columns = dict(RATINGS)
    if len(raters) > 1:
        columns |= {name: {"Description": f"Rating by {rater or 'a rater without a name'}"}
                    for rater, name in named.items()}  # fmt: skip
    table = pd.DataFrame(rows, columns=[*RATINGS, *named.values()], dtype=object)
    write_table(folder / "group_ratings.tsv", columns, table)
    if len(raters) > 1:
        agreement = [
            row
            for task in volumes
            for pair in combinations(raters, 2)
            if (row := _agreement(ratings, task.task, *pair))
        ]
        frame = pd.DataFrame(agreement, dtype=object)
        write_table(folder / "group_ratings_agreement.tsv", RATINGS_AGREEMENT, frame)
    return table


def _agreement(ratings: Ratings, task: str, one: str, other: str) -> dict[str, Any]:
    """How far two raters agree on the results that both have rated; empty without any."""
    first, second = ratings.by(one, task), ratings.by(other, task)
    pairs = [(LEVELS.index(first[key].rating), LEVELS.index(second[key].rating))
             for key in first.keys() & second.keys()]  # fmt: skip
    if not pairs:
        return {}
    found = kappa(*zip(*pairs, strict=True), levels=len(LEVELS))
    return {
        "task": task,
        "rater_1": one,
        "rater_2": other,
        "n": len(pairs),
        "agreement_percent": 100 * sum(a == b for a, b in pairs) / len(pairs),
        "kappa": found.kappa,
        "kappa_low": found.low,
        "kappa_high": found.high,
        "kappa_weighted": found.weighted,
    }

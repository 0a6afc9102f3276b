"""Volumes against what else is known of people: age, sex, head size, site, reference centiles."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from deepmrseg_bids.bids.demographics import age_column, sex_column
from deepmrseg_bids.bids.names import group_norms_path
from deepmrseg_bids.bids.norms import Norms
from deepmrseg_bids.bids.tables import write_table
from deepmrseg_bids.errors import MetricError
from deepmrseg_bids.files import file_sha256
from deepmrseg_bids.group.columns import NORMS
from deepmrseg_bids.group.volumes import TaskVolumes
from deepmrseg_bids.metrics.expected import FEWEST_PER_TERM, Covariates, Expected, expected
from deepmrseg_bids.metrics.harmonise import harmonised
from deepmrseg_bids.tsv import NOT_KNOWN, number_in

__all__ = ["Background", "MoreColumns", "against", "write_norms"]

_SIZES = {"intracranial": "intracranial volume", "brain-mask": "brain volume"}


@dataclass(frozen=True)
class Background:
    """What the raw data set says of sessions.

    Attributes:
        people: the columns of participants.tsv and sessions.tsv by session, as text.
        site: the column whose differences ComBat takes out; empty for none.
        norms: reference centiles, if some were given.
        size: of a head: ``intracranial`` or ``brain-mask``.
    """

    people: pd.DataFrame
    site: str = ""
    norms: Norms | None = None
    size: str = "intracranial"

    @property
    def age_column(self) -> str:
        """The column with ages in years; empty without one."""
        return age_column({c: map(str, self.people[c]) for c in self.people.columns})

    @property
    def sex_column(self) -> str:
        """The column with the sex; empty without one."""
        return sex_column(self.people.columns)

    def covariates(self, sessions: pd.MultiIndex) -> Covariates:
        """Age and sex of some sessions."""
        age, sex = self.age_column, self.sex_column
        ages = self._numbers(age).reindex(sessions) if age else pd.Series(np.nan, index=sessions)
        return Covariates(np.array(ages, dtype=np.float64), self.text(sex, sessions))

    def text(self, column: str, sessions: pd.MultiIndex) -> np.ndarray[Any, np.dtype[np.object_]]:
        """A column of some sessions; empty where it is not known."""
        if not column:
            return np.full(len(sessions), "", dtype=object)
        cells = self.people[column].reindex(sessions).fillna("")
        return np.array([str(c) if c != NOT_KNOWN else "" for c in cells], dtype=object)

    def _numbers(self, column: str) -> pd.Series[float]:
        cells = [number_in(str(cell)) for cell in self.people[column]]
        values = [np.nan if one is None else one for one in cells]
        return pd.Series(values, index=self.people.index, dtype=float)


@dataclass(frozen=True)
class MoreColumns:
    """Columns of the table of structures.

    Attributes:
        wide: each as ``(sessions, names)``.
        facts: what the JSON says of them.
        problems: what went wrong, one line each.
        notes: why a column is not there although the data set has what it is made from.
    """

    wide: Mapping[str, pd.DataFrame]
    facts: Mapping[str, Any]
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def against(volumes: TaskVolumes, background: Background) -> MoreColumns:
    """Volumes of a task against what is known of people.

    Sessions that raters have excluded do not enter any fit.
    """
    sizes, (size, heads) = volumes.wide("volume_mm3"), volumes.head_sizes(background.size)
    covariates = background.covariates(volumes.sessions)
    columns, facts, notes = _modelled(volumes, sizes, heads, covariates)
    problems = []
    if background.site:
        try:
            kept = volumes.usable(sizes)
            table = pd.DataFrame({"age": covariates.age, "sex": covariates.sex}, index=sizes.index)
            table["sex"] = table["sex"].replace("", None)
            if heads is not None:
                table[_SIZES[size]] = heads
            sites = background.text(background.site, volumes.sessions)
            columns["volume_harmonised_mm3"], terms = harmonised(kept, sites, _full(table))
            facts["Harmonisation"] = {
                "Method": "ComBat", "Batch": background.site, "Covariates": list(terms),
            }  # fmt: skip
        except MetricError as error:
            problems.append(f"{volumes.task}: {error}")
    if background.norms is not None:
        columns["norm_centile"] = _centiles(sizes, covariates, background.norms)
        if background.norms.of(volumes.names).curves and columns["norm_centile"].isna().all(
            axis=None
        ):
            problems.append(
                f"{volumes.task}: --norms: no session has a centile: the reference is for other "
                "ages or the other sex, or participants.tsv lacks the columns age and sex"
            )
    return MoreColumns(columns, facts, tuple(problems), tuple(notes))


def _modelled(
    volumes: TaskVolumes,
    sizes: pd.DataFrame,
    heads: pd.Series[float] | None,
    covariates: Covariates,
) -> tuple[dict[str, pd.DataFrame], dict[str, Any], list[str]]:
    """The columns of the model, what the JSON says of it, and why there is none."""
    models: dict[str, Expected] = {}
    for name in volumes.names:
        models[name] = expected(
            sizes[name],
            covariates,
            brains=heads,
            usable=volumes.usable(sizes)[name].notna(),
        )
    if not any(one.terms for one in models.values()):
        return {}, {}, _too_few(models.values())
    wide = {
        column: pd.DataFrame(
            {name: getattr(one, field) for name, one in models.items()}, index=sizes.index
        )
        for column, field in (("volume_expected_mm3", "volumes"), ("z_adjusted", "z"))
    }
    facts = {
        name: {"Terms": list(one.terms), "Sessions": one.n, "RobustSD": round(one.sd, 2)}
        for name, one in models.items()
        if one.terms
    }
    return wide, {"ExpectedVolume": facts}, []


def _too_few(models: Iterable[Expected]) -> list[str]:
    """That sessions are too few for a model of what is known of them, if that is why."""
    most = max(models, key=lambda one: one.n, default=None)
    if most is None or not most.lacking:
        return []
    terms, least = ", ".join(most.lacking), FEWEST_PER_TERM * (1 + len(most.lacking))
    text = f"a model of {terms} requires {least} sessions, {most.n} can be used"
    return [f"z_adjusted and volume_expected_mm3 are not given: {text}"]


def write_norms(folder: Path, norms: Norms, source: Path) -> Path:
    """Write ``group_norms.tsv``, from which subject reports draw their bands.

    Args:
        source: the file that the user gave.
    """
    titles = [f"centile_{centile:g}" for centile in norms.centiles]
    parts = [
        pd.DataFrame(curve.volumes, columns=titles).assign(
            name=name, sex=sex or None, age=curve.ages
        )
        for (name, sex), curve in sorted(norms.curves.items())
    ]
    table = pd.concat(parts, ignore_index=True)
    volumes = {title: {"Description": f"Volume at centile {title.removeprefix('centile_')}",
                       "Units": "mm^3"} for title in titles}  # fmt: skip
    path = folder / group_norms_path()
    facts = {"Source": source.name, "SHA256": file_sha256(source)}
    write_table(path, {**NORMS, **volumes}, table, **facts)
    return path


def _full(table: pd.DataFrame) -> pd.DataFrame:
    """Covariates that (nearly) all sessions have: one that few have would cost all others."""
    return table.loc[:, table.notna().mean() > 0.5]


def _centiles(sizes: pd.DataFrame, covariates: Covariates, norms: Norms) -> pd.DataFrame:
    def of(name: str) -> Sequence[float]:
        cells = zip(covariates.sex, covariates.age, sizes[name], strict=True)
        return [norms.centile(name, str(sex), age, volume) for sex, age, volume in cells]

    return pd.DataFrame({name: of(str(name)) for name in sizes}, index=sizes.index)

"""``group_seg-<task>_lesions.tsv``: the lesions of each session, counted by location."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import pandas as pd

from deepmrseg_bids.bids.names import group_path, lesions_path, sidecar_path
from deepmrseg_bids.bids.provenance import Digests, flaw_of
from deepmrseg_bids.bids.tables import read_lesions, write_table
from deepmrseg_bids.errors import DatasetError
from deepmrseg_bids.group.columns import LESION_PLACES, RATED
from deepmrseg_bids.group.volumes import SESSION, TaskVolumes
from deepmrseg_bids.tasks.lesions import PLACES, Lesion

__all__ = ["write_lesion_places"]

_UNKNOWN = "unknown"


def write_lesion_places(folder: Path, out_dir: Path, volumes: TaskVolumes) -> list[str]:
    """Write number and volume of the lesions of each session, all and by location.

    Args:
        folder: for the table of the group level.
        out_dir: with the tables of lesions of the sessions.

    Sessions whose lesions were never listed have n/a; without any other, there is no table.

    Returns:
        Tables of lesions that cannot be used, one line each: their sessions have n/a, too.
    """
    outputs = Digests.read(out_dir / "logs" / "outputs.tsv", root=out_dir)
    rows, problems = [], []
    for (who, when), stem in volumes.sources.items():
        table = lesions_path(f"{stem}_T1w.nii.gz", volumes.task)  # any image of the session
        row: dict[str, object] = dict(zip(SESSION, (who, when), strict=True))
        rows.append(row)
        if not _listed(out_dir, table, outputs):
            continue
        try:
            if flaw := flaw_of(out_dir, table, outputs):
                raise DatasetError(f"{out_dir / table}: {flaw}; run the session again")
            row |= _counted(read_lesions(out_dir / table))
        except DatasetError as error:
            problems.append(f"{volumes.name}: {error}")
    if not problems and all(len(row) == len(SESSION) for row in rows):
        return []
    found = volumes.rated(pd.DataFrame(rows, dtype=object))  # numbers of lesions stay whole
    columns = LESION_PLACES if volumes.ratings is None else {**LESION_PLACES, **RATED}
    write_table(folder / group_path(volumes.name, "lesions"), columns, found)
    return problems


def _listed(out_dir: Path, table: PurePosixPath, outputs: Digests) -> bool:
    """Whether the lesions of a session were written once."""
    there = (out_dir / file for file in (table, sidecar_path(table)))
    return any(file.exists() for file in there) or outputs.has(out_dir / table)


def _counted(lesions: Sequence[Lesion]) -> dict[str, object]:
    """The cells of one session."""
    cells = _cells("lesion", lesions)
    for place in (*PLACES, None):
        cells |= _cells(place or _UNKNOWN, [one for one in lesions if one.place == place])
    return cells


def _cells(name: str, lesions: Sequence[Lesion]) -> dict[str, object]:
    volume = sum((one.volume_mm3 for one in lesions), 0.0)
    return {f"{name}_count": len(lesions), f"{name}_volume_mm3": volume}

"""The tables of a study that nobody ever scanned, as the group level writes them."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from deepmrseg_bids.bids import names, tables
from deepmrseg_bids.group.columns import AGREEMENT, ASYMMETRY, QC, STRUCTURES, SUMMARY

STRUCTURE_NAMES = ("Left-Caudate", "Right-Caudate", "Left-Putamen", "Right-Putamen")


def write_table(
    path: Path, columns: Mapping[str, object], rows: Sequence[Mapping[str, object]]
) -> None:
    tables.write_table(path, columns, pd.DataFrame(rows, dtype=object))


def write_study(
    out: Path,
    sessions: int,
    *,
    structures: Sequence[str] = STRUCTURE_NAMES,
    people: bool = True,
    confidence: bool = True,
    reference: str = "",
    qc: dict[int, dict[str, object]] | None = None,
) -> None:
    """Sessions of participants who are 20 to 60 years old, F and M in turn.

    Args:
        people: whether participants.tsv has columns.
        qc: other cells of group_qc.tsv, by number of the session.
    """
    draw = random.Random(1)
    who = [{"participant_id": f"sub-{number:04}"} for number in range(sessions)]
    lines, morphs, agreements, asymmetries = [], [], [], []
    for number, session in enumerate(who):
        morph: dict[str, object] = dict(session)
        if people:
            morph |= {"age": 20 + number % 41, "sex": "FM"[number % 2], "site": "<b>A</b>"}
        for index, name in enumerate(structures, start=1):
            volume = 1000.0 * index + draw.uniform(0, 100)
            about = {**session, "index": index, "name": name}
            line = {"volume_mm3": volume, "volume_icv_percent": volume / 14000, "deviation": 0.5}
            if confidence:
                line["confidence"] = 0.95 - number / 10000 - index / 1000
            lines.append(about | line)
            morph[name] = volume
            score = {"sample_id": session["participant_id"], "reference": reference, "f1": 0.9,
                     "volume_mm3": volume, "reference_volume_mm3": volume + 10}  # fmt: skip
            agreements.append(about | score)
        morphs.append(morph)
        asymmetries.append({**session, "name": "Caudate", "asymmetry_percent": -3.0})
    write_table(out / names.group_path("deepbrain", "structures"), STRUCTURES, lines)
    write_table(out / names.group_path("deepbrain", "asymmetry"), ASYMMETRY, asymmetries)
    columns = dict.fromkeys(["participant_id", "session_id", *morphs[0], *structures])
    write_table(out / names.group_path("deepbrain"), columns, morphs)
    if reference:
        write_table(out / names.group_path("deepbrain", "agreement"), AGREEMENT, agreements)
        summary = [
            {"index": index, "name": name, "n": sessions, "n_volumes": sessions, "f1_mean": 0.9,
             "ccc": 0.75, "bias_mm3": -10.0, "limit_low_mm3": -30.0, "limit_high_mm3": 10.0,
             "reference": reference}
            for index, name in enumerate(structures, start=1)
        ]  # fmt: skip
        write_table(out / names.group_path("deepbrain", "agreement_summary"), SUMMARY, summary)
    cells: list[dict[str, object]] = []
    for number, session in enumerate(who):
        cells.append({**session, "deepbrain_status": "done", "severity": "none", "outlier": "no"})
        cells[-1]["outlier_score"] = number / sessions
        if confidence:
            sure = 0.9 - number / 10000
            cells[-1] |= {"confidence_mean": sure, "confidence_worst": sure}
        cells[-1] |= (qc or {}).get(number, {})
    write_table(out / "group_qc.tsv", QC, cells)

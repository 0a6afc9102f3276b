"""The tables of agreement with references: one row a session, summaries, and the paper's table."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from deepmrseg_bids.bids.names import group_path
from deepmrseg_bids.bids.participants import SessionKey
from deepmrseg_bids.bids.tables import write_table
from deepmrseg_bids.errors import DeepMRSegError, MetricError
from deepmrseg_bids.files import write_text
from deepmrseg_bids.group.columns import (
    AGREEMENT,
    LESION_AGREEMENT,
    LESION_SUMMARY,
    SUMMARY,
    Columns,
)
from deepmrseg_bids.imaging.nifti import read_labels
from deepmrseg_bids.metrics.label_matching import (
    Comparison,
    compare,
    joined,
    match_by_number,
    whole_brain,
)
from deepmrseg_bids.metrics.overlap import StructureAgreement, summarise
from deepmrseg_bids.metrics.reliability import bland_altman, concordance_interval, icc
from deepmrseg_bids.tsv import cell

__all__ = ["Compared", "PairJob", "compare_pair", "old_agreement", "write_agreement"]

_SCORES = ("f1", "f2", "bacc")
_MEANS = (
    "hd95_mm", "asd_mm", "volume_difference_mm3",
    "lesion_recall", "lesion_precision", "lesion_f1",
)  # fmt: skip


@dataclass(frozen=True)
class PairJob:
    """A label map of ours and the one it is compared with; plain values for another process.

    Attributes:
        labels: our index and theirs, in pairs; None to take their numbers for ours.
        by_name: the pairs come from two label tables.
        brain_mask: any label of theirs is brain.
        lesions: single lesions are compared, too.
        parts: see :class:`deepmrseg_bids.tasks.spec.TaskSpec`.
    """

    sample_id: str
    participant_id: str
    session_id: str
    task: str
    reference: str
    ours: str
    theirs: str
    their_root: str
    table: tuple[tuple[int, str], ...]
    labels: tuple[tuple[int, int], ...] | None
    by_name: bool
    brain_mask: bool = False
    lesions: bool = False
    parts: tuple[tuple[int, tuple[int, ...]], ...] = ()


@dataclass(frozen=True)
class Compared:
    """What came out of a pair: rows of the table of agreement, or why there are none.

    Attributes:
        unsuited: both images are sound, but say nothing about the task.
    """

    job: PairJob
    rows: tuple[dict[str, Any], ...] = ()
    problem: str = ""
    unsuited: bool = False


def compare_pair(job: PairJob) -> Compared:
    """Compare two label maps; what cannot be compared is told in ``problem``."""
    try:
        found = _comparison(job)
    except DeepMRSegError as error:
        message = str(error)
        where = "" if job.theirs in message or job.ours in message else f"{job.theirs}: "
        return Compared(job, problem=f"{where}{message}", unsuited=isinstance(error, MetricError))
    except Exception as error:  # whatever it is belongs to this pair, not to the others
        what = f"{type(error).__name__}: {error}"
        return Compared(job, problem=f"{job.theirs}: the comparison failed ({what})")
    return Compared(job, tuple(_row(job, one, found) for one in found.structures))


def _comparison(job: PairJob) -> Comparison:
    ours, theirs = read_labels(job.ours), read_labels(job.theirs)
    names = dict(job.table)
    if job.brain_mask:
        return compare(ours, whole_brain(theirs), {next(iter(names)): 1})
    if not job.by_name:
        theirs = joined(theirs, dict(job.parts))
    labels = dict(job.labels) if job.labels is not None else match_by_number(names, theirs)
    if not labels:
        raise MetricError(
            "it has no label table, and it does not contain all our label values; "
            "add a _dseg.tsv with index and name next to it or at the root of the "
            "reference"
        )
    return compare(ours, theirs, labels, lesions=job.lesions)


def _row(job: PairJob, one: StructureAgreement, found: Comparison) -> dict[str, Any]:
    row = {
        "sample_id": job.sample_id,
        **asdict(one),
        "name": dict(job.table)[one.index],
        "participant_id": job.participant_id,
        "session_id": job.session_id or None,
        "reference": job.reference,
        "volume_difference_mm3": abs(one.volume_mm3 - one.reference_volume_mm3),
        "presence": one.status,
        "grid": "resampled" if found.resampled else "same",
        "reference_file": Path(job.theirs).relative_to(job.their_root).as_posix(),
    }
    if (lesions := found.lesions) is not None:
        row |= {
            "lesions": lesions.n_predicted,
            "reference_lesions": lesions.n_reference,
            "lesion_recall": lesions.recall,
            "lesion_precision": lesions.precision,
            "lesion_f1": lesions.f1,
        }
    return row


def write_agreement(
    out_dir: Path,
    task: str,
    rows: Sequence[Mapping[str, Any]],
    facts: Mapping[str, Any],
    *,
    excluded: Collection[SessionKey] = (),
) -> list[Path]:
    """Write ``_agreement.tsv``, ``_agreement_summary.tsv`` and ``_agreement_table.md``.

    Args:
        facts: what the sidecars say besides the columns.
        excluded: sessions that the summaries leave out.
    """
    lesions = any("lesion_f1" in row for row in rows)
    paths = [out_dir / group_path(task, f"agreement{part}") for part in ("", "_summary", "_table")]
    columns: Columns = {**AGREEMENT, **(LESION_AGREEMENT if lesions else {})}
    write_table(paths[0], columns, pd.DataFrame(rows), **facts)
    kept = [row for row in rows if _key(row) not in excluded]
    if not kept:
        for path in paths[1:]:
            path.with_suffix(".md").unlink(missing_ok=True)
        return paths[:1]
    summaries = _summaries(pd.DataFrame(kept))
    columns = {**SUMMARY, **(LESION_SUMMARY if lesions else {})}
    write_table(paths[1], columns, summaries, **facts)
    paths[2] = paths[2].with_suffix(".md")
    write_text(paths[2], paper_table(summaries))
    return paths


def _key(row: Mapping[str, Any]) -> SessionKey:
    return row["participant_id"], row["session_id"] or ""


def old_agreement(out_dir: Path, task: str) -> list[Path]:
    """What :func:`write_agreement` wrote in an earlier run, and is still there."""
    pattern = group_path(task, "agreement").name.replace(".tsv", "*")
    return sorted(out_dir.glob(pattern))


def _summaries(rows: pd.DataFrame) -> pd.DataFrame:
    """One row a reference and structure, in the order of the references and indices."""
    groups = rows.groupby([pd.factorize(rows["reference"])[0], "index"])
    table = pd.DataFrame([_summary(group) for _, group in groups])
    scores = groups[[score for score in _MEANS if score in rows]]
    means, sds = scores.mean().add_suffix("_mean"), scores.std().add_suffix("_sd")
    return table.join([part.reset_index(drop=True) for part in (means, sds)])


def _summary(rows: pd.DataFrame) -> dict[str, Any]:
    agreements = [
        StructureAgreement(*cells)
        for cells in rows[["index", *_SCORES, "hd95_mm", "volume_mm3", "reference_volume_mm3",
                           "presence", "asd_mm"]].itertuples(index=False)
    ]  # fmt: skip
    volumes, expected, n = rows["volume_mm3"], rows["reference_volume_mm3"], len(rows)
    limits = bland_altman(volumes, expected) if n > 1 else None
    low, high = concordance_interval(volumes, expected) if n > 2 else (math.nan, math.nan)
    return {
        **asdict(summarise(agreements)),
        "name": rows["name"].iloc[0],
        "reference": rows["reference"].iloc[0],
        "n_volumes": n,
        "ccc_low": low,
        "ccc_high": high,
        "icc": icc(volumes, expected) if n > 2 else math.nan,
        "bias_mm3": limits.bias if limits else math.nan,
        "limit_low_mm3": limits.lower if limits else math.nan,
        "limit_high_mm3": limits.upper if limits else math.nan,
    }


def paper_table(summaries: pd.DataFrame) -> str:
    """Markdown in the layout of the paper's Tables 1 to 3.

    A structure a row, the references side by side in the place of the paper's networks: F1, F2
    and balanced accuracy as mean (standard deviation), and the concordance of volumes; the last
    row is the mean over structures.
    """
    entries = summaries.set_index(["reference", "index"]).to_dict("index")
    references = list(summaries["reference"].unique())
    names = summaries.groupby("index")["name"].last().to_dict()
    titles = [f"{score} {name}" for score in ("F1", "F2", "BACC", "CCC") for name in references]
    lines = [["structure", *(f"n {name}" for name in references), *titles]]
    lines.append(["---"] * len(lines[0]))
    for index, name in names.items():
        of_structure = [entries.get((reference, index), {}) for reference in references]
        cells = [cell(entry.get("n")) for entry in of_structure]
        cells += [
            f"{cell(entry.get(f'{score}_mean'), 3)} ({cell(entry.get(f'{score}_sd'), 3)})"
            for score in _SCORES
            for entry in of_structure
        ]
        cells += [cell(entry.get("ccc"), 3) for entry in of_structure]
        lines.append([name, *cells])
    if len(names) > 1:
        scores = [*(f"{score}_mean" for score in _SCORES), "ccc"]
        means = summaries.groupby("reference")[scores].mean().to_dict()
        cells = [cell(means[score][name], 3) for score in scores for name in references]
        lines.append(["mean", *([""] * len(references)), *cells])
    return "".join(f"| {' | '.join(_markdown(cells))} |\n" for cells in lines)


def _markdown(cells: Sequence[str]) -> list[str]:
    """Cells of a Markdown table: names come from files of others."""
    return [text.replace("|", "\\|").replace("<", "&lt;") for text in cells]

"""Agreement of a model with reference labels, sample by sample and over all of them."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from deepmrseg_bids.errors import DeepMRSegError, TrainingError
from deepmrseg_bids.geometry import resample
from deepmrseg_bids.image import LabelMap, read_labels, read_volume
from deepmrseg_bids.inference import Predictor
from deepmrseg_bids.labels import LabelTable
from deepmrseg_bids.metrics import StructureAgreement, labelmap_agreement, summarise
from deepmrseg_bids.segmentation import Segmentation
from deepmrseg_bids.tasks import run, segment_prepared, table_of
from deepmrseg_bids.train.config import TrainConfig
from deepmrseg_bids.train.samples import Sample, reference_classes

__all__ = ["Evaluated", "evaluate", "volume_intervals", "write_tables"]

_SAMPLE_COLUMNS = ("sample_id", "index", "name", "f1", "f2", "bacc", "hd95_mm", "volume_mm3",
                   "reference_volume_mm3", "confidence")  # fmt: skip
_SUMMARY_COLUMNS = ("index", "name", "n", "f1_mean", "f1_sd", "f2_mean", "f2_sd", "bacc_mean",
                    "bacc_sd", "ccc")  # fmt: skip
_MOST_EXTREME = 3.0  # an interval never says more than a factor of this


@dataclass(frozen=True)
class Evaluated:
    """One structure of one sample."""

    sample_id: str
    name: str
    agreement: StructureAgreement
    confidence: float | None


def evaluate(
    samples: Sequence[Sample],
    task: str,
    predictors: Callable[[str], Predictor],
    config: TrainConfig,
    *,
    prepared: bool,
    report: Callable[[str], None] = lambda line: None,
) -> list[Evaluated]:
    """Segment every sample and compare it with its labels, on the labels' own grid.

    Args:
        config: the settings the model was trained with: they say what label codes mean.
        prepared: the images are what the network sees; otherwise they are raw heads.

    Raises:
        DeepMRSegError: a sample cannot be segmented; the message names it.
    """
    rows: list[Evaluated] = []
    for sample in samples:
        if sample.t1w is None:
            raise TrainingError(f"{sample.sample_id} has no image to segment")
        volume = read_volume(sample.t1w)
        if prepared:
            found: Segmentation | DeepMRSegError = segment_prepared(task, volume, predictors(task))
        else:
            found = dict(run(volume, [task], predictors))[task]
        if isinstance(found, DeepMRSegError):
            raise found
        table = predictors(task).bundle.labels if prepared else table_of(task, predictors(task))
        if task == "brain":
            table = table_of(task, predictors(task))
        reference = _reference(sample, task, config, table)
        data = found.labels.data
        if found.labels.grid != reference.grid:
            data = resample(data, found.labels.grid, reference.grid, order=0)
        confidence = {row.index: row.confidence for row in found.measures}
        agreements = labelmap_agreement(
            data, reference.data, table.indices, zooms=reference.grid.spacing
        )
        rows += [
            Evaluated(sample.sample_id, table[a.index].name, a, confidence.get(a.index))
            for a in agreements
        ]
        scores = [a.f1 for a in agreements if math.isfinite(a.f1)]
        report(f"{sample.sample_id}: mean Dice {np.mean(scores) if scores else math.nan:.3f}")
    return rows


def _reference(sample: Sample, task: str, config: TrainConfig, table: LabelTable) -> LabelMap:
    labels = read_labels(sample.dseg)
    classes = reference_classes(labels, sample.protocol, config)
    if task == "brain":
        return LabelMap((classes > 0).astype(np.uint8), labels.grid)
    lookup: NDArray[np.int64] = np.array([0, *config.labels.indices])
    if set(table.indices) != set(config.labels.indices):
        return labels
    return LabelMap(lookup[classes], labels.grid)


def volume_intervals(rows: Sequence[Evaluated], *, level: float = 0.9) -> dict[str, list[float]]:
    """For each structure, the factors that turn a volume into its prediction interval.

    The logarithm of reference over predicted volume is taken as normal with unknown mean
    and spread over samples (Student's t prediction interval); they must be samples the model
    was not trained on. Structures with fewer than three samples are left out.
    """
    logs: dict[str, list[float]] = {}
    for row in rows:
        a = row.agreement
        if a.volume_mm3 > 0 and a.reference_volume_mm3 > 0:
            ratio = math.log(a.reference_volume_mm3 / a.volume_mm3)
            logs.setdefault(row.name, []).append(ratio)
    factors = {}
    for name, values in logs.items():
        n = len(values)
        if n < 3:
            continue
        reach = stats.t.ppf(0.5 + level / 2, n - 1) * np.std(values, ddof=1) * math.sqrt(1 + 1 / n)
        mean, limit = float(np.mean(values)), math.log(_MOST_EXTREME)
        low, high = np.clip((mean - float(reach), mean + float(reach)), -limit, limit)
        factors[name] = [round(math.exp(low), 4), round(math.exp(high), 4)]
    return factors


def write_tables(rows: Sequence[Evaluated], out: Path) -> dict[str, Any]:
    """Write ``per_sample.tsv``, ``summary.tsv`` and ``summary.json``; return the summary."""
    out.mkdir(parents=True, exist_ok=True)
    with (out / "per_sample.tsv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, delimiter="\t", lineterminator="\n")
        writer.writerow(_SAMPLE_COLUMNS)
        for row in rows:
            a = row.agreement
            numbers = (a.f1, a.f2, a.bacc, a.hd95_mm, a.volume_mm3, a.reference_volume_mm3)
            values = [_text(value) for value in (*numbers, row.confidence)]
            writer.writerow((row.sample_id, a.index, row.name, *values))
    names = dict.fromkeys((row.agreement.index, row.name) for row in rows)
    summaries = []
    for index, name in names:
        found = summarise([row.agreement for row in rows if row.agreement.index == index])
        summaries.append({**asdict(found), "index": index, "name": name})
    with (out / "summary.tsv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, delimiter="\t", lineterminator="\n")
        writer.writerow(_SUMMARY_COLUMNS)
        for entry in summaries:
            writer.writerow(
                [
                    _text(entry[c]) if isinstance(entry[c], float) else entry[c]
                    for c in _SUMMARY_COLUMNS
                ]
            )
    means = [entry["f1_mean"] for entry in summaries if math.isfinite(entry["f1_mean"])]
    summary = {
        "samples": len({row.sample_id for row in rows}),
        "f1_mean": float(np.mean(means)) if means else None,
        "structures": [
            {
                k: None if isinstance(v, float) and not math.isfinite(v) else v
                for k, v in entry.items()
            }
            for entry in summaries
        ],
        "volume_interval": volume_intervals(rows),
    }
    text = json.dumps(summary, indent=2) + "\n"
    (out / "summary.json").write_text(text, encoding="utf-8")
    return summary


def _text(value: float | None) -> str:
    if value is None or not math.isfinite(value):
        return "n/a"
    return f"{value:.6g}"

"""Agreement of a model with reference labels, sample by sample and over all of them."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from deepmrseg_bids.errors import DatasetError, DeepMRSegError, TrainingError
from deepmrseg_bids.files import write_text
from deepmrseg_bids.imaging.grid import resample
from deepmrseg_bids.imaging.labels import LabelTable
from deepmrseg_bids.imaging.nifti import LabelMap, read_labels, read_volume
from deepmrseg_bids.inference.predictor import Predictor
from deepmrseg_bids.metrics.label_matching import joined
from deepmrseg_bids.metrics.overlap import (
    LesionAgreement,
    StructureAgreement,
    labelmap_agreement,
    lesion_agreement,
    presence,
    summarise,
)
from deepmrseg_bids.tasks.pipeline import Result, run
from deepmrseg_bids.tasks.results import Segmentation
from deepmrseg_bids.tasks.spec import T1W, TaskSpec
from deepmrseg_bids.tasks.wml import LesionSegmentation
from deepmrseg_bids.train.config import TrainConfig
from deepmrseg_bids.train.label_codes import reference_classes
from deepmrseg_bids.train.samples import Sample
from deepmrseg_bids.train.slice_pairs import segment_pair
from deepmrseg_bids.tsv import read_foreign_tsv, tsv_text

__all__ = ["SUMMARY_COLUMNS", "Evaluated", "evaluate", "interval_coverage",
           "interval_holds", "plain", "read_rows", "reference_labels", "structure_summaries",
           "summary_columns", "tsv", "volume_intervals", "write_rows", "write_tables"]  # fmt: skip

_SAMPLE_COLUMNS = ("sample_id", "index", "name", "f1", "f2", "bacc", "hd95_mm", "volume_mm3",
                   "reference_volume_mm3", "confidence")  # fmt: skip
SUMMARY_COLUMNS = ("index", "name", "n", "f1_mean", "f1_sd", "f2_mean", "f2_sd", "bacc_mean",
                    "bacc_sd", "ccc")  # fmt: skip
_LESION_COLUMNS = ("lesions", "reference_lesions", "lesion_recall", "lesion_precision", "lesion_f1")
_LESION_MEANS = (
    "lesion_recall",
    "lesion_precision",
    "lesion_f1",
    "hd95_mm",
    "volume_difference_mm3",
)
_MOST_EXTREME = 3.0  # an interval never says more than a factor of this


@dataclass(frozen=True)
class Evaluated:
    """One structure of one sample; ``lesions`` where they are counted, too."""

    sample_id: str
    name: str
    agreement: StructureAgreement
    confidence: float | None
    lesions: LesionAgreement | None = None

    @property
    def volume_difference_mm3(self) -> float:
        """Absolute difference of the two volumes."""
        return abs(self.agreement.volume_mm3 - self.agreement.reference_volume_mm3)


def evaluate(
    samples: Sequence[Sample],
    task: TaskSpec,
    predictors: Callable[[str], Predictor],
    config: TrainConfig | None,
    *,
    prepared: bool,
    report: Callable[[str], None] = lambda line: None,
    keep: Callable[[Sample, LabelMap], None] = lambda sample, found: None,
) -> list[Evaluated]:
    """Segment every sample and compare it with its labels, on the labels' own grid.

    Args:
        config: the settings the model was trained with: they say what label codes mean. Without
            them the codes are the indices of its own labels.
        prepared: the images are what the network sees; otherwise they are raw heads.
        report: gets a line a sample.
        keep: gets what was found in each sample, on the grid of its labels.

    Raises:
        DeepMRSegError: a sample cannot be segmented; the message names it.
    """
    rows: list[Evaluated] = []
    for sample in samples:
        found, labels = _segmented(sample, task, predictors, config, prepared)
        table = found.table
        reference = reference_labels(sample, task, config, table)
        data = labels.data
        if labels.grid != reference.grid:
            data = resample(data, labels.grid, reference.grid, order=0)
        confidence = {row.index: row.confidence for row in found.measures}
        keep(sample, LabelMap(data, reference.grid))
        agreements = labelmap_agreement(
            data, reference.data, table.indices, zooms=reference.grid.spacing
        )
        rows += [
            Evaluated(
                sample.sample_id,
                table[a.index].name,
                a,
                confidence.get(a.index),
                lesion_agreement(data == a.index, reference.data == a.index)
                if task.lesions
                else None,
            )
            for a in agreements
        ]
        scores = [a.f1 for a in agreements if math.isfinite(a.f1)]
        report(f"{sample.sample_id}: mean Dice {np.mean(scores) if scores else math.nan:.3f}")
    return rows


def _segmented(
    sample: Sample,
    task: TaskSpec,
    predictors: Callable[[str], Predictor],
    config: TrainConfig | None,
    prepared: bool,
) -> tuple[Segmentation, LabelMap]:
    """What was found in a sample, and its labels in the space of the reference."""
    lacking = [modality for modality in task.required if modality not in sample.images]
    if lacking:
        what = "image" if lacking[0] == T1W else lacking[0]
        raise TrainingError(f"{sample.sample_id} has no {what} to segment")
    model = task.models[-1]
    if task.native != T1W and sample.mask is not None and config is not None:
        own = segment_pair(sample, config, predictors(model), prepared=prepared)
        return own, own.labels
    images = {mode: read_volume(path) for mode, path in task.images(sample.images).items()}
    found: Result
    if prepared:
        found = task.segment_prepared(images, predictors)
    else:
        ((_, found),) = run(images, [task], predictors)
    if isinstance(found, DeepMRSegError):
        raise found
    labels = found.on_flair if isinstance(found, LesionSegmentation) else found.labels
    return found, labels


def reference_labels(
    sample: Sample, task: TaskSpec, config: TrainConfig | None, table: LabelTable
) -> LabelMap:
    """The reference of a sample in the indices of ``table``, on its own grid.

    Raises:
        TrainingError: it has no label of the table.
    """
    labels = read_labels(sample.dseg)
    if config is None and not task.brain_mask:
        if labels.data.any() and not np.isin(labels.data, table.indices).any():
            raise TrainingError(
                f"{sample.dseg}: none of its labels is one of the model "
                f"({', '.join(map(str, table.indices))}); without settings of its training "
                "(train.toml) labels are compared by number"
            )
        return joined(labels, task.parts)
    if config is None:
        return LabelMap((labels.data > 0).astype(np.uint8), labels.grid)
    classes = reference_classes(labels, sample.protocol, config)
    if task.brain_mask:
        return LabelMap((classes > 0).astype(np.uint8), labels.grid)
    lookup: NDArray[np.int64] = np.array([0, *config.labels.indices])
    if set(table.indices) != set(config.labels.indices):
        return joined(labels, task.parts)
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


def interval_coverage(rows: Sequence[Evaluated]) -> float | None:
    """How often the interval of a structure, made without a sample, holds its reference.

    Over all samples and structures together; None with fewer than four samples of each.
    """
    samples: dict[str, list[Evaluated]] = {}
    for row in rows:
        samples.setdefault(row.sample_id, []).append(row)
    inside = []
    for sample, own in samples.items():
        factors = volume_intervals([row for row in rows if row.sample_id != sample])
        inside += [interval_holds(row, factors) for row in own if row.name in factors]
    return float(np.mean(inside)) if inside else None


def interval_holds(row: Evaluated, factors: Mapping[str, Sequence[float]]) -> bool:
    """Whether the interval that :func:`volume_intervals` gives a structure holds its reference."""
    low, high = (factor * row.agreement.volume_mm3 for factor in factors[row.name])
    return low <= row.agreement.reference_volume_mm3 <= high


def write_rows(
    rows: Sequence[Evaluated], path: Path, *, more: Mapping[str, Sequence[object]] | None = None
) -> None:
    """Write one line a structure of a sample; ``more`` gives further columns, a value a row.

    Lesions have columns of their own, after the confidence, if they were counted.
    """
    counted = _LESION_COLUMNS if any(row.lesions for row in rows) else ()
    more = more or {}
    entries = []
    for place, row in enumerate(rows):
        a = row.agreement
        entries.append(
            {
                "sample_id": row.sample_id,
                "index": a.index,
                "name": row.name,
                "f1": a.f1,
                "f2": a.f2,
                "bacc": a.bacc,
                "hd95_mm": a.hd95_mm,
                "volume_mm3": a.volume_mm3,
                "reference_volume_mm3": a.reference_volume_mm3,
                "confidence": row.confidence,
                **_lesion_scores(row.lesions),
                **{column: values[place] for column, values in more.items()},
            }
        )
    write_text(path, tsv((*_SAMPLE_COLUMNS, *counted, *more), entries))


def _lesion_scores(lesions: LesionAgreement | None) -> dict[str, float]:
    if lesions is None:
        return {}
    values = (lesions.n_predicted, lesions.n_reference, lesions.recall, lesions.precision,
              lesions.f1)  # fmt: skip
    return dict(zip(_LESION_COLUMNS, values, strict=True))


def read_rows(path: Path) -> list[Evaluated]:
    """Read what :func:`write_rows` wrote.

    Raises:
        TrainingError: not such a table.
    """

    def number(text: str) -> float:
        return math.nan if text == "n/a" else float(text)

    rows = []
    try:
        for entry in read_foreign_tsv(path).rows:
            f1, f2, bacc, hd95, volume, reference, confidence = (
                number(entry[column]) for column in _SAMPLE_COLUMNS[3:]
            )
            agreement = StructureAgreement(
                int(entry["index"]), f1, f2, bacc, hd95, volume, reference,
                presence(volume > 0, reference > 0),
            )  # fmt: skip
            sure = confidence if math.isfinite(confidence) else None
            rows.append(
                Evaluated(entry["sample_id"], entry["name"], agreement, sure, _counts(entry))
            )
    except (DatasetError, KeyError, ValueError) as error:
        raise TrainingError(f"{path}: not a table of samples ({error})") from error
    return rows


def _counts(entry: Mapping[str, str]) -> LesionAgreement | None:
    """The lesions of a row, from what :func:`write_rows` says of them."""
    if "lesions" not in entry:
        return None
    predicted, reference = int(entry["lesions"]), int(entry["reference_lesions"])
    found = round(float(entry["lesion_recall"]) * reference) if reference else 0
    real = round(float(entry["lesion_precision"]) * predicted) if predicted else 0
    return LesionAgreement(reference, found, predicted, real)


def summary_columns(entries: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """The columns of a summary: further ones where lesions were counted."""
    more = [f"{name}_mean" for name in _LESION_MEANS]
    return (*SUMMARY_COLUMNS, *(name for name in more if entries and name in entries[0]))


def _lesion_means(rows: Sequence[Evaluated]) -> dict[str, float]:
    """Means over the samples that have a value; nothing where lesions were not counted."""
    if not any(row.lesions for row in rows):
        return {}
    values = [
        {
            **_lesion_scores(row.lesions),
            "hd95_mm": row.agreement.hd95_mm,
            "volume_difference_mm3": row.volume_difference_mm3,
        }
        for row in rows
    ]
    means = {}
    for name in _LESION_MEANS:
        known = [value[name] for value in values if math.isfinite(value.get(name, math.nan))]
        means[f"{name}_mean"] = float(np.mean(known)) if known else math.nan
    return means


def structure_summaries(rows: Sequence[Evaluated]) -> list[dict[str, Any]]:
    """One entry a structure, with the fields of `metrics.StructureSummary` and its name.

    Where lesions were counted, with the means of their scores, too.
    """
    names = dict.fromkeys((row.agreement.index, row.name) for row in rows)
    return [
        {
            **asdict(summarise([row.agreement for row in rows if row.agreement.index == index])),
            **_lesion_means([row for row in rows if row.agreement.index == index]),
            "index": index,
            "name": name,
        }
        for index, name in names
    ]


def write_tables(rows: Sequence[Evaluated], out: Path) -> dict[str, Any]:
    """Write ``per_sample.tsv``, ``summary.tsv`` and ``summary.json``; return the summary."""
    write_rows(rows, out / "per_sample.tsv")
    summaries = structure_summaries(rows)
    write_text(out / "summary.tsv", tsv(summary_columns(summaries), summaries))
    means = [entry["f1_mean"] for entry in summaries if math.isfinite(entry["f1_mean"])]
    summary = {
        "samples": len({row.sample_id for row in rows}),
        "f1_mean": float(np.mean(means)) if means else None,
        "structures": [plain(entry) for entry in summaries],
        "volume_interval": volume_intervals(rows),
        "interval_coverage": interval_coverage(rows),
    }
    text = json.dumps(summary, indent=2) + "\n"
    write_text(out / "summary.json", text)
    return summary


def plain(entry: Mapping[str, Any]) -> dict[str, Any]:
    """An entry as JSON takes it: None in the place of nan."""
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else value
        for key, value in entry.items()
    }


def tsv(columns: Sequence[str], entries: Iterable[Mapping[str, Any]]) -> str:
    """A table: six digits a number, ``n/a`` for nan and None."""
    rows = ([_text(entry[column]) for column in columns] for entry in entries)
    return tsv_text(columns, rows, quote=True)


def _text(value: object) -> str:
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return "n/a"
    return f"{value:.6g}" if isinstance(value, float) else str(value)

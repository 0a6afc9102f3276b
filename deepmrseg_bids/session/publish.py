"""The files of one session: what a task writes, from label map to sidecar."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.metadata import version
from pathlib import Path, PurePosixPath
from typing import Any

from deepmrseg_bids import __version__
from deepmrseg_bids.bids import names
from deepmrseg_bids.bids.label_tables import stage_label_table
from deepmrseg_bids.bids.provenance import Provenance, Sidecar, sidecar_tree
from deepmrseg_bids.bids.tables import MorphRow, write_morph
from deepmrseg_bids.files import Staging, file_sha256, write_json
from deepmrseg_bids.findings import Finding
from deepmrseg_bids.imaging.nifti import write_labels, write_probabilities
from deepmrseg_bids.imaging.registration import ants_version
from deepmrseg_bids.inference.bundle import ModelBundle
from deepmrseg_bids.session.job import SessionJob
from deepmrseg_bids.session.publish_lesions import (
    PairFiles,
    always_there,
    stage_lesions,
    there_if_aligned,
)
from deepmrseg_bids.tasks.regions import composition_of, read_regions
from deepmrseg_bids.tasks.results import Measure, Segmentation, native_posteriors
from deepmrseg_bids.tasks.spec import T1W, TaskSpec
from deepmrseg_bids.tasks.wml import LesionSegmentation

__all__ = [
    "Publication",
    "files_of",
    "morph_rows",
    "provenance_of",
    "stage_task",
    "task_files",
    "write_volumes",
]

_BESIDE = "MasksBeside"


@dataclass(frozen=True)
class Publication:
    """What stands in every sidecar of one task.

    Attributes:
        made: from what and by what.
        findings: about the images and the result.
        methods: how the models that ran work, and their terms.
    """

    made: Provenance
    findings: Sequence[Finding]
    methods: Mapping[str, object]


def provenance_of(
    job: SessionJob,
    task: str,
    bundles: Mapping[str, ModelBundle],
    inputs: Mapping[Path, str],
) -> Provenance:
    """From what and by what the files of a task are made.

    Args:
        bundles: the models of the task, by name; others may be among them.
        inputs: SHA-256 of the images.
    """
    images = job.inputs(task)
    return Provenance(
        inputs={
            names.bids_uri(path.relative_to(job.bids_dir), "raw"): inputs[path] for path in images
        },
        software={
            "deepmrseg-bids": __version__,
            "torch": _torch_version(),
            **({"antspyx": ants_version()} if len(images) > 1 else {}),
        },
        models={
            model: {"Version": bundles[model].version, "SHA256": bundles[model].sha256}
            for model in job.spec(task).models
        },
        parameters={
            "Precision": job.precision,
            "FlipAveraging": job.flips,
            **({"ForceHeader": True} if job.force_header else {}),
            **_regions_of(job, task),
        },
    )


@cache
def _torch_version() -> str:
    return version("torch")


def task_files(job: SessionJob, task: str, out_dir: Path) -> list[PurePosixPath]:
    """The files of a task with a sidecar each, relative to OUT_DIR, the label map first."""
    return files_of(job.spec(task), job.images, out_dir, probabilities=job.probabilities)


def files_of(
    spec: TaskSpec, images: Mapping[str, Path], out_dir: Path, *, probabilities: bool = False
) -> list[PurePosixPath]:
    """The same of a task whatever it is made by.

    Args:
        images: of the session, by modality.
    """
    if spec.native != T1W:
        files = PairFiles.of(spec, images, probabilities=probabilities)
        return always_there(files) + there_if_aligned(files, out_dir)
    source = spec.source(images)
    label_map = names.label_map_path(source, spec.label_map)
    wanted = probabilities and spec.probabilities
    posteriors = [names.probabilities_path(source, spec.name)] if wanted else []
    regions = [names.morph_path(source, spec.name, desc=names.REGIONS)] if spec.regions else []
    table = names.morph_path(source, spec.name)
    return [label_map, table, *_beside(source, label_map, out_dir), *regions, *posteriors]


def _regions_of(job: SessionJob, task: str) -> dict[str, str]:
    """Which table of composite regions was given, by its content."""
    table = job.spec(task).regions
    return {} if table is None or job.regions is None else {"RegionsSHA256": file_sha256(table)}


def _beside(source: Path, label_map: PurePosixPath, out_dir: Path) -> list[PurePosixPath]:
    """The masks beside a label map, by what its sidecar says."""
    stated = sidecar_tree(os.path.join(out_dir, names.sidecar_path(label_map))).get(_BESIDE)
    if not isinstance(stated, list) or not all(isinstance(one, str) for one in stated):
        return []
    return [names.anat_folder(source) / PurePosixPath(one).name for one in stated]


def morph_rows(result: Segmentation) -> list[MorphRow]:
    """The rows of ``morph.tsv``."""
    lesions = result.lesions if isinstance(result, LesionSegmentation) else None
    count = None if lesions is None else len(lesions)
    return [_morph_row(row, result, count) for row in result.measures]


def write_volumes(
    path: str | os.PathLike[str],
    rows: Sequence[MorphRow],
    result: Segmentation,
    *,
    provenance: Mapping[str, Any] | None = None,
) -> None:
    """Write a table of volumes of a result; its JSON says what the percentages are of."""
    write_morph(path, rows, provenance=provenance, brain_mm3=result.brain_mm3,
                icv_mm3=result.icv_mm3)  # fmt: skip


def region_rows(result: Segmentation) -> list[MorphRow]:
    """The rows of the table of composite regions."""
    return [_morph_row(row, result) for row in result.regions]


def _morph_row(row: Measure, result: Segmentation, lesions: int | None = None) -> MorphRow:
    brain, icv = (
        100 * row.volume_mm3 / whole if whole else None
        for whole in (result.brain_mm3, result.icv_mm3)
    )
    return MorphRow(
        index=row.index,
        name=row.name,
        volume_mm3=row.volume_mm3,
        volume_low_mm3=row.low_mm3,
        volume_high_mm3=row.high_mm3,
        volume_icv_percent=icv,
        volume_brain_percent=brain,
        confidence=row.confidence,
        lesion_count=lesions,
        volume_floor_mm3=row.floor_mm3,
    )


def stage_task(
    job: SessionJob, result: Segmentation, about: Publication, staging: Staging
) -> tuple[str, ...]:
    """Write all files of one task; return their names in OUT_DIR."""
    spec = job.spec(result.task)
    source = spec.source(job.images)
    table = names.morph_path(source, result.task)
    text = f"Volumes of {spec.description.lower()}"
    sidecar = Sidecar(text, about.made, about.findings)
    write_volumes(staging.path(table), morph_rows(result), result, provenance=sidecar.to_json())
    if isinstance(result, LesionSegmentation):
        files = stage_lesions(job, result, about, staging)
    else:
        files = [*_stage_labels(job, result, about, staging), table]
    if spec.regions:
        regions = names.morph_path(source, result.task, desc=names.REGIONS)
        made_of = {"Regions": composition_of(read_regions(spec.regions))}
        sidecar = replace(sidecar, description="Volumes of composite regions", more=made_of)
        write_volumes(
            staging.path(regions), region_rows(result), result, provenance=sidecar.to_json()
        )
        files.append(regions)
    return tuple(str(name) for file in files for name in (file, names.sidecar_path(file)))


def _methods(about: Publication, result: Segmentation) -> Mapping[str, object]:
    """How the models work, and what was special about this image."""
    if not result.how:
        return about.methods
    return {**about.methods, "Text": f"{about.methods['Text']} {result.how}"}


def _stage_labels(
    job: SessionJob, result: Segmentation, about: Publication, staging: Staging
) -> list[PurePosixPath]:
    """Write the label map of a task on the grid of its scan, and what was asked for with it."""
    spec = job.spec(result.task)
    source = spec.source(job.images)
    reference = names.bids_uri(source.relative_to(job.bids_dir), "raw")
    image = names.label_map_path(source, spec.label_map)
    write_labels(staging.path(image), result.labels)
    stage_label_table(staging, image, result.table)
    beside = [names.label_map_path(source, one.output) for one in result.beside]
    listed = {_BESIDE: [path.name for path in beside]} if beside else {}
    sidecar = Sidecar(
        spec.description,
        about.made,
        about.findings,
        spatial_reference=reference,
        kind=spec.label_map.kind,
        more={"Methods": _methods(about, result), **listed},
    )
    write_json(staging.path(names.sidecar_path(image)), sidecar.to_json())
    for path, mask in zip(beside, result.beside, strict=True):
        write_labels(staging.path(path), mask.labels)
        own = replace(sidecar, description=mask.description, kind=mask.output.kind, more={})
        write_json(staging.path(names.sidecar_path(path)), own.to_json())
    if not (job.probabilities and spec.probabilities and result.posteriors):
        return [image, *beside]
    posteriors = names.probabilities_path(source, result.task)
    grid, count = result.labels.grid, len(result.table)
    write_probabilities(staging.path(posteriors), native_posteriors(result), grid, count=count)
    sidecar = replace(
        sidecar,
        description="Posterior probability of each structure",
        kind=None,
        label_map=[label.name for label in result.table],
        more={},
    )
    write_json(staging.path(names.sidecar_path(posteriors)), sidecar.to_json())
    return [image, *beside, posteriors]

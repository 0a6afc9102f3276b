"""The files of ``wml``: lesions on the grids of FLAIR and T1w, their table, the registration.

The label map on the FLAIR's own grid is the one that is always there; that on the T1w's grid
and the transform are there where the T1w lies on the FLAIR.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np

from deepmrseg_bids.bids import names
from deepmrseg_bids.bids.label_tables import stage_label_table
from deepmrseg_bids.bids.provenance import Sidecar
from deepmrseg_bids.bids.tables import write_lesions
from deepmrseg_bids.files import Staging, read_json, write_json, write_text
from deepmrseg_bids.imaging.nifti import write_labels, write_probabilities
from deepmrseg_bids.imaging.registration import RigidFit, itk_text
from deepmrseg_bids.session.job import SessionJob
from deepmrseg_bids.tasks.lesions import PLACES, SMALLEST_MM3
from deepmrseg_bids.tasks.results import native_posteriors
from deepmrseg_bids.tasks.spec import T1W, TaskSpec
from deepmrseg_bids.tasks.wml import LesionSegmentation
from deepmrseg_bids.tsv import NOT_KNOWN

if TYPE_CHECKING:
    from deepmrseg_bids.session.publish import Publication

__all__ = ["PairFiles", "always_there", "registration_facts", "stage_lesions", "there_if_aligned"]


@dataclass(frozen=True)
class PairFiles:
    """The files of one session, relative to OUT_DIR; None: not asked for, or no T1w.

    Attributes:
        native, native_posteriors: on the grid of the image that the lesions are found in.
        volumes, lesions: tables.
        t1w, t1w_posteriors: on the grid of the T1w.
        transform: from the native image to the T1w.
    """

    native: PurePosixPath
    native_posteriors: PurePosixPath | None
    volumes: PurePosixPath
    lesions: PurePosixPath | None = None
    t1w: PurePosixPath | None = None
    t1w_posteriors: PurePosixPath | None = None
    transform: PurePosixPath | None = None

    @classmethod
    def of(cls, task: TaskSpec, images: Mapping[str, Path], *, probabilities: bool) -> PairFiles:
        """The names of the files that a task writes."""
        native, source, t1w = images[task.native], task.source(images), images.get(T1W)
        posteriors = names.probabilities_path(native, task.name, space=task.native)
        files = cls(
            native=names.label_map_path(native, task.label_map, space=task.native),
            native_posteriors=posteriors if probabilities else None,
            volumes=names.morph_path(source, task.name),
            lesions=names.lesions_path(source, task.name) if task.lesions else None,
        )
        if t1w is None:
            return files
        more = names.probabilities_path(t1w, task.name) if probabilities else None
        return replace(
            files,
            t1w=names.label_map_path(t1w, task.label_map),
            t1w_posteriors=more,
            transform=names.transform_path(native, task.native, T1W, ".txt"),
        )


def always_there(files: PairFiles) -> list[PurePosixPath]:
    """The files of every session that is done, the label map first."""
    found = (files.native, files.volumes, files.lesions, files.native_posteriors)
    return [path for path in found if path is not None]


def there_if_aligned(files: PairFiles, out_dir: Path) -> list[PurePosixPath]:
    """The other files, if the label map's sidecar says that the T1w was registered."""
    first = out_dir / names.sidecar_path(files.native)
    try:
        used = read_json(first)["Registration"]["Used"]
    except (OSError, ValueError, KeyError, TypeError):
        used = False
    return _aligned(files) if used is True else []


def _aligned(files: PairFiles) -> list[PurePosixPath]:
    found = (files.t1w, files.transform, files.t1w_posteriors)
    return [path for path in found if path is not None]


def registration_facts(fit: RigidFit | None, *, used: bool) -> dict[str, Any]:
    """What a sidecar says of the registration; nothing where there was none.

    ``Matrix`` takes points of the FLAIR's space to points of the T1w's, RAS+ millimetres.
    """
    if fit is None:
        return {}
    return {
        "Registration": {
            "Type": "rigid",
            "Metric": "mutual information",
            "Used": used,
            "Matrix": np.round(fit.matrix, 6).tolist(),
            "AngleDegrees": round(fit.angle, 3),
            "Quality": fit.quality.to_json(),
            "QualityBefore": fit.before.to_json(),
        }
    }


def location_facts(result: LesionSegmentation) -> dict[str, Any]:
    """What the sidecar of the table of lesions says of all lesions of a place, and of landmarks."""
    if result.lesions is None:
        return {}
    places: dict[str, Any] = {}
    for place in (*PLACES, None):
        volumes = [one.volume_mm3 for one in result.lesions if one.place == place]
        places[place or NOT_KNOWN] = {"Count": len(volumes), "VolumeMM3": round(sum(volumes), 2)}
    return {
        "Locations": places,
        "LocationSources": dict(result.sources),
        "SmallestVolumeMM3": SMALLEST_MM3,
        "Connectivity": 26,
    }


def stage_lesions(
    job: SessionJob, result: LesionSegmentation, about: Publication, staging: Staging
) -> list[PurePosixPath]:
    """Write all but the table of volumes.

    Returns:
        What was written, without the sidecars.
    """
    pair = result.pair
    aligned = job.t1w is not None and pair is not None and pair.t1w is not None
    facts = registration_facts(None if pair is None else pair.fit, used=aligned)
    stage = _Stage(job, about, staging, facts)
    spec = job.spec(result.task)
    files = PairFiles.of(spec, job.images, probabilities=job.probabilities)
    native = job.images[spec.native]
    write_labels(staging.path(files.native), result.on_flair)
    stage_label_table(staging, files.native, result.table)
    text = f"{spec.description} on the grid of the {spec.native}"
    stage.sidecar(files.native, text, native, {"Methods": about.methods})
    table = Sidecar(
        f"Single lesions, in the space of the {spec.native}",
        about.made,
        about.findings,
        more={**facts, **location_facts(result)},
    )
    if files.lesions is not None:
        lesions = result.lesions or ()
        write_lesions(staging.path(files.lesions), lesions, provenance=table.to_json())
    if files.native_posteriors:
        stage.posteriors(files.native_posteriors, result.in_flair(), native)
    if not aligned or pair is None or pair.fit is None:
        return always_there(files)
    assert job.t1w is not None and files.t1w is not None and files.transform is not None
    write_labels(staging.path(files.t1w), result.labels)
    stage_label_table(staging, files.t1w, result.table)
    stage.sidecar(files.t1w, f"{spec.description} on the grid of the {T1W}", job.t1w)
    write_text(staging.path(files.transform), itk_text(np.linalg.inv(pair.fit.matrix)))
    text = f"Resamples images of the {spec.native} onto the {T1W} (antsApplyTransforms)"
    stage.sidecar(files.transform, text)
    if files.t1w_posteriors:
        stage.posteriors(files.t1w_posteriors, result, job.t1w)
    return always_there(files) + _aligned(files)


@dataclass(frozen=True)
class _Stage:
    """Writes sidecars that share what is known of the session and its registration."""

    job: SessionJob
    about: Publication
    staging: Staging
    facts: Mapping[str, Any]

    def sidecar(
        self,
        path: PurePosixPath,
        text: str,
        scan: Path | None = None,
        more: Mapping[str, Any] | None = None,
    ) -> None:
        self._write(path, Sidecar(
            text, self.about.made, self.about.findings,
            spatial_reference=None if scan is None else self._uri(scan),
            more={**self.facts, **(more or {})},
        ))  # fmt: skip

    def posteriors(self, path: PurePosixPath, of: LesionSegmentation, scan: Path) -> None:
        grid, count = of.labels.grid, len(of.table)
        write_probabilities(self.staging.path(path), native_posteriors(of), grid, count=count)
        self._write(path, Sidecar(
            "Posterior probability of each structure", self.about.made, self.about.findings,
            spatial_reference=self._uri(scan), label_map=[label.name for label in of.table],
            more=self.facts,
        ))  # fmt: skip

    def _write(self, path: PurePosixPath, sidecar: Sidecar) -> None:
        write_json(self.staging.path(names.sidecar_path(path)), sidecar.to_json())

    def _uri(self, scan: Path) -> str:
        return names.bids_uri(scan.relative_to(self.job.bids_dir), "raw")

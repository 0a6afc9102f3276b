"""Label maps in the spaces of templates: what is asked for, what is there, and its files."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepmrseg_bids.bids import names
from deepmrseg_bids.bids.derivatives import TEMPLATES
from deepmrseg_bids.bids.label_tables import stage_label_table
from deepmrseg_bids.bids.ownership import FileGuard
from deepmrseg_bids.bids.provenance import Digests, Provenance, Sidecar, same_provenance
from deepmrseg_bids.files import Staging, write_json
from deepmrseg_bids.findings import Finding
from deepmrseg_bids.imaging.grid import Forms, Grid, resample
from deepmrseg_bids.imaging.nifti import LabelMap, Volume, read_volume, write_labels
from deepmrseg_bids.imaging.registration import (
    METHOD,
    ants_version,
    carry_points,
    register_to_template,
)
from deepmrseg_bids.imaging.templates import Template
from deepmrseg_bids.tasks.brain import TASK as BRAIN
from deepmrseg_bids.tasks.results import Segmentation, labels_at
from deepmrseg_bids.tasks.spec import Output, TaskSpec

__all__ = ["Carrier", "SpaceJob", "left_to_make", "space_jobs"]

_MNI, _TEMPLATE = 4, 5  # codes of NIfTI
_MARGIN = 12.0  # millimetres around the template's brain in which labels are looked for


@dataclass(frozen=True)
class SpaceJob:
    """A space, and what is to be made in it for one session.

    Attributes:
        inputs: SHA-256 of the template's files, by BIDS URI: image, mask and grid.
        tasks: whose label maps are to be made.
    """

    template: Template
    inputs: tuple[tuple[str, str], ...]
    tasks: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """How ``sessions.tsv`` calls it."""
        return self.template.space.title

    def file(self, source: Path, output: Output) -> PurePosixPath:
        """The label map of a task in this space, relative to OUT_DIR."""
        space = self.template.space
        return names.label_map_path(source, output, space=space.label, res=space.res)

    def transforms(self, source: Path) -> tuple[PurePosixPath, PurePosixPath]:
        """From the scan to the template, and back; relative to OUT_DIR."""
        label = self.template.space.label
        return (
            names.transform_path(source, "T1w", label, ".h5"),
            names.transform_path(source, label, "T1w", ".h5"),
        )

    def made(self, native: Provenance, *, grid: bool) -> Provenance:
        """What the sidecar of a file in this space says of its making.

        Args:
            native: the same of the label map on the scan's own grid.
            grid: whether the file lies on the template's grid (transforms do not).
        """
        inputs = self.inputs if grid else self.inputs[:2]
        return Provenance(
            inputs={**native.inputs, **dict(inputs)},
            software={**native.software, "antspyx": ants_version()},
            models=native.models,
            parameters={**native.parameters, "Registration": METHOD},
        )


def space_jobs(templates: Iterable[Template], digests: Digests) -> tuple[SpaceJob, ...]:
    """The spaces of a run, with the checksums of their files and as yet no tasks.

    Raises:
        OSError: a file of a template cannot be read.
    """
    jobs = []
    for template in templates:
        paths = (template.image, template.mask, template.grid)
        inputs = tuple(
            (names.bids_uri(path.relative_to(template.home), TEMPLATES), digests.sha256(path))
            for path in paths
        )
        jobs.append(SpaceJob(template, inputs))
    return tuple(jobs)


def left_to_make(
    job: SpaceJob,
    source: Path,
    native: Mapping[str, Provenance],
    label_maps: Mapping[str, Output],
    out: tuple[Path, Digests | None],
) -> SpaceJob | None:
    """The same job without the label maps that are there as they would be made now.

    Args:
        job: with all tasks that were asked for.
        source: the scan.
        native: how each task's own label map is made, by task; with ``brain``.
        label_maps: how that of each task is called.
        out: OUT_DIR, and the SHA-256 of its files.

    Returns:
        None where nothing is left; no tasks where only the transforms are.
    """

    def there(task: str) -> bool:
        made = job.made(native[task], grid=True)
        return same_provenance(out[0], [job.file(source, label_maps[task])], made, out[1])

    tasks = tuple(task for task in job.tasks if task not in native or not there(task))
    both = job.made(native[BRAIN.name], grid=False)
    if not tasks and same_provenance(out[0], job.transforms(source), both, out[1]):
        return None
    return replace(job, tasks=tasks)


@dataclass
class Carrier:
    """Carries the results of one session over; each template is registered once.

    Attributes:
        source: the scan's file, as it lies in BIDS_DIR.
        volume: the scan.
        results: the segmentations, ``brain`` among them.
        specs: their tasks.
        native: how each task's own label map is made, by task; with ``brain``.
        findings: about the scan.
        again: do not use the transforms of an earlier run.
    """

    source: Path
    volume: Volume
    results: Mapping[str, Segmentation]
    specs: Mapping[str, TaskSpec]
    native: Mapping[str, Provenance]
    findings: Sequence[Finding]
    out_dir: Path
    work: Path
    again: bool = False
    _registered: set[str] = field(default_factory=set)

    @cached_property
    def _guard(self) -> FileGuard:
        return FileGuard(self.out_dir, force=self.again)

    def carry(self, job: SpaceJob) -> tuple[str, ...]:
        """Write what is to be made in a space; the names of the files in OUT_DIR.

        Raises:
            RegistrationError: the scan does not lie on the template.
            ImageError: a file of the template cannot be used.
        """
        files = self._transforms(job)
        forward = job.transforms(self.source)[0]
        quality = json.loads((self.out_dir / names.sidecar_path(forward)).read_text("utf-8"))
        grid = _in_space(read_volume(job.template.grid).grid, job.template.space.label)
        box, inner = _around_brain(job.template, grid)
        points = carry_points(self.out_dir / forward, inner)
        with Staging(self.out_dir, self.work, self._guard) as staging:
            for task in job.tasks:
                if task not in self.results:
                    continue
                labels = np.zeros(grid.shape, dtype=np.uint32)
                labels[box] = labels_at(self.results[task].posteriors, points)
                path = job.file(self.source, self.specs[task].label_map)
                write_labels(staging.path(path), LabelMap(labels, grid))
                stage_label_table(staging, path, self.results[task].table)
                beside = names.sidecar_path(path)
                about = self._about_labels(job, task, grid, quality["RegistrationQuality"])
                write_json(staging.path(beside), about)
                files += [str(path), str(beside)]
        return tuple(files)

    def _about_labels(
        self, job: SpaceJob, task: str, grid: Grid, quality: Mapping[str, float]
    ) -> dict[str, Any]:
        space, spec = job.template.space, self.specs[task]
        edges = " x ".join(f"{edge:g}" for edge in np.round(grid.spacing, 3))
        return Sidecar(
            f"{spec.description} in the space of the template {space.label}",
            job.made(self.native[task], grid=True),
            (*self.findings, *self.results[task].findings),
            kind=spec.label_map.kind,
            spatial_reference=job.inputs[2][0],
            resolution=f"{edges} mm, the grid of {job.template.grid.name}",
            more={"RegistrationQuality": dict(quality)},
        ).to_json()

    def _transforms(self, job: SpaceJob) -> list[str]:
        """See that both transforms of a template are in OUT_DIR; their files."""
        both = job.transforms(self.source)
        made = job.made(self.native[BRAIN.name], grid=False)
        label = job.template.space.label
        known = label in self._registered or not self.again
        if not (known and same_provenance(self.out_dir, both, made)):
            self._register(job, made)
        self._registered.add(label)
        return [str(name) for path in both for name in (path, names.sidecar_path(path))]

    def _register(self, job: SpaceJob, made: Provenance) -> None:
        template, mask = read_volume(job.template.image), _mask_on_image(job.template)
        self.work.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="xfm-", dir=self.work) as folder:
            fit = register_to_template(
                self.volume,
                self.results[BRAIN.name].labels.data > 0,
                template,
                mask,
                folder=Path(folder),
            )
            label = job.template.space.label
            ends = ((fit.forward, "the scan", label), (fit.inverse, label, "the scan"))
            with Staging(self.out_dir, self.work, self._guard) as staging:
                for path, (found, moving, fixed) in zip(
                    job.transforms(self.source), ends, strict=True
                ):
                    found.rename(staging.path(path))
                    text = (
                        f"Transform for resampling images of {moving} to {fixed} "
                        "(antsApplyTransforms)"
                    )
                    quality = {"RegistrationQuality": dict(fit.quality.to_json())}
                    about = Sidecar(text, made, self.findings, more=quality).to_json()
                    write_json(staging.path(names.sidecar_path(path)), about)


def _in_space(grid: Grid, label: str) -> Grid:
    """A template's grid whose forms say in which space it lies: MNI, or that of a template."""
    code = _MNI if label.startswith("MNI") else _TEMPLATE
    return replace(grid, forms=Forms(grid.affine, code, grid.affine, code))


def _mask_on_image(template: Template) -> NDArray[np.bool_]:
    """The template's brain on the grid of its image."""
    mask, image = read_volume(template.mask), read_volume(template.image)
    inside: NDArray[np.bool_] = resample(mask.data, mask.grid, image.grid) > 0.5
    return inside


def _around_brain(template: Template, grid: Grid) -> tuple[tuple[slice, slice, slice], Grid]:
    """The part of a grid that can hold labels: a box around the template's brain."""
    mask = read_volume(template.mask)
    places = grid.to_voxel(mask.grid.to_world(np.argwhere(mask.data > 0.5)))
    rim = _MARGIN / np.array(grid.spacing)
    start = np.maximum(np.floor(places.min(axis=0) - rim), 0).astype(int)
    stop = np.minimum(np.ceil(places.max(axis=0) + rim) + 1, grid.shape).astype(int)
    a, b, c = (slice(int(i), int(j)) for i, j in zip(start, stop, strict=True))
    return (a, b, c), grid.crop(start.tolist(), stop.tolist())

"""Lesions of consecutive sessions of a subject: ``_seg-wml_change.tsv`` of the later one.

The FLAIR of the session before is registered to that of the later one (rigid), and the lesions of
both are compared. Where it is not known which of two sessions was first, nothing is compared.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from deepmrseg_bids import __version__
from deepmrseg_bids.bids import names
from deepmrseg_bids.bids.derivatives import tasks_in
from deepmrseg_bids.bids.description import raw_folder
from deepmrseg_bids.bids.ownership import FileGuard
from deepmrseg_bids.bids.provenance import Provenance, Sidecar, same_provenance
from deepmrseg_bids.bids.tables import write_changes
from deepmrseg_bids.bids.visits import Visits, read_visits
from deepmrseg_bids.errors import DeepMRSegError, RegistrationError
from deepmrseg_bids.files import Staging, file_sha256, read_json
from deepmrseg_bids.imaging.grid import Grid, resample
from deepmrseg_bids.imaging.nifti import Volume, read_labels, read_volume
from deepmrseg_bids.imaging.registration import ants_version, register_rigid
from deepmrseg_bids.session.job import SessionOutcome
from deepmrseg_bids.session.publish_lesions import registration_facts
from deepmrseg_bids.tasks.brain import TASK as BRAIN
from deepmrseg_bids.tasks.coregistration import LEAST_EDGES
from deepmrseg_bids.tasks.lesion_change import BORDER_MM, STATUSES, Change, changes_between
from deepmrseg_bids.tasks.spec import T1W, TaskSpec
from deepmrseg_bids.tsv import NOT_KNOWN

__all__ = ["VisitPair", "visit_pairs", "visits_of", "write_lesion_changes"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class VisitPair:
    """Two consecutive sessions of which both have lesions, in OUT_DIR or as paths of images.

    Attributes:
        before, after: the sessions, with ``ses-``.
        scans: the images in which the lesions were found, the earlier first.
        labels: their label maps, relative to OUT_DIR.
        mask: the brain mask of the later T1w, relative to OUT_DIR; it need not be there.
        table: the table of the later session, relative to OUT_DIR.
    """

    spec: TaskSpec
    before: str
    after: str
    scans: tuple[Path, Path]
    labels: tuple[PurePosixPath, PurePosixPath]
    mask: PurePosixPath | None
    table: PurePosixPath


def visits_of(outcomes: Sequence[SessionOutcome], out_dir: Path) -> Visits:
    """The sessions of a subject in the order of time."""
    subject = f"sub-{outcomes[0].subject}"
    images = {_label(outcome): next(iter(outcome.images.values()), "") for outcome in outcomes}
    folders = (parent for image in images.values() for parent in Path(image).parents)
    raw = next((folder.parent for folder in folders if folder.name == subject), None)
    if raw is None:
        raw = raw_folder(out_dir)
    stems = {
        session: names.source_stem(image) if image else f"{subject}_{session}"
        for session, image in images.items()
    }
    return Visits.of(stems) if raw is None else read_visits(raw, subject, stems)


def _label(outcome: SessionOutcome) -> str:
    return f"ses-{outcome.session}" if outcome.session else ""


def visit_pairs(outcomes: Sequence[SessionOutcome], out_dir: Path) -> list[VisitPair]:
    """Every two consecutive sessions whose lesions can be compared, by task."""
    if len(outcomes) < 2:
        return []
    visits = visits_of(outcomes, out_dir)
    found = []
    for spec in (spec for spec in tasks_in(out_dir).values() if spec.lesions):
        done = {
            _label(outcome): outcome
            for outcome in outcomes
            for task in outcome.tasks
            if task.task == spec.name and task.status in ("done", "resumed")
            and spec.native in outcome.images
        }  # fmt: skip
        for one, other in pairwise(visits.among(done).sessions):
            if visits.before(one, other):
                found.append(_pair(spec, done[one], done[other]))
    return found


def _pair(spec: TaskSpec, before: SessionOutcome, after: SessionOutcome) -> VisitPair:
    scans = Path(before.images[spec.native]), Path(after.images[spec.native])
    t1w = after.images.get(T1W)
    return VisitPair(
        spec,
        _label(before),
        _label(after),
        scans,
        (
            names.native_label_map_path(spec, before.images),
            names.native_label_map_path(spec, after.images),
        ),
        None if t1w is None else names.label_map_path(t1w, BRAIN.label_map),
        names.change_path(scans[1], spec.name),
    )


def write_lesion_changes(outcomes: Sequence[SessionOutcome], out_dir: Path) -> list[PurePosixPath]:
    """Write the table of every pair of sessions of a subject that has not one already.

    A pair that cannot be compared costs its table alone, and is named in the log.

    Returns:
        The tables that are there, relative to OUT_DIR.
    """
    return list(_written(visit_pairs(outcomes, out_dir), out_dir))


def _written(pairs: Sequence[VisitPair], out_dir: Path) -> Iterator[PurePosixPath]:
    for pair in pairs:
        try:
            made = _provenance(pair, out_dir)
            if not same_provenance(out_dir, [pair.table], made):
                _compare(pair, made, out_dir)
            yield pair.table
        except (DeepMRSegError, OSError) as error:
            _log.warning(
                "%s: lesions were not compared with %s: %s", pair.table.name, pair.before, error
            )


def _provenance(pair: VisitPair, out_dir: Path) -> Provenance:
    files = {names.bids_uri(path): out_dir / path for path in pair.labels}
    for scan in pair.scans:
        files[names.bids_uri(names.anat_folder(scan) / scan.name, "raw")] = scan
    return Provenance(
        inputs={uri: file_sha256(path) for uri, path in files.items()},
        software={"deepmrseg-bids": __version__, "antspyx": ants_version()},
        models={},
        parameters={"BorderMM": BORDER_MM},
    )


def _compare(pair: VisitPair, made: Provenance, out_dir: Path) -> None:
    """Register the two scans and write the table.

    Raises:
        RegistrationError: the scans are not of one head, or cannot be brought onto each other.
    """
    before, after = (read_volume(scan, force_header=True) for scan in pair.scans)
    fit = register_rigid(before, after, mask=_brain(pair, after, out_dir))
    edges = fit.quality.edges or 0.0
    if edges < LEAST_EDGES:
        raise RegistrationError(
            f"the two scans could not be registered (edge agreement {edges:.2f}, expected at "
            f"least {LEAST_EDGES:.2f})"
        )
    maps = [read_labels(out_dir / path) for path in pair.labels]
    changes = changes_between(maps[0], maps[1], fit.matrix)
    sidecar = Sidecar(
        f"Lesions of {pair.after} compared with those of {pair.before}",
        made,
        more={"Before": pair.before, **registration_facts(fit, used=True), **_totals(changes)},
    )
    with tempfile.TemporaryDirectory(prefix="deepmrseg-") as work:
        guard = FileGuard(out_dir)
        with Staging(out_dir, Path(work), guard) as staging:
            write_changes(staging.path(pair.table), changes, provenance=sidecar.to_json())


def _brain(pair: VisitPair, after: Volume, out_dir: Path) -> NDArray[np.bool_] | None:
    """The brain of the later scan, where its T1w lies on it; None if that is not known."""
    if pair.mask is None or not (out_dir / pair.mask).is_file():
        return None
    try:
        facts = read_json(out_dir / names.sidecar_path(pair.labels[1]))["Registration"]
        matrix = np.array(facts["Matrix"], dtype=float) if facts["Used"] is True else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if matrix is None or matrix.shape != (4, 4):
        return None
    mask = read_labels(out_dir / pair.mask)
    there = Grid(mask.grid.shape, np.linalg.inv(matrix) @ mask.grid.affine)
    found: NDArray[np.bool_] = resample(mask.data, there, after.grid, order=0) > 0
    return found if found.any() else None


def _totals(changes: Sequence[Change]) -> dict[str, object]:
    """Number and change of volume of each status, for the sidecar."""
    return {
        "Totals": {
            status or NOT_KNOWN: {
                "Count": len(part),
                "ChangeMM3": round(sum(one.change_mm3 for one in part), 2),
            }
            for status in (*STATUSES, None)
            for part in [[one for one in changes if one.status == status]]
        }
    }

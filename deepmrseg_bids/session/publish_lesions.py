"""The files of ``wml``: lesions on the grids of FLAIR and T1w, their table, the registration.

The label map on the FLAIR's own grid is the one that is always there; that on the T1w's grid
and the transform are there where the T1w lies on the FLAIR.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from deepmrseg_bids.bids import names
from deepmrseg_bids.bids.derivatives import DESCRIPTIONS
from deepmrseg_bids.bids.tables import write_lesions
from deepmrseg_bids.files import Staging, read_json, write_json, write_text
from deepmrseg_bids.imaging.nifti import write_labels, write_probabilities
from deepmrseg_bids.imaging.registration import RigidFit, itk_text
from deepmrseg_bids.tasks.results import native_posteriors
from deepmrseg_bids.tasks.wml import LesionSegmentation

__all__ = ["always_there", "registration_facts", "stage_lesions", "there_if_aligned"]

Describe = Callable[..., dict[str, Any]]
_TASK = "wml"


def always_there(flair: Path, source: Path, *, probabilities: bool) -> list[PurePosixPath]:
    """The files of every session with lesions looked for, the label map first.

    Args:
        source: the scan that tables are named after: the T1w, or the FLAIR without one.
    """
    files = [
        names.label_map_path(flair, _TASK, space="FLAIR"),
        names.morph_path(source, _TASK),
        names.lesions_path(source, _TASK),
    ]
    if probabilities:
        files.append(names.probabilities_path(flair, _TASK, space="FLAIR"))
    return files


def there_if_aligned(
    flair: Path, t1w: Path | None, out_dir: Path, *, probabilities: bool
) -> list[PurePosixPath]:
    """The other files, if the label map's sidecar says that the T1w was laid on the FLAIR."""
    first = out_dir / names.sidecar_path(names.label_map_path(flair, _TASK, space="FLAIR"))
    try:
        used = read_json(first)["Registration"]["Used"]
    except (OSError, ValueError, KeyError, TypeError):
        used = False
    if t1w is None or used is not True:
        return []
    return _aligned(flair, t1w, probabilities=probabilities)


def _aligned(flair: Path, t1w: Path, *, probabilities: bool) -> list[PurePosixPath]:
    files = [
        names.label_map_path(t1w, _TASK),
        names.transform_path(flair, "FLAIR", "T1w", ".txt"),
    ]
    return files + ([names.probabilities_path(t1w, _TASK)] if probabilities else [])


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


def stage_lesions(
    result: LesionSegmentation,
    flair: Path,
    t1w: Path | None,
    staging: Staging,
    describe: Describe,
    *,
    bids_dir: Path,
    probabilities: bool,
) -> list[PurePosixPath]:
    """Write all but the table of volumes.

    Args:
        describe: makes a sidecar, see :func:`~.derivatives.described`.

    Returns:
        What was written, without the sidecars.
    """
    pair = result.pair
    aligned = t1w is not None and pair is not None and pair.t1w is not None
    facts = registration_facts(None if pair is None else pair.fit, used=aligned)

    def uri(scan: Path) -> str:
        return names.bids_uri(scan.relative_to(bids_dir), "raw")

    def beside(path: PurePosixPath, text: str, **more: Any) -> None:
        about = {**describe(text, **more), **facts}
        write_json(staging.path(names.sidecar_path(path)), about)

    def posteriors(path: PurePosixPath, of: LesionSegmentation, scan: Path) -> None:
        grid, count = of.labels.grid, len(of.table)
        write_probabilities(staging.path(path), native_posteriors(of), grid, count=count)
        beside(path, "Posterior probability of each structure", spatial_reference=uri(scan),
               label_map=[label.name for label in of.table])  # fmt: skip

    text = DESCRIPTIONS[_TASK]
    files = always_there(flair, t1w or flair, probabilities=probabilities)
    write_labels(staging.path(files[0]), result.on_flair)
    beside(files[0], f"{text} on the grid of the FLAIR", spatial_reference=uri(flair))
    provenance = {**describe("Single lesions, in the space of the FLAIR"), **facts}
    write_lesions(staging.path(files[2]), result.lesions, provenance=provenance)
    if probabilities:
        posteriors(files[3], result.in_flair(), flair)
    if not aligned or t1w is None or pair is None or pair.fit is None:
        return files
    more = _aligned(flair, t1w, probabilities=probabilities)
    write_labels(staging.path(more[0]), result.labels)
    beside(more[0], f"{text} on the grid of the T1w", spatial_reference=uri(t1w))
    write_text(staging.path(more[1]), itk_text(np.linalg.inv(pair.fit.matrix)))
    beside(more[1], "Resamples images of the FLAIR onto the T1w (antsApplyTransforms)")
    if probabilities:
        posteriors(more[2], result, t1w)
    return files + more

"""The FLAIR and the T1w of one head: brought onto each other, or not, with the reason.

The FLAIR stays where it is; the T1w is carried to it by a rigid transform. What is odd about
the FLAIR, or about the two together, becomes a finding.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from deepmrseg_bids.errors import RegistrationError, SegmentationError
from deepmrseg_bids.findings import Finding
from deepmrseg_bids.imaging.grid import Grid, covered, resample
from deepmrseg_bids.imaging.nifti import Volume
from deepmrseg_bids.imaging.registration import RigidFit, register_rigid
from deepmrseg_bids.tasks.brain import Brain, find_brain
from deepmrseg_bids.tasks.flair_contrast import check_flair, tissue_step
from deepmrseg_bids.tasks.qc import check_image

if TYPE_CHECKING:
    from deepmrseg_bids.inference.predictor import Predictor

__all__ = ["LEAST_EDGES", "LEAST_OVERLAP", "Pair", "pair_scans"]

LEAST_EDGES = 0.6
"""Below, two scans are not of one head: 0.68 to 0.90 is usual, another person's give 0.34 to
0.55 (:func:`deepmrseg_bids.imaging.registration.edge_agreement`)."""
LEAST_OVERLAP = 0.85
"""Of the two brains; 0.92 and more is usual."""

_LEAST_SEEN = 0.9  # of the T1w's brain in the FLAIR's field of view
_T1W_ONLY = {"contrast-doubtful"}  # the middle of a FLAIR may be darker than its rim


@dataclass(frozen=True, eq=False)
class Pair:
    """A FLAIR, and a T1w that lies on it.

    Attributes:
        flair: the scan that stays.
        t1w: None where there is none, or where it does not lie on the FLAIR.
        brain: of the FLAIR, in its space.
        rigid: (4, 4), points of the FLAIR's space to points of the T1w's; None without a T1w.
        fit: how well they lie on each other, also where that was not enough.
    """

    flair: Volume
    t1w: Volume | None
    brain: Brain
    rigid: NDArray[np.float64] | None = None
    fit: RigidFit | None = None
    findings: tuple[Finding, ...] = ()

    def in_t1w(self, grid: Grid) -> Grid:
        """Where voxels of the FLAIR's space lie in that of the T1w."""
        assert self.rigid is not None
        return Grid(grid.shape, self.rigid @ grid.affine)


def pair_scans(
    flair: Volume, t1w: Volume | None, predictor: Predictor, *, brain: Brain | None = None
) -> Pair:
    """Find the brain of a FLAIR and bring the T1w of the same head onto it.

    A T1w that cannot be brought there is left out, with a finding that says why.

    Args:
        predictor: of ``brain``: its network was trained on all contrasts.
        brain: of the T1w, where it is known.

    Raises:
        SegmentationError: no brain was found in the FLAIR.
    """
    try:
        own = find_brain(flair, predictor)
    except SegmentationError as error:
        raise SegmentationError(f"FLAIR: {error}") from error
    seen = [
        replace(finding, message=f"FLAIR: {finding.message}")
        for finding in (*flair.findings, *check_image(flair), *own.findings)
        if finding.code not in _T1W_ONLY
    ]
    seen += _looks(flair, own, t1w, brain)
    if t1w is None:
        text = "lesions were segmented in the FLAIR alone, without a T1w: accuracy is lower"
        alone = Finding("flair-alone", "warning", text)
        return Pair(flair, None, own, findings=(*seen, alone))
    try:
        fit = register_rigid(t1w, flair, mask=own.mask_on(flair.grid))
    except RegistrationError as error:
        return Pair(flair, None, own, findings=(*seen, _left_out(str(error))))
    doubt = _doubt(fit)
    if doubt:
        return Pair(flair, None, own, fit=fit, findings=(*seen, _left_out(doubt)))
    pair = Pair(flair, t1w, own, fit.matrix, fit, tuple(seen))
    return replace(pair, findings=(*seen, *_together(pair, brain)))


def _looks(flair: Volume, own: Brain, t1w: Volume | None, brain: Brain | None) -> list[Finding]:
    """Whether a FLAIR looks like one, and not more like a T1w than the T1w does."""
    image, inside = resample(flair.data, flair.grid, own.grid), own.probability > 0.5
    found = check_flair(image, inside, own.grid)
    if t1w is not None and np.array_equal(t1w.data, flair.data):
        text = "T1w and FLAIR contain the same image: one of the two files is wrong"
        found.append(Finding("scans-identical", "error", text))
    elif t1w is not None and brain is not None:
        theirs = resample(t1w.data, t1w.grid, brain.grid)
        step = tissue_step(image, inside, own.grid)
        other = tissue_step(theirs, brain.probability > 0.5, brain.grid)
        if other < step:
            text = (
                f"white matter is brighter than the cortex in the FLAIR ({step:.2f}) more than "
                f"in the T1w ({other:.2f}): are the two files exchanged?"
            )
            found.append(Finding("scans-swapped", "error", text))
    return found


def _doubt(fit: RigidFit) -> str:
    """Why two scans are not of one head, or do not lie on each other; empty if they do."""
    edges = fit.quality.edges or 0.0
    if edges >= LEAST_EDGES:
        return ""
    return (
        f"edge agreement {edges:.2f}, expected at least {LEAST_EDGES:.2f} for two "
        "scans of one head: another participant, or not a head?"
    )


def _left_out(reason: str) -> Finding:
    text = f"FLAIR-T1w registration failed, only the FLAIR was used: {reason}"
    return Finding("flair-misaligned", "error", text)


def _together(pair: Pair, brain: Brain | None) -> list[Finding]:
    """What is odd about two scans that lie on each other."""
    if brain is None or pair.rigid is None:
        return []
    found = []
    theirs = brain.mask_on(pair.in_t1w(pair.brain.grid))
    ours = pair.brain.probability > 0.5
    overlap = 2 * float((theirs & ours).sum()) / max(float(theirs.sum() + ours.sum()), 1.0)
    if overlap < LEAST_OVERLAP:
        text = (
            "the brain masks of FLAIR and T1w have an overlap (Dice) of "
            f"{overlap:.2f}, expected at least {LEAST_OVERLAP:.2f}: inspect both "
            "masks; that of the FLAIR was used"
        )
        found.append(Finding("brains-differ", "warning", text))
    place = Grid(brain.grid.shape, np.linalg.inv(pair.rigid) @ brain.grid.affine)
    inside = brain.probability > 0.5
    share = float(covered(pair.flair.grid, place)[inside].mean())
    if share < _LEAST_SEEN:
        text = (
            f"the FLAIR covers {100 * share:.0f} % of the brain: lesions elsewhere are not detected"
        )
        found.append(Finding("flair-view", "warning", text))
    return found

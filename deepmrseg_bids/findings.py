"""What was noticed about an image or a segmentation: small values that travel to every output.

A finding never stops anything (that is what errors are for). It says what a careful reader
should know before using a number.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

__all__ = ["CODES", "Finding", "Severity", "worst_first"]

Severity = Literal["error", "warning", "info"]
_SEVERITIES: tuple[str, ...] = get_args(Severity)

CODES: Mapping[str, str] = {
    # the file and its header
    "single-volume-4d": "4D with one volume",
    "nan-voxels": "NaN or infinite voxels",
    "negative-values": "negative intensities",
    "intensities-negated": "air is brighter than the head",
    "computed-tomography": "the intensities are those of a CT",
    "scan-padded": "voxels outside the scan have a value other than air",
    "flat-regions": "large regions of exactly one intensity: not an MRI?",
    "few-intensities": "few different intensities: a label map?",
    "sform-qform-differ": "sform and qform differ",
    "orientation-differs": "sform and qform have different orientations",
    "assumed-geometry": "no orientation in the header; one was assumed (--force-header)",
    "not-scanner-space": "the image was resampled or registered before",
    "oblique": "oblique slices",
    "thick-slices": "thick slices",
    "uneven-voxels": "anisotropic voxels",
    "small-view": "the field of view is smaller than a head",
    "sheared": "the axes of the voxels are not perpendicular",
    "voxel-size-differs": "the header gives two voxel sizes",
    "units-doubtful": "the unit of length in the header is not mm",
    "header-values": "a number in the header is impossible",
    "surplus-data": "the file is longer than its header announces",
    "rescaled-values": "very large or very small intensities",
    "log-transformed": "the intensities are logarithms",
    "sidecar-unreadable": "a JSON or TSV sidecar cannot be read",
    # the segmentation
    "brain-volume": "implausible brain volume",
    "brain-cut": "the brain touches the edge of the image",
    "brain-shape": "implausible shape of the brain",
    "brain-unsure": "low confidence of the brain mask",
    "brain-air": "the brain mask contains air",
    "no-tissue-contrast": "no contrast between the tissues of the brain",
    "mask-doubtful": "the mask of a skull-stripped image is implausible",
    "several-heads": "the image contains a second brain",
    "brain-noisy": "the brain was found only after smoothing",
    "brightness-uneven": "brightness changes much across the brain",
    "image-blurred": "fine detail is missing",
    "image-noisy": "strong noise",
    "orientation-doubtful": "the orientation in the header may be wrong",
    "contrast-doubtful": "contrast is not T1-like",
    "skull-stripped": "the image appears skull-stripped",
    "no-deep-structures": "the deep structures were not found",
    "structure-missing": "a structure was not found",
    "structure-volume": "implausible volume of a structure",
    "structure-unsure": "low confidence of a structure",
    "structures-asymmetric": "large left/right asymmetry",
    "structures-outside": "a structure extends outside the brain",
    "sides-crossed": "a left structure is to the right of its counterpart",
    "lesion-untypical": "a lesion is not typical of white-matter lesions",
    "lesions-below-floor": "the lesion volume is not distinguishable from none",
    "flair-alone": "lesions were segmented without a T1w",
    "flair-misaligned": "FLAIR-T1w registration failed",
    "flair-view": "the FLAIR covers only part of the brain",
    "flair-contrast": "contrast is not FLAIR-like",
    "scans-identical": "T1w and FLAIR are the same image",
    "scans-swapped": "T1w and FLAIR may be exchanged",
    "brains-differ": "the brain masks of T1w and FLAIR differ",
    "hippocampus-small": "hippocampus much smaller than in deepbrain",
    "hippocampus-far": "hippocampus far from its location in deepbrain",
    "hippocampus-restless": "the search for a hippocampus did not converge",
}
"""Every code and what it is about; ``docs/troubleshooting.md`` says what to do."""


@dataclass(frozen=True)
class Finding:
    """One thing that was noticed.

    Attributes:
        code: a key of ``CODES``, for programs.
        severity: ``info`` is good to know; ``warning`` means look at the result; ``error``
            means do not use it before you have found out why.
        message: one line, for people.

    >>> str(Finding("oblique", "info", "tilted by 12 degrees"))
    'info: tilted by 12 degrees (oblique)'
    """

    code: str
    severity: Severity
    message: str

    def __post_init__(self) -> None:
        if self.code not in CODES:
            raise ValueError(f"{self.code!r} is not a code of a finding")
        if self.severity not in _SEVERITIES:
            raise ValueError(f"a severity is one of {_SEVERITIES}, got {self.severity!r}")
        object.__setattr__(self, "message", " ".join(str(self.message).split()))

    def __str__(self) -> str:
        return f"{self.severity}: {self.message} ({self.code})"

    @property
    def tag(self) -> str:
        """``severity:code``, for a cell of a table."""
        return f"{self.severity}:{self.code}"

    def to_json(self) -> dict[str, str]:
        """As an entry of the sidecars' ``Findings``."""
        return {"Code": self.code, "Severity": self.severity, "Message": self.message}

    @classmethod
    def from_json(cls, tree: Mapping[str, Any]) -> Finding:
        """The inverse of :meth:`to_json`.

        Raises:
            ValueError: not such an entry.
        """
        try:
            return cls(tree["Code"], tree["Severity"], tree["Message"])
        except (KeyError, TypeError) as error:
            raise ValueError(f"not a finding: {tree!r}") from error


def worst_first(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Each finding once, errors first, else in the order given.

    >>> one, two = Finding("oblique", "info", "a"), Finding("brain-cut", "error", "b")
    >>> worst_first([one, two, one]) == (two, one)
    True
    """
    once = dict.fromkeys(findings)
    return tuple(sorted(once, key=lambda finding: _SEVERITIES.index(finding.severity)))

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
    "nan-voxels": "voxels without a number",
    "negative-values": "intensities below zero",
    "few-intensities": "hardly any different intensities: a label map?",
    "sform-qform-differ": "the two positions in the header disagree",
    "orientation-differs": "the two positions in the header disagree about directions",
    "assumed-geometry": "no position in the header; one was assumed (--force-header)",
    "not-scanner-space": "resampled or registered before",
    "oblique": "the slices are tilted",
    "thick-slices": "thick slices",
    "uneven-voxels": "voxels much longer in one direction",
    "small-view": "the field of view is smaller than a head",
    "sidecar-unreadable": "a JSON or TSV file beside the image cannot be read",
    # the segmentation
    "brain-volume": "implausible volume of the brain",
    "brain-cut": "the brain reaches the edge of the image",
    "brain-shape": "the brain does not have the shape of a brain",
    "brain-unsure": "the network is not sure of the brain",
    "brain-noisy": "the brain was found in a smoothed image only",
    "orientation-doubtful": "the header may say the wrong orientation",
    "contrast-doubtful": "the contrast is not that of a T1w",
    "skull-stripped": "nothing but the brain in the image",
    "no-deep-structures": "the deep structures were not found",
    "structure-missing": "a structure was not found",
    "structure-volume": "implausible volume of a structure",
    "structure-unsure": "the network is not sure of a structure",
    "structures-asymmetric": "left and right differ much",
    "structures-outside": "a structure reaches out of the brain",
    "sides-crossed": "a left structure lies right of its partner",
    "flair-alone": "lesions were found without a T1w",
    "flair-misaligned": "the T1w does not lie on the FLAIR",
    "flair-view": "the FLAIR shows only a part of the brain",
    "flair-contrast": "the contrast is not that of a FLAIR",
    "scans-swapped": "T1w and FLAIR may have been exchanged",
    "brains-differ": "the brains of T1w and FLAIR do not fit each other",
    "hippocampus-small": "much less hippocampus than deepbrain found",
    "hippocampus-far": "a hippocampus far from where deepbrain saw it",
    "hippocampus-restless": "the search for a hippocampus did not settle",
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

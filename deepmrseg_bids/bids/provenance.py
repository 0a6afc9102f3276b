"""From what and by what a file was made: the sidecar beside it, and reading it again.

A sidecar stands only where its file is whole (see :class:`deepmrseg_bids.files.Staging`)
and says how it was made. If that is how it would be made now, it is not made again.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from deepmrseg_bids.bids.names import sidecar_path
from deepmrseg_bids.errors import DatasetError
from deepmrseg_bids.files import read_json, write_text
from deepmrseg_bids.findings import Finding, worst_first
from deepmrseg_bids.inference.bundle import file_sha256
from deepmrseg_bids.tsv import read_tsv, tsv_text

__all__ = [
    "Digests",
    "FileDigest",
    "Provenance",
    "Sidecar",
    "findings_of",
    "model_of",
    "same_provenance",
]

_COLUMNS = ("path", "size", "mtime_ns", "sha256")


@dataclass(frozen=True)
class Provenance:
    """From what and by what a file is made; equal values make equal bytes.

    Attributes:
        inputs: SHA-256 of each input, by BIDS URI.
        software: versions by name.
        models: by name, ``{"Version": ..., "SHA256": ...}``.
        parameters: what was asked for.
    """

    inputs: Mapping[str, str]
    software: Mapping[str, str]
    models: Mapping[str, Mapping[str, str]]
    parameters: Mapping[str, Any]

    def to_json(self) -> dict[str, dict[str, Any]]:
        """As it stands in a sidecar."""
        return {
            "InputSHA256": dict(self.inputs),
            "Software": dict(self.software),
            "Models": {name: dict(facts) for name, facts in self.models.items()},
            "Parameters": dict(self.parameters),
        }


@dataclass(frozen=True)
class Sidecar:
    """What the JSON beside an output says; no time and no place, so equal runs give equal bytes.

    Attributes:
        description: one sentence for people.
        made: from what and by what.
        findings: about the input and the result. ``Warnings`` repeats the messages of those
            that are not mere information.
        spatial_reference: BIDS URI or URI of the image whose grid it lies on.
        kind: the BIDS ``Type`` of a mask, as ``Brain``.
        label_map: the name of each volume of 4D posteriors.
        resolution: in words; BIDS wants it where the name has ``res``.
        more: further entries.
    """

    description: str
    made: Provenance
    findings: Sequence[Finding] = ()
    spatial_reference: str | None = None
    kind: str | None = None
    label_map: Sequence[str] | None = None
    resolution: str | None = None
    more: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The entries of the JSON file."""
        findings = worst_first(self.findings)
        optional = {
            "SpatialReference": self.spatial_reference,
            "Type": self.kind,
            "LabelMap": None if self.label_map is None else list(self.label_map),
            "Resolution": self.resolution,
        }
        return {
            "Description": self.description,
            "Sources": list(self.made.inputs),
            **self.made.to_json(),
            "Findings": [finding.to_json() for finding in findings],
            "Warnings": [one.message for one in findings if one.severity != "info"],
            **{key: value for key, value in optional.items() if value is not None},
            **self.more,
        }


class FileDigest(NamedTuple):
    """The SHA-256 of a file, and what tells that it has not changed since."""

    path: str
    size: int
    mtime_ns: int
    sha256: str

    @classmethod
    def of(cls, path: str | os.PathLike[str]) -> FileDigest:
        """Read a file; its size and time are those of before it was read."""
        found = os.stat(path)
        return cls(str(path), found.st_size, found.st_mtime_ns, file_sha256(path))


@dataclass
class Digests:
    """SHA-256 of input files, remembered for as long as size and time of a file stay.

    Attributes:
        table: where they are kept between runs.
    """

    table: Path
    known: dict[str, FileDigest] = field(default_factory=dict)

    @classmethod
    def read(cls, table: Path) -> Digests:
        """What was remembered; a table that cannot be read only costs time."""
        known = {}
        with suppress(DatasetError, KeyError, ValueError):
            for row in read_tsv(table).rows:
                path, size, mtime_ns, sha256 = (row[column] for column in _COLUMNS)
                known[path] = FileDigest(path, int(size), int(mtime_ns), sha256)
        return cls(table, known)

    def sha256(self, path: Path) -> str:
        """The SHA-256 of a file, from memory if it has not changed.

        Raises:
            OSError: the file cannot be read.
        """
        found, kept = path.stat(), self.known.get(str(path))
        if kept is None or (kept.size, kept.mtime_ns) != (found.st_size, found.st_mtime_ns):
            kept = self.known[str(path)] = FileDigest.of(path)
        return kept.sha256

    def add(self, digests: Iterable[FileDigest]) -> None:
        """Remember what a worker found out."""
        self.known |= {digest.path: digest for digest in digests}

    def save(self) -> None:
        """Write the table, whole or not at all, with what other runs have added to it."""
        self.known = Digests.read(self.table).known | self.known
        # a path that no cell can hold is read again each time
        plain = [path for path in sorted(self.known) if not set(path) & set('\t\r\n"')]
        text = tsv_text(_COLUMNS, [self.known[path] for path in plain], quote=True)
        write_text(self.table, text)


def same_provenance(
    out_dir: Path, files: Iterable[os.PathLike[str]], expected: Provenance | None
) -> bool:
    """Whether all files are there, made from and by what ``expected`` says.

    Args:
        files: relative to OUT_DIR.
        expected: None: whatever they were made from and by.
    """
    facts = {} if expected is None else expected.to_json()
    for file in files:
        tree = _sidecar(out_dir, file)
        if tree is None or any(tree.get(key) != value for key, value in facts.items()):
            return False
        try:
            if not (out_dir / file).stat().st_size:
                return False
        except OSError:
            return False
    return True


def findings_of(out_dir: Path, file: os.PathLike[str]) -> tuple[Finding, ...]:
    """The findings in the sidecar of a file; entries that are none are left out."""
    entries = (_sidecar(out_dir, file) or {}).get("Findings", ())
    found = []
    for entry in entries if isinstance(entries, list) else ():
        with suppress(ValueError):
            found.append(Finding.from_json(entry))
    return tuple(found)


def model_of(out_dir: Path, file: os.PathLike[str], task: str) -> str:
    """``version hash`` of the model that made a file, from its sidecar; empty if it is silent."""
    try:
        model = (_sidecar(out_dir, file) or {})["Models"][task]
        return f"{model['Version']} {model['SHA256'][:12]}"
    except (KeyError, TypeError):
        return ""


def _sidecar(out_dir: Path, file: os.PathLike[str]) -> dict[str, Any] | None:
    try:
        tree = read_json(out_dir / sidecar_path(file))
    except (OSError, ValueError):
        return None
    return tree if isinstance(tree, dict) else None

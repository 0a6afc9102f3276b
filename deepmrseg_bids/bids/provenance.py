"""From what and by what a file was made: the sidecar beside it, and reading it again.

A sidecar stands only where its file is whole (see :class:`deepmrseg_bids.files.Staging`)
and says how it was made. If that is how it would be made now, it is not made again.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple
from urllib.parse import unquote

from deepmrseg_bids.bids.description import RAW
from deepmrseg_bids.bids.names import sidecar_path
from deepmrseg_bids.errors import DatasetError
from deepmrseg_bids.files import SHA256, SIZE, UNFINISHED, file_sha256, read_json, write_text
from deepmrseg_bids.findings import Finding, worst_first
from deepmrseg_bids.tsv import read_tsv, tsv_text

__all__ = [
    "Digests",
    "FileDigest",
    "Provenance",
    "Sidecar",
    "certified",
    "changed_input",
    "findings_of",
    "flaw_of",
    "inputs_of",
    "is_unfinished",
    "made_by_us",
    "model_of",
    "other_session",
    "same_provenance",
    "sidecar_tree",
]

_COLUMNS = ("path", "size", "mtime_ns", "sha256")
_APP = "deepmrseg-bids"
_TICK = 2 * 10**9  # nanoseconds in which a file may change twice without another time


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
    """SHA-256 of files, remembered for as long as size and time of a file stay.

    Attributes:
        table: where they are kept between runs.
        root: the paths in the table are relative to it; None: they are as they were given.
    """

    table: Path
    known: dict[str, FileDigest] = field(default_factory=dict)
    root: Path | None = None

    @classmethod
    def read(cls, table: Path, root: Path | None = None) -> Digests:
        """What was remembered; a table that cannot be read only costs time."""
        known = {}
        with suppress(DatasetError, KeyError, ValueError):
            for row in read_tsv(table).rows:
                path, size, mtime_ns, sha256 = (row[column] for column in _COLUMNS)
                known[path] = FileDigest(path, int(size), int(mtime_ns), sha256)
        return cls(table, known, root)

    def sha256(self, path: Path) -> str:
        """The SHA-256 of a file, from memory if it has not changed.

        Raises:
            OSError: the file cannot be read.
        """
        kept = self._kept(path, path.stat())
        if kept is None:
            kept = self.known[self._key(path)] = FileDigest.of(path)._replace(path=self._key(path))
        return kept.sha256

    def matches(self, path: Path, sha256: str) -> bool:
        """Whether a file has this SHA-256; only a file that has it is remembered.

        Raises:
            OSError: the file cannot be read.
        """
        kept = self._kept(path, path.stat())
        if kept is None:
            kept = FileDigest.of(path)._replace(path=self._key(path))
            if kept.sha256 == sha256:
                self.known[kept.path] = kept
        return kept.sha256 == sha256

    def moved_to(self, bids_dir: Path) -> Digests:
        """The same of scans that were remembered at another place of the data set, too."""
        known = {}
        for path, digest in self.known.items():
            parts = Path(path).parts
            first = next((place for place, part in enumerate(parts) if part[:4] == "sub-"), None)
            if first is not None:
                here = str(bids_dir.joinpath(*parts[first:]))
                known[here] = digest._replace(path=here)
        return Digests(self.table, known | self.known, self.root)

    def has(self, path: Path) -> bool:
        """Whether a file was remembered once, whether or not it has changed since."""
        return self._key(path) in self.known

    def knows(self, path: Path) -> bool:
        """Whether a file is remembered, and has not changed since."""
        try:
            return self._kept(path, path.stat()) is not None
        except OSError:
            return False

    def _kept(self, path: Path, found: os.stat_result) -> FileDigest | None:
        kept = self.known.get(self._key(path))
        same = kept is not None and (kept.size, kept.mtime_ns) == (found.st_size, found.st_mtime_ns)
        return kept if same else None

    def _key(self, path: Path) -> str:
        return str(path) if self.root is None else str(path).removeprefix(f"{self.root}/")

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


def certified(out_dir: Path, files: Iterable[str]) -> Iterator[FileDigest]:
    """The SHA-256 that sidecars state of files of OUT_DIR, which were just written."""
    for file in files:
        sha256 = sidecar_tree(out_dir / sidecar_path(file)).get(SHA256)
        if not file.endswith(".json") and isinstance(sha256, str):
            with suppress(OSError):
                found = (out_dir / file).stat()
                yield FileDigest(file, found.st_size, found.st_mtime_ns, sha256)


def same_provenance(
    out_dir: Path,
    files: Iterable[os.PathLike[str]],
    expected: Provenance | None,
    outputs: Digests | None = None,
) -> bool:
    """Whether all files are there and whole, made from and by what ``expected`` says.

    Args:
        files: relative to OUT_DIR.
        expected: None: whatever they were made from and by.
        outputs: the SHA-256 of files in OUT_DIR; None: that a file is there is enough.
    """
    facts = {} if expected is None else expected.to_json()
    for file in files:
        tree = _sidecar(out_dir, file)
        if tree is None or any(tree.get(key) != value for key, value in facts.items()):
            return False
        if _flaw(out_dir, file, tree, outputs):
            return False
    return True


def flaw_of(out_dir: Path, file: os.PathLike[str], outputs: Digests) -> str:
    """Why a file of OUT_DIR is not what its sidecar says; empty if it is.

    Returns:
        ``lost: ...`` or ``damaged: ...``.
    """
    sidecar = out_dir / sidecar_path(file)
    tree = _sidecar(out_dir, file)
    if tree is not None:
        if other := other_session(out_dir, file):
            return f"damaged: {sidecar.name} is that of another session ({other})"
        return _flaw(out_dir, file, tree, outputs)
    if not (out_dir / file).exists():
        return f"lost: {Path(file).name} is missing"
    if sidecar.exists():
        return f"damaged: the sidecar {sidecar.name} is incomplete or cannot be read"
    return f"lost: the sidecar {sidecar.name} is missing"


def _flaw(
    out_dir: Path, file: os.PathLike[str], tree: Mapping[str, Any], outputs: Digests | None
) -> str:
    path = out_dir / file
    try:
        size = path.stat().st_size
        if not size:
            return f"damaged: {path.name} is empty"
        sha256 = tree.get(SHA256)
        if outputs is None or not isinstance(sha256, str):
            return ""
        if size == tree.get(SIZE) and outputs.matches(path, sha256):
            return ""
    except FileNotFoundError:
        return f"lost: {path.name} is missing"
    except OSError as error:
        return f"damaged: {path.name} cannot be read ({error.strerror})"
    return f"damaged: {path.name} is not as it was written (size or SHA-256 differs)"


def other_session(out_dir: Path, file: os.PathLike[str]) -> str:
    """The folder of the scans that a sidecar names; empty if the file lies in the same one."""
    for uri in inputs_of(out_dir / sidecar_path(file)):
        dataset, _, path = str(uri).removeprefix("bids:").partition(":")
        folder = PurePosixPath(unquote(path)).parent
        if dataset == RAW and folder != PurePosixPath(file).parent:
            return str(folder)
    return ""


def changed_input(
    sidecar: Path, bids_dir: Path, digests: Digests, *, remembered: bool = False
) -> str:
    """Say which scan of a result is not the one that it was made from; empty if all are.

    A scan that has gone is not changed: nothing else stands in its place.

    Args:
        sidecar: of the result.
        digests: of the scans.
        remembered: look only at scans of which the digests have heard, so that a data set that
            was moved is not read as a whole.
    """
    prefix = f"bids:{RAW}:"
    for uri, sha256 in inputs_of(sidecar).items():
        path = bids_dir / unquote(uri.removeprefix(prefix))
        if not uri.startswith(prefix) or (remembered and not digests.has(path)):
            continue
        with suppress(OSError):
            if digests.sha256(path) != sha256:
                return (
                    f"damaged: {path.name} is not the scan that was segmented (it was replaced or "
                    "changed since)"
                )
    return ""


def made_by_us(path: Path) -> bool:
    """Whether the sidecar of a file says that this software wrote it; also of a sidecar itself."""
    software = sidecar_tree(path.parent / sidecar_path(path.name)).get("Software")
    return isinstance(software, dict) and _APP in software


def is_unfinished(path: Path) -> bool:
    """Whether the sidecar of a file says that it may not be whole: a run was stopped."""
    return bool(sidecar_tree(path.parent / sidecar_path(path.name)).get(UNFINISHED))


def inputs_of(sidecar: Path) -> Mapping[str, Any]:
    """The SHA-256 of the inputs by URI, by a sidecar; empty if it is none of ours."""
    found = sidecar_tree(sidecar).get("InputSHA256")
    return found if isinstance(found, dict) else {}


def sidecar_tree(sidecar: str | os.PathLike[str]) -> Mapping[str, Any]:
    """What is in a JSON file; empty if it holds no object.

    It is read once for as long as it does not change: many ask about the same session.
    """
    try:
        found = os.stat(sidecar)
        if time.time_ns() - found.st_mtime_ns < _TICK:
            return _object(sidecar)
        state = (found.st_ino, found.st_size, found.st_mtime_ns)
        return _unchanged(os.fspath(sidecar), *state)
    except (OSError, ValueError):
        return {}


@lru_cache(maxsize=64)
def _unchanged(sidecar: str, *state: int) -> Mapping[str, Any]:
    return _object(sidecar)


def _object(sidecar: str | os.PathLike[str]) -> Mapping[str, Any]:
    tree = read_json(sidecar)
    return tree if isinstance(tree, dict) else {}


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


def _sidecar(out_dir: Path, file: os.PathLike[str]) -> Mapping[str, Any] | None:
    """What the sidecar of a file says, if it certifies the file."""
    tree = sidecar_tree(os.path.join(out_dir, sidecar_path(file)))
    return tree if tree and not tree.get(UNFINISHED) else None

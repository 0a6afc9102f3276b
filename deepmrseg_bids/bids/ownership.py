"""Whose OUT_DIR is, and whose its files are: nothing that others wrote is ever replaced.

OUT_DIR is new, empty, or ours and of the same source data set. A file in it is ours if its
sidecar names deepmrseg-bids, if its content is what ``logs/outputs.tsv`` says that we wrote, or,
for a page, if its head says so.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from urllib.parse import unquote

from deepmrseg_bids.bids.description import (
    APP,
    DESCRIPTION,
    RAW,
    doi_of,
    generators,
    read_description,
    source_links,
)
from deepmrseg_bids.bids.names import sidecar_path
from deepmrseg_bids.bids.provenance import (
    Digests,
    flaw_of,
    inputs_of,
    is_unfinished,
    made_by_us,
    other_session,
)
from deepmrseg_bids.errors import DatasetError, DeepMRSegError, ForeignFileError
from deepmrseg_bids.files import read_json
from deepmrseg_bids.imaging.nifti import read_labels

__all__ = ["FileGuard", "check_group_files", "check_ownership", "is_edited", "page_guard"]

_RUN_FILE = re.compile(r"run-\d{8}-\d{6}-[0-9a-f]{8}[.\w]*|\.lock|\.deepmrseg-.*|crash-.*")
_RUN = re.compile(r"run-\d{8}-\d{6}-[0-9a-f]{8}\.(log|toml)")
_NOBODYS = frozenset({
    ".git", ".gitattributes", ".gitignore", ".gitmodules", ".datalad", ".DS_Store", ".snapshot",
    "lost+found", "code", "sourcedata",
})  # fmt: skip
_OF_DATA_SETS = frozenset({"derivatives", "sourcedata", "rawdata"})
_OF_DATALAD = frozenset({"README.md", "CHANGELOG.md"})
_LISTED = 5
_COMPARED = 8  # scans of others that are enough to tell that a data set is another one
_HEAD = 4096  # bytes of a page that hold its generator
_ADVICE = "nothing was written; choose a new or an empty folder as OUT_DIR"


def check_ownership(
    bids_dir: Path,
    out_dir: Path,
    *,
    inside: Collection[Path | None] = (),
    same_source: bool = False,
    described: bool = True,
) -> None:
    """See that OUT_DIR is new, empty, or ours and of this data set; nothing is written.

    Args:
        inside: other folders and files of the run: they may be in an OUT_DIR that is new.
        same_source: the user says that OUT_DIR is of this data set.
        described: False takes a folder without a description for ours (what is written is
            then guarded file by file).

    Raises:
        DatasetError: it is not; the message says what was found and what to do.
    """
    if not out_dir.is_dir():
        _check_above(bids_dir, out_dir)
        return  # new; if it is a file, whoever makes the folder says so
    try:
        names = set(os.listdir(out_dir))
    except OSError as error:
        raise DatasetError(f"OUT_DIR {out_dir} cannot be read ({error.strerror})") from error
    tree = _description(out_dir)
    if APP in generators(tree):
        if not same_source:
            _check_source(bids_dir, out_dir, tree)
        return
    _check_above(bids_dir, out_dir)
    if tree or DESCRIPTION in names:
        raise DatasetError(_of_others(out_dir, names, generators(tree)))
    if not described:
        return
    own = {path.relative_to(out_dir).parts[0] for path in inside
           if path is not None and out_dir in path.parents}  # fmt: skip
    foreign = sorted(name for name in names - _NOBODYS - own if not _is_of_a_run(out_dir / name))
    if ".datalad" in names:
        foreign = [name for name in foreign if name not in _OF_DATALAD]
    if foreign and not _was_ours(out_dir):
        listed = ", ".join(foreign[:_LISTED])
        more = len(foreign) - _LISTED
        listed += f" and {more} more" if more > 0 else ""
        raise DatasetError(
            f"OUT_DIR {out_dir} is not empty, and its files are not from {APP}: it contains "
            f"{listed}; {_ADVICE}, for example {out_dir / 'deepmrseg'}"
        )


def _check_above(bids_dir: Path, out_dir: Path) -> None:
    """See that OUT_DIR does not lie among the results of another program.

    A folder of the raw data or above it may be anybody's, and so may one that holds data sets as
    ``derivatives`` or ``sourcedata``.
    """
    raw, below = bids_dir.resolve(), out_dir.resolve()
    for folder in below.parents:
        if folder == raw or folder in raw.parents:
            return
        if below.relative_to(folder).parts[0] not in _OF_DATA_SETS:
            tree = read_description(folder)
            makers = [name for name in generators(tree) if name != APP]
            if makers and tree.get("DatasetType") != "raw":
                raise DatasetError(
                    f"OUT_DIR {out_dir} is inside {folder}, which contains the results of "
                    f"{', '.join(makers)} ({DESCRIPTION}, GeneratedBy); {_ADVICE} outside it, for "
                    f"example {folder.with_name('deepmrseg')}"
                )


def _description(out_dir: Path) -> dict[str, object]:
    path = out_dir / DESCRIPTION
    try:
        tree = read_json(path)
    except FileNotFoundError:
        if path.is_symlink():
            raise DatasetError(
                f"{path} is a link to a file that is missing, so it is not known whose results "
                "these are; nothing was written; restore that file (of DataLad: datalad get), or, "
                f"if all results are from {APP}, remove the link: the file is written again"
            ) from None
        return {}
    except (OSError, ValueError) as error:
        raise DatasetError(
            f"{path} cannot be read ({error}), so it is not known whose results these are; "
            f"nothing was written; restore the file, or, if all results are from {APP}, remove "
            "it: it is written again"
        ) from error
    return tree if isinstance(tree, dict) else {}


def _of_others(out_dir: Path, names: set[str], makers: list[str]) -> str:
    if makers:
        return (
            f"OUT_DIR {out_dir} contains the results of {', '.join(makers)} ({DESCRIPTION}, "
            f"GeneratedBy), not of {APP}; {_ADVICE}, for example "
            f"{out_dir.with_name('deepmrseg')}"
        )
    if _was_ours(out_dir):
        return (
            f"OUT_DIR {out_dir} has logs of {APP}, but its {DESCRIPTION} does not name {APP} under "
            "GeneratedBy, so it is not known whose results these are; nothing was written; "
            "restore the file, or, if all results are "
            f"from {APP}, remove it: it is written again"
        )
    what = "a BIDS data set" if any(name.startswith("sub-") for name in names) else "a data set"
    return (
        f"OUT_DIR {out_dir} is {what} that is not from {APP} (its {DESCRIPTION} does not name it "
        "under GeneratedBy). The order of the arguments is BIDS_DIR OUT_DIR: were the two "
        f"exchanged? {_ADVICE.capitalize()}, for example {out_dir / 'derivatives' / 'deepmrseg'}"
    )


def _is_of_a_run(path: Path) -> bool:
    """Whether something in a folder without description is what a run begins with."""
    if path.name.startswith((".deepmrseg-", ".nfs")):
        return True
    if path.name != "logs" or not path.is_dir():
        return False
    return all(_RUN_FILE.fullmatch(name) for name in os.listdir(path))


def _was_ours(out_dir: Path) -> bool:
    """Whether the logs show that a folder that lost its description is ours."""
    try:
        return any(map(_RUN.fullmatch, os.listdir(out_dir / "logs")))
    except OSError:
        return False


def _check_source(raw: Path, out_dir: Path, tree: dict[str, object]) -> None:
    """See that the results in OUT_DIR are of this data set.

    The scans tell: those that were segmented have their SHA-256 in the sidecars. So a data set
    that was moved or is mounted elsewhere is recognised, and another one in its place, too.
    """
    if not raw.is_dir():
        return  # whoever reads it says so
    doi = doi_of(read_description(raw))
    stated = tree.get("SourceDatasets")
    sources = [one for one in stated if isinstance(one, dict)] if isinstance(stated, list) else []
    if doi and any(one.get("DOI") == doi for one in sources):
        return
    links = source_links(tree)
    same_place = any(_leads_to(out_dir, link, raw) for link in links)
    differing: list[str] = []
    compared = 0
    digests = Digests.read(out_dir / "logs" / "inputs.tsv")
    for path, sha256 in _segmented(out_dir):
        compared += 1
        try:
            found = digests.sha256(raw / path)
        except OSError:
            if same_place and compared > _COMPARED:
                return  # its scans have gone
            continue
        if found == sha256:
            return
        differing.append(path)
        if len(differing) == _COMPARED:
            break
    if compared == 0 or (same_place and len(differing) < 2):
        return
    raise DatasetError(_of_another_source(raw, out_dir, links, differing))


def _of_another_source(raw: Path, out_dir: Path, links: list[str], differing: list[str]) -> str:
    named = unquote(links[0]) if links else "not stated"
    if links and "://" not in named:
        named = os.path.normpath(out_dir / named)
    reason = (
        f"{differing[0]} is not the scan that was segmented"
        if differing
        else "it contains none of the scans that were segmented"
    )
    return (
        f"OUT_DIR {out_dir} contains results of another data set (recorded source: {named}), not "
        f"of BIDS_DIR {raw}: {reason}; {_ADVICE}. If it is the same data set, and was moved or "
        "changed since, run again with --same-source"
    )


def _leads_to(out_dir: Path, link: str, raw: Path) -> bool:
    if "://" in link:
        link = link.removeprefix("file://")
    with suppress(OSError, ValueError):
        return os.path.samefile(out_dir / unquote(link), raw)
    return False


def _segmented(out_dir: Path) -> Iterator[tuple[str, str]]:
    """One scan of each subject with its SHA-256, by the sidecars in OUT_DIR."""
    for subject in sorted(out_dir.glob("sub-*/")):
        for pattern in ("anat/*.json", "ses-*/anat/*.json"):
            own = (item for path in sorted(subject.glob(pattern)) for item in _inputs(path))
            if first := next(own, None):
                yield first
                break


def _inputs(sidecar: Path) -> Iterator[tuple[str, str]]:
    prefix = f"bids:{RAW}:"
    for uri, sha256 in inputs_of(sidecar).items():
        if uri.startswith(prefix) and isinstance(sha256, str):
            yield unquote(uri.removeprefix(prefix)), sha256


@dataclass(frozen=True)
class FileGuard:
    """Raises if a file in OUT_DIR is not ours to replace.

    Attributes:
        force: replace label maps that somebody has edited, too.
    """

    out_dir: Path
    force: bool = False

    @cached_property
    def _outputs(self) -> Digests:
        return Digests.read(self.out_dir / "logs" / "outputs.tsv", root=self.out_dir)

    def __call__(self, path: Path) -> None:
        """See that a file may be written here.

        Raises:
            ForeignFileError: a file is there, and nothing says that we wrote it, or it was edited.
        """
        if not path.exists() or self._outputs.knows(path):
            return
        if not self.force and is_edited(
            self.out_dir, path.relative_to(self.out_dir), self._outputs
        ):
            raise ForeignFileError(
                f"{path} was changed after it was written (corrected by hand?), so it was not "
                "replaced; move it away, or use --force to replace it"
            )
        if made_by_us(path):
            return
        if path.suffix == ".json" and not _is_object(path):
            return  # a sidecar that was damaged: its file tells whose it is
        raise ForeignFileError(
            f"{path}: this file is not from {APP} (it has no sidecar of {APP}), so it was not "
            "replaced; move it away, or choose another OUT_DIR"
        )


def is_edited(out_dir: Path, file: os.PathLike[str], outputs: Digests) -> bool:
    """Whether a label map is whole, but not the one that was written: corrected by hand, perhaps.

    Args:
        file: relative to OUT_DIR.
    """
    path = out_dir / file
    if not path.name.endswith(("_dseg.nii.gz", "_mask.nii.gz")) or not made_by_us(path):
        return False
    if not flaw_of(out_dir, file, outputs).startswith("damaged") or is_unfinished(path):
        return False
    if other_session(out_dir, file):
        return False  # put here from elsewhere
    try:
        read_labels(path)
    except DeepMRSegError:
        return False
    return True


def _is_object(path: Path) -> bool:
    try:
        return isinstance(read_json(path), dict)
    except (OSError, ValueError):
        return False


def page_guard(path: Path) -> None:
    """See that a page may be written here.

    Raises:
        ForeignFileError: a file is there that is not a page of ours.
    """
    try:
        with path.open("rb") as stream:
            head = stream.read(_HEAD)
    except FileNotFoundError:
        return
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read ({error.strerror})") from error
    if head and APP.encode() not in head:
        raise ForeignFileError(
            f"{path}: this page is not from {APP}, so it was not replaced; move it away, or "
            "choose another OUT_DIR"
        )


def check_group_files(out_dir: Path) -> None:
    """See that the tables, pictures and the page of the group level are ours to replace.

    Raises:
        ForeignFileError: one is not.
    """
    page_guard(out_dir / "group.html")
    tables = [out_dir / "group_qc.tsv"]
    tables += [
        path
        for kind in ("seg-", "ratings", "norms")
        for path in sorted(out_dir.glob(f"group_{kind}*.tsv"))
    ]
    for table in tables:
        if table.exists() and not (out_dir / sidecar_path(table.name)).exists():
            raise ForeignFileError(
                f"{table}: this table is not from {APP} (it has no sidecar); nothing was "
                "written; move it away, or choose another OUT_DIR"
            )
    _check_mosaics(out_dir)


def _check_mosaics(out_dir: Path) -> None:
    """See that the pictures are ours: they name us, or, of earlier versions, our page shows them.

    Raises:
        ForeignFileError: one is not.
    """
    page = out_dir / "group.html"
    shown = page.read_bytes() if page.is_file() else b""
    for path in sorted((out_dir / "figures").glob("group_seg-*_mosaic-*.webp")):
        if path.name.encode() not in shown and APP.encode() not in path.read_bytes():
            raise ForeignFileError(
                f"{path}: this image is not from {APP}; nothing was written; move it away, or "
                "choose another OUT_DIR"
            )

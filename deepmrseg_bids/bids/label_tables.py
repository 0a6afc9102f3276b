"""What the numbers in the label maps of OUT_DIR mean.

``seg-<task>_dseg.tsv`` holds for every label map of a task, by the inheritance principle of BIDS. A
model with other labels replaces it; the label maps of earlier models then get a table of their own,
beside them, so that their names stay.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePath, PurePosixPath

from deepmrseg_bids.bids.names import label_table_path
from deepmrseg_bids.errors import ForeignFileError, LabelTableError
from deepmrseg_bids.files import Staging, read_json, write_text
from deepmrseg_bids.imaging.labels import LabelTable

__all__ = [
    "check_label_table",
    "label_table_file",
    "label_table_of",
    "publish_label_table",
    "stage_label_table",
]


def label_table_of(out_dir: Path, task: str, label_map: Path | None = None) -> LabelTable:
    """The labels of a label map: of its own table, or else of that of the task.

    Args:
        label_map: in OUT_DIR; None for what the task writes now.

    Raises:
        LabelTableError: there is no table, or it cannot be read.
    """
    return LabelTable.read(label_table_file(out_dir, task, label_map))


def label_table_file(out_dir: Path, task: str, label_map: Path | None = None) -> Path:
    """The file of :func:`label_table_of`, which may be missing."""
    if label_map is not None and (own := _own_table(label_map)).is_file():
        return own
    return out_dir / label_table_path(task)


def check_label_table(out_dir: Path, task: str) -> None:
    """See that the label table of a task, and its sidecar, are ours to replace.

    A table is ours if its sidecar says what the task is, or, of earlier versions, if it is what we
    write of its labels.

    Raises:
        ForeignFileError: one is not.
    """
    table = out_dir / label_table_path(task)
    beside = table.with_suffix(".json")
    known = _described(beside)
    if beside.exists() and known is False:
        raise _foreign(beside)
    if table.exists() and not known and not _as_we_write(table):
        raise _foreign(table)


def _described(sidecar: Path) -> bool | None:
    """Whether a sidecar says what a task is; None where it holds no object."""
    try:
        tree = read_json(sidecar)
    except (OSError, ValueError):
        return None
    return "TaskTitle" in tree if isinstance(tree, dict) else None


def _as_we_write(path: Path) -> bool:
    try:
        return path.read_text(encoding="utf-8") == _text(LabelTable.read(path))
    except (LabelTableError, OSError, ValueError):
        return False


def _foreign(path: Path) -> ForeignFileError:
    return ForeignFileError(
        f"{path}: this file is not from deepmrseg-bids; nothing was written; move it away, or "
        "choose another OUT_DIR"
    )


def publish_label_table(out_dir: Path, task: str, table: LabelTable) -> None:
    """Write ``seg-<task>_dseg.tsv``; earlier label maps keep the names that their labels have."""
    path = out_dir / label_table_path(task)
    with suppress(LabelTableError):
        if path.exists() and _meaning(earlier := LabelTable.read(path)) != _meaning(table):
            for label_map in _label_maps(out_dir, task):
                if not _own_table(label_map).exists():
                    write_text(_own_table(label_map), _text(earlier))
    write_text(path, _text(table))


def stage_label_table(
    staging: Staging, label_map: str | os.PathLike[str], table: LabelTable
) -> None:
    """Renew the label map's own table, if an earlier one has left it."""
    own = PurePosixPath(_own_table(PurePosixPath(label_map)))
    if staging.replaces(own):
        table.write(staging.path(own))


def _own_table(label_map: PurePath | Path) -> Path:
    return Path(label_map).with_name(label_map.name.partition(".")[0] + ".tsv")


def _label_maps(out_dir: Path, task: str) -> Iterator[Path]:
    for folder in ("sub-*/anat", "sub-*/ses-*/anat"):
        yield from sorted(out_dir.glob(f"{folder}/sub-*_seg-{task}_*dseg.nii.gz"))


def _meaning(table: LabelTable) -> list[tuple[int, str]]:
    return [(label.index, label.name) for label in table]


def _text(table: LabelTable) -> str:
    """What LabelTable.write writes, so that it can be put in place at once."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "dseg.tsv"
        table.write(path)
        return path.read_text(encoding="utf-8")

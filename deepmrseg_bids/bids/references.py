"""Reference label maps in a BIDS derivatives data set, found by the entities of their names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from deepmrseg_bids.bids.names import BidsName
from deepmrseg_bids.errors import DatasetError, UsageError
from deepmrseg_bids.imaging.labels import LabelTable
from deepmrseg_bids.metrics.label_matching import FEWEST_NUMBERS, match_by_name
from deepmrseg_bids.tasks.registry import find_task, task_names
from deepmrseg_bids.tasks.spec import TaskSpec

__all__ = ["Match", "Reference", "parse_reference", "read_references"]

_NAME = re.compile(r"[0-9A-Za-z._+-]+")
_FREE = ("seg", "desc", "atlas", "res", "den", "space")  # may differ, or are compared elsewhere


def read_references(texts: Iterable[str]) -> list[Reference]:
    """The data sets of ``--reference``.

    Raises:
        UsageError: no folder, or two of one name.
    """
    found = [Reference(*parse_reference(text)) for text in texts]
    names = [reference.name for reference in found]
    if twice := {name for name in names if names.count(name) > 1}:
        raise UsageError(
            f"--reference: two data sets are named {', '.join(sorted(twice))}; give "
            "each a different name, as NAME=DIR"
        )
    return found


def parse_reference(text: str) -> tuple[str, Path]:
    """``NAME=DIR`` or ``DIR``, whose name is then the folder's.

    Raises:
        UsageError: no folder, or a name that could not stand in a table.
    """
    name, equals, place = text.partition("=")
    if not equals or Path(text).is_dir():
        name, place = Path(text).absolute().name, text
    folder = Path(place).absolute()
    if not place or not folder.is_dir():  # an empty path would be the current folder
        raise UsageError(
            f"--reference {text}: {place!r} is not a folder; a BIDS derivatives data set is "
            "expected, as DIR or NAME=DIR"
        )
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"--reference {text}: a name contains only letters, digits and . _ + -, "
            f"got {name!r}; give one as NAME=DIR"
        )
    return name, folder


@dataclass(frozen=True)
class Match:
    """A label map of a reference.

    Attributes:
        labels: our index to theirs; None if there is no label table, and only a look into the
            image can tell whether its numbers are ours.
        by_name: they were matched through a label table.
    """

    path: Path
    labels: dict[int, int] | None
    by_name: bool = True


@dataclass(frozen=True)
class Reference:
    """A data set of label maps by somebody else.

    Attributes:
        name: how it is called in tables.
        folder: its root.
    """

    name: str
    folder: Path

    def find(self, ours: BidsName, task: TaskSpec, labels: LabelTable) -> Match | None:
        """Its label map for one of ours; None if no file of it is named as that.

        Participant, session and space must be the same, and so must every entity that both
        names have (a reference may leave out ``run`` or ``acq``). ``seg-`` with another task is
        another thing. For the task ``brain``, brain
        masks (``_desc-brain_mask``) come first, then any label map; else one with
        ``seg-<task>`` comes first. Of those that are left, the one with most entities in common.

        Args:
            labels: the structures that are looked for, by their names.

        Raises:
            DatasetError: several fit equally well, or none has any of the structures.
            LabelTableError: a label table cannot be read.
        """
        fitting = [pair for pair in self._images(ours) if _fits(pair[1], ours, task)]
        known = []
        for path, name in fitting:
            labels_by = self._labels(path, name, task, labels)
            if labels_by is None or labels_by:
                by_name = task.brain_mask or self.table_of(path) is not None
                known.append((_rank(name, ours, task), Match(path, labels_by, by_name)))
        if fitting and not known:
            raise DatasetError(
                f"{self.name}: {fitting[0][0].name} has none of the structures of {task.name}, by "
                "the names in the label tables"
                if any(self.table_of(path) for path, _ in fitting)
                else f"{self.name}: {fitting[0][0].name} has no label table, so the meaning of "
                f"its labels is unknown; it is not compared with {task.name}; add a _dseg.tsv with "
                f"index and name next to it or at {self.folder}"
            )
        known.sort(key=lambda pair: (-pair[0], pair[1].path))
        if len(known) > 1 and known[0][0] == known[1][0]:
            both = " and ".join(match.path.name for _, match in known[:2])
            raise DatasetError(
                f"{self.name}: {both} fit {ours} equally well; remove one of them from "
                f"the reference, or name the correct one with seg-{task.name}"
            )
        return known[0][1] if known else None

    def _labels(
        self, path: Path, name: BidsName, task: TaskSpec, labels: LabelTable
    ) -> dict[int, int] | None:
        """Ours to theirs; None if only a look into the image can tell; empty if none matches."""
        if task.brain_mask:
            return {labels.indices[0]: 1}
        table = self.table_of(path)
        if table is not None:
            return match_by_name(labels, table)
        if name.get("seg") == task.name:
            return {index: index for index in labels.indices}
        return None if len(labels) >= FEWEST_NUMBERS else {}

    def _images(self, ours: BidsName) -> Iterator[tuple[Path, BidsName]]:
        """What is there of the participant and session."""
        subject, session = ours.get("sub"), ours.get("ses")
        folder = self.folder / f"sub-{subject}"
        folder = folder / f"ses-{session}" if session else folder
        for place in (folder / "anat", folder):
            for pattern in ("*_dseg.nii*", "*_mask.nii*"):
                for path in sorted(place.glob(pattern)):
                    try:
                        yield path, BidsName.parse(path)
                    except DatasetError:
                        continue

    def table_of(self, image: Path) -> LabelTable | None:
        """The label table of a label map: beside it, or above it up to the root of the data set.

        As BIDS inherits: a ``_dseg.tsv`` whose entities the image has too; the nearest folder
        first, and in it the one with most entities.

        Raises:
            LabelTableError: there is one and it cannot be read.
        """
        own = dict(BidsName.parse(image).entities)
        for folder in image.parents:
            for entities, path in self._tables(folder):
                if entities.items() <= own.items():
                    return LabelTable.read(path)
            if folder == self.folder:
                break
        return None

    def _tables(self, folder: Path) -> list[tuple[dict[str, str], Path]]:
        """The label tables of a folder, those with most entities first."""
        if folder == self.folder:
            return self._root_tables
        return _tables_in(folder)

    @cached_property
    def _root_tables(self) -> list[tuple[dict[str, str], Path]]:
        return _tables_in(self.folder)

    def sessions(self) -> list[str]:
        """Its sessions that have label maps, as ``sub-01 ses-1``; for messages."""
        found = {
            " ".join(part for part in path.parts if part[:4] in ("sub-", "ses-"))
            for pattern in ("sub-*/**/*_dseg.nii*", "sub-*/**/*_mask.nii*")
            for path in (p.parent.relative_to(self.folder) for p in self.folder.glob(pattern))
        }
        return sorted(found)


def _tables_in(folder: Path) -> list[tuple[dict[str, str], Path]]:
    found: list[tuple[dict[str, str], Path]] = []
    for path in sorted(folder.glob("*dseg.tsv")):
        if path.name == "dseg.tsv":
            found.append(({}, path))
            continue
        try:
            found.append((dict(BidsName.parse(path).entities), path))
        except DatasetError:
            continue
    return sorted(found, key=lambda pair: -len(pair[0]))


def _rank(name: BidsName, ours: BidsName, task: TaskSpec) -> int:
    shared = sum(ours.get(key) == label for key, label in name.entities)
    best = name.suffix == "mask" if task.brain_mask else name.get("seg") == task.name
    return 100 * best + shared


def _fits(name: BidsName, ours: BidsName, task: TaskSpec) -> bool:
    if name.suffix == "mask" and (not task.brain_mask or name.get("desc") != "brain"):
        return False
    if name.get("seg") != task.name and _is_part(name.get("seg")):
        return False
    if not name.extension.startswith(".nii") or _space(name) != _space(ours):
        return False
    return all(ours.get(key) == label for key, label in name.entities if key not in _FREE)


def _is_part(seg: str | None) -> bool:
    """Whether ``seg-`` is that of a task whose label maps are no whole brain."""
    return seg in task_names() and not find_task(seg).whole_brain


def _space(name: BidsName) -> str:
    """The space of a label map; without one it is that of the T1w."""
    return name.get("space") or "T1w"

"""Label tables: what each number in a label map means (BIDS ``_dseg.tsv``)."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache

from deepmrseg_bids.errors import DatasetError, LabelTableError
from deepmrseg_bids.files import write_text
from deepmrseg_bids.tsv import NOT_KNOWN, read_foreign_tsv, tsv_text

__all__ = ["Label", "LabelTable"]

_log = logging.getLogger(__name__)

_COLOURS = (
    "#e6194b", "#3cb44b", "#4363d8", "#f58231", "#911eb4", "#46f0f0", "#f032e6", "#bcf60c",
    "#fabebe", "#008080", "#e6beff", "#9a6324", "#fffac8", "#800000", "#aaffc3", "#808000",
)  # fmt: skip
_COLUMNS = ("index", "name", "abbreviation", "color", "mapping")


@dataclass(frozen=True)
class Label:
    """One structure: its number in the label map, its name, and how it is drawn.

    >>> Label(48, "Left-Hippocampus").side
    'left'
    """

    index: int
    name: str
    abbreviation: str = ""
    color: str = "#e6194b"

    def __post_init__(self) -> None:
        if self.index < 1:
            raise LabelTableError(f"a label index is at least 1, got {self.index} ({self.name!r})")
        if not self.name:
            raise LabelTableError(f"label {self.index} has no name")
        if not re.fullmatch(r"#[0-9a-fA-F]{6}", self.color):
            raise LabelTableError(f"label {self.index}: a color is #rrggbb, got {self.color!r}")

    @property
    def side(self) -> str | None:
        """``left``, ``right``, or None for a structure without a side."""
        first = self.name.split("-")[0].lower()
        return first if first in ("left", "right") else None

    @property
    def rgb(self) -> tuple[int, int, int]:
        """Red, green and blue, 0 to 255."""
        value = int(self.color[1:], 16)
        return value >> 16, value >> 8 & 255, value & 255


@dataclass(frozen=True)
class LabelTable:
    """The labels of one segmentation, by rising index.

    >>> table = LabelTable((Label(1, "brain"),))
    >>> table.indices, table.names
    ((1,), ('brain',))
    """

    labels: tuple[Label, ...]

    def __post_init__(self) -> None:
        indices = [label.index for label in self.labels]
        names = [label.name for label in self.labels]
        if len(set(indices)) < len(indices) or len(set(names)) < len(names):
            raise LabelTableError("a label table names each index and each structure once")
        if indices != sorted(indices):
            object.__setattr__(
                self, "labels", tuple(sorted(self.labels, key=lambda label: label.index))
            )

    def __iter__(self) -> Iterator[Label]:
        return iter(self.labels)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Label:
        """The label with this index; KeyError if there is none."""
        for label in self.labels:
            if label.index == index:
                return label
        raise KeyError(index)

    @property
    def indices(self) -> tuple[int, ...]:
        """The numbers in the label map, rising."""
        return tuple(label.index for label in self.labels)

    @property
    def names(self) -> tuple[str, ...]:
        """The structures, in the order of their indices."""
        return tuple(label.name for label in self.labels)

    @property
    def mirrored(self) -> tuple[int, ...]:
        """The class that each class becomes in a mirror: left and right change places.

        Classes count the labels from 1; 0 is the background.

        >>> LabelTable((Label(4, "Left-X"), Label(7, "Right-X"), Label(9, "Stem"))).mirrored
        (0, 2, 1, 3)
        """
        place = {label.name: number for number, label in enumerate(self.labels, start=1)}
        order = list(range(len(self.labels) + 1))
        for name, number in place.items():
            for one, other in (("Left", "Right"), ("Right", "Left")):
                if name.startswith(one):
                    order[number] = place.get(other + name[len(one) :], number)
        return tuple(order)

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> LabelTable:
        """Read a TSV with at least the columns ``index`` and ``name``.

        Raises:
            LabelTableError: unreadable, a column is missing, or a row makes no sense.
        """
        try:
            table = read_foreign_tsv(path, strip=False)
            if not table.rows:
                raise LabelTableError(f"{path}: the label table is empty")
            table.require("index", "name")
        except DatasetError as error:
            raise LabelTableError(str(error)) from error
        labels = []
        for number, (line, row) in enumerate(zip(table.lines, table.rows, strict=True)):
            try:
                labels.append(_label(row, number))
            except LabelTableError as error:
                raise LabelTableError(f"{path}, line {line}: {error}") from error
            except (KeyError, ValueError) as error:
                raise LabelTableError(
                    f"{path}, line {line}: index and name are needed, got {row}"
                ) from error
        for note in table.notes:
            _warn(note)
        try:
            return cls(tuple(labels))
        except LabelTableError as error:
            raise LabelTableError(f"{path}: {error}") from error

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write index, name, abbreviation, color and mapping (itself) as TSV."""
        rows = [
            (label.index, label.name, label.abbreviation or "n/a", label.color, label.index)
            for label in self.labels
        ]
        text = tsv_text(_COLUMNS, rows, quote=True)
        write_text(path, text)


def _label(row: Mapping[str, str], number: int) -> Label:
    cells = {column: cell for column, cell in row.items() if cell != NOT_KNOWN}
    color = cells.get("color") or _COLOURS[number % len(_COLOURS)]
    return Label(int(row["index"]), row["name"], cells.get("abbreviation", ""), color)


@cache
def _warn(note: str) -> None:
    """Once a process: a label table is read for each image."""
    _log.warning("%s", note)

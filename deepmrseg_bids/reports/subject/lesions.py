"""The lesions of a session in a subject's page: by place and size, on slices, and one by one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from deepmrseg_bids.bids.tables import read_lesions
from deepmrseg_bids.errors import DatasetError
from deepmrseg_bids.imaging.labels import Label, LabelTable
from deepmrseg_bids.imaging.nifti import LabelMap, Volume
from deepmrseg_bids.reports.subject.slices import PlaneSlices, draw_axial
from deepmrseg_bids.tasks.lesions import PLACES, SMALLEST_MM3, Lesion
from deepmrseg_bids.tasks.spec import Figure as FigureStyle

__all__ = ["LesionRow", "LesionView", "PlaceRow", "SizeBin", "lesion_view"]

_SLICES = 16
_COLOURS = {
    "periventricular": "#e6194b",
    "juxtacortical": "#4363d8",
    "deep": "#f5a623",
    "infratentorial": "#3cb44b",
}
_NO_PLACE, _NO_COLOUR = "location unknown", "#f032e6"
_EDGES = (10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0)  # mm3, of the histogram
_SAME_MM = 0.2  # tables have one decimal


@dataclass(frozen=True)
class PlaceRow:
    """All lesions of a place; volume as text, in millilitres."""

    name: str
    colour: str
    count: int
    volume: str


@dataclass(frozen=True)
class SizeBin:
    """How many lesions have a volume within two bounds.

    Attributes:
        percent: of the fullest bin, for its bar.
    """

    name: str
    count: int
    percent: float


@dataclass(frozen=True)
class LesionRow:
    """One lesion, as text.

    Attributes:
        mm: a voxel of it for the viewer, RAS+ millimetres with commas between.
    """

    index: int
    colour: str
    volume: str
    centre: str
    place: str
    region: str
    confidence: str
    mm: str


@dataclass(frozen=True)
class LesionView:
    """What a page shows of the lesions of a session.

    Attributes:
        sources: landmarks, and where they come from.
        axial: slices with the outline of each lesion, by its index.
        tsv: the name of the table, and its text.
    """

    places: tuple[PlaceRow, ...]
    sizes: tuple[SizeBin, ...]
    rows: tuple[LesionRow, ...]
    sources: tuple[tuple[str, str], ...]
    axial: PlaneSlices
    tsv: tuple[str, str]

    @property
    def regions(self) -> bool:
        """Whether the lobe of any lesion is known."""
        return any(row.region for row in self.rows)

    @property
    def smallest(self) -> str:
        """The smallest volume of a lesion, in mm3."""
        return f"{SMALLEST_MM3:g}"


def lesion_view(
    table: Path,
    facts: Mapping[str, Any],
    volume: Volume,
    labels: LabelMap,
    *,
    style: FigureStyle,
    limit: int | None = None,
) -> LesionView | None:
    """Read the table of lesions of a session; None where there is none that can be read.

    Args:
        facts: its sidecar.
        volume, labels: the scan in which they were found, and their label map.
        limit: for the slices, in bytes.
    """
    try:
        lesions = read_lesions(table)
        text = table.read_text(encoding="utf-8")
    except (DatasetError, OSError):
        return None
    numbered, voxels = _numbered(labels, lesions)
    names = LabelTable(
        tuple(Label(one.index, f"Lesion {one.index}", color=_colour(one)) for one in lesions)
    )
    sources = facts.get("LocationSources")
    return LesionView(
        _places(lesions),
        _sizes(lesions),
        tuple(_row(one, voxels.get(one.index, one.centre)) for one in lesions),
        tuple(sorted(sources.items())) if isinstance(sources, dict) else (),
        draw_axial(volume, numbered, names, style=style, number=_SLICES, limit=limit),
        (table.name, text),
    )


def _numbered(
    labels: LabelMap, lesions: Sequence[Lesion]
) -> tuple[LabelMap, dict[int, NDArray[np.float64]]]:
    """A label map with the index of each lesion, and the voxel nearest to its centre."""
    pieces, count = ndimage.label(labels.data > 0, structure=np.ones((3, 3, 3)))
    out = np.zeros(pieces.shape, np.uint16)
    nearest = {}
    if count and lesions:
        centres = np.array([one.centre for one in lesions])
        for number, box in enumerate(ndimage.find_objects(pieces), start=1):
            inside = pieces[box] == number
            points = labels.grid.to_world(np.argwhere(inside) + [s.start for s in box])
            away = np.abs(centres - points.mean(axis=0)).max(axis=1)
            lesion = lesions[int(away.argmin())]
            if away.min() > _SAME_MM:  # the label map was changed since
                continue
            out[box][inside] = lesion.index
            nearest[lesion.index] = points[
                np.linalg.norm(points - np.array(lesion.centre), axis=1).argmin()
            ]
    return LabelMap(out, labels.grid), nearest


def _colour(lesion: Lesion) -> str:
    return _COLOURS[lesion.place] if lesion.place else _NO_COLOUR


def _places(lesions: Sequence[Lesion]) -> tuple[PlaceRow, ...]:
    """A row for each place, also those without a lesion; the unknown one only with lesions."""
    rows = []
    for place in (*PLACES, None):
        volumes = [one.volume_mm3 for one in lesions if one.place == place]
        if place or volumes:
            colour = _COLOURS[place] if place else _NO_COLOUR
            total = f"{sum(volumes) / 1000:.2f}"
            rows.append(PlaceRow(place or _NO_PLACE, colour, len(volumes), total))
    return tuple(rows)


def _sizes(lesions: Sequence[Lesion]) -> tuple[SizeBin, ...]:
    bins = np.digitize([one.volume_mm3 for one in lesions], _EDGES)
    counts = np.bincount(bins, minlength=len(_EDGES) + 1)
    low = (SMALLEST_MM3, *_EDGES)
    names = [f"{a:g} to {b:g}" for a, b in zip(low, _EDGES, strict=False)]
    names.append(f"{_EDGES[-1]:g} and more")
    most = max(int(counts.max()), 1)
    return tuple(
        SizeBin(name, int(count), 100 * int(count) / most)
        for name, count in zip(names, counts, strict=True)
    )


def _row(lesion: Lesion, voxel: Sequence[float] | NDArray[np.float64]) -> LesionRow:
    volume = lesion.volume_mm3
    return LesionRow(
        lesion.index,
        _colour(lesion),
        f"{volume:,.1f}" if volume < 100 else f"{volume:,.0f}",
        ", ".join(f"{mm:.0f}" for mm in lesion.centre),
        lesion.place or "n/a",
        lesion.region.replace("-", " ").lower().capitalize(),
        f"{lesion.confidence:.2f}",
        ",".join(f"{mm:.1f}" for mm in voxel),
    )

"""Composite regions: sums of labels, and white matter by the cortex it lies near."""

from __future__ import annotations

import numpy as np
import pytest

from deepmrseg_bids.errors import LabelTableError
from deepmrseg_bids.imaging.grid import Grid
from deepmrseg_bids.imaging.nifti import LabelMap
from deepmrseg_bids.tasks.regions import Region, read_regions, region_volumes
from tests.support import ORIENTATIONS, stored_as


def slab() -> tuple[np.ndarray, Grid]:
    """Cortex 7 in front, cortex 8 behind, and white matter (5) between them."""
    data = np.zeros((30, 160, 20), np.uint8)
    data[:, 10:20], data[:, 140:150], data[:, 20:140] = 7, 8, 5
    return data, Grid(data.shape, np.diag([1.0, 0.5, 1.0, 1.0]))


REGIONS = (
    Region(1, "all", (5, 7, 8)),
    Region(2, "front", (5,), (7,)),
    Region(3, "back", (5,), (8,)),
    Region(4, "absent", (9,)),
)


@pytest.mark.parametrize("codes", ORIENTATIONS)
def test_white_matter_belongs_to_the_cortex_it_lies_nearest_to(codes) -> None:
    data, grid = slab()
    volumes = region_volumes(LabelMap(*stored_as(data, grid, codes)), REGIONS)
    assert volumes["all"] == 30 * 70 * 20
    assert volumes["front"] + volumes["back"] == pytest.approx(30 * 60 * 20)
    assert volumes["front"] == pytest.approx(volumes["back"], rel=0.08)
    assert volumes["absent"] == 0


def test_regions_without_any_of_their_labels_are_empty() -> None:
    data, grid = slab()
    data[data == 5] = 0
    volumes = region_volumes(LabelMap(data, grid), REGIONS)
    assert (volumes["front"], volumes["back"]) == (0, 0)


def test_a_table_of_regions_is_read(tmp_path) -> None:
    table = tmp_path / "regions.tsv"
    table.write_text("index\tname\tlabels\tnear\n1\tall\t5,7,8\tn/a\n2\tfront\t5\t7\n")
    assert read_regions(table) == REGIONS[:2]


@pytest.mark.parametrize(
    "row", ["1\tall\tn/a\tn/a", "1\tall\tx\tn/a", "one\tall\t5\tn/a", "1\ta\t5\tn/a\n2\ta\t6\tn/a"]
)
def test_a_row_that_makes_no_sense_is_refused_with_the_file(tmp_path, row) -> None:
    table = tmp_path / "regions.tsv"
    table.write_text(f"index\tname\tlabels\tnear\n{row}\n")
    with pytest.raises(LabelTableError, match=r"regions\.tsv"):
        read_regions(table)

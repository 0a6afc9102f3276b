"""Composite regions: sums of labels, and white matter by the cortex it lies near."""

from __future__ import annotations

import numpy as np
import pytest

from deepmrseg_bids.errors import LabelTableError
from deepmrseg_bids.imaging.grid import Grid
from deepmrseg_bids.imaging.nifti import LabelMap
from deepmrseg_bids.tasks import wholebrain
from deepmrseg_bids.tasks.regions import (
    Region,
    composition_of,
    read_composition,
    read_regions,
    region_volumes,
    with_regions,
)
from deepmrseg_bids.tasks.registry import find_task
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


def table_of(path, *lines: str):
    path.write_text("\n".join(("index\tname\tlabels\tnear", *lines)) + "\n")
    return path


def test_a_task_that_measures_regions_takes_another_table(tmp_path) -> None:
    table = table_of(tmp_path / "own.tsv", "1\tHippocampi\t47,48\tn/a")
    assert with_regions(wholebrain.TASK, table).regions == table
    assert with_regions(wholebrain.TASK, None) is wholebrain.TASK
    brain = find_task("brain")
    assert with_regions(brain, table) is brain


@pytest.mark.parametrize("line", ["1\tOdd\t47,9999\tn/a", "1\tOdd\t44\t9999"])
def test_regions_of_labels_that_the_task_has_not_are_an_error_that_names_them(
    tmp_path, line
) -> None:
    with pytest.raises(LabelTableError, match=r"own\.tsv: Odd: wholebrain has no label 9999"):
        with_regions(wholebrain.TASK, table_of(tmp_path / "own.tsv", line))


def test_what_regions_are_made_of_is_read_back_from_a_sidecar() -> None:
    rows = [(region.index, region.name) for region in REGIONS]
    assert read_composition(composition_of(REGIONS), rows) == REGIONS


@pytest.mark.parametrize("stated", [None, [], {"all": 3}, {"all": {"Labels": "x"}}, {}])
def test_a_sidecar_that_does_not_say_what_regions_are_made_of_is_no_error(stated) -> None:
    assert read_composition(stated, [(1, "all")]) == ()

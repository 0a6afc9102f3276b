"""Single lesions: their number, size and centre, and beside what they lie."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from deepmrseg_bids.imaging.grid import Grid, centred_grid
from deepmrseg_bids.imaging.labels import Label, LabelTable
from deepmrseg_bids.imaging.nifti import LabelMap
from deepmrseg_bids.tasks import lesions
from deepmrseg_bids.tasks.lesion_landmarks import _CENTRES, Anatomy, is_anatomy
from deepmrseg_bids.tasks.lesions import Surroundings, drop_specks, find_lesions
from tests.tasks.phantom import paint

GRID = centred_grid((0, 0, 0), (118, 146, 110), 1.0)
FLUID, TISSUE = 10.0, 100.0
SULCUS = ((-48, 0, 24), (8, 3, 8), FLUID)  # open to the rim
HEAD = (
    ((0, 0, 0), (58, 72, 54), TISSUE),
    ((-9, 0, 18), (5, 22, 6), FLUID),
    ((9, 0, 18), (5, 22, 6), FLUID),
    SULCUS,
)
BESIDE = {
    "periventricular": (17, 5, 18),
    "juxtacortical": (47, -15, 18),
    "deep": (28, 5, 18),
}
SPOT = (3.0, 3.0, 3.0)


def around(centre=(0.0, 0.0, 0.0), parts=HEAD, lesions=None, grid=GRID) -> Surroundings:
    head = paint(grid, parts)
    spots = np.zeros(grid.shape, bool) if lesions is None else lesions
    return Surroundings.of(head, paint(grid, parts[:1]) > 0, spots, grid, centre=centre)


@pytest.fixture(scope="module")
def surroundings() -> Surroundings:
    return around()


def lesions_at(*centres, grid=GRID, radius=SPOT) -> np.ndarray:
    return paint(grid, [(centre, radius, 1.0) for centre in centres]) > 0


def test_each_lesion_has_its_volume_and_centre_the_largest_first(surroundings):
    small = lesions_at((-28, -20, 10))
    large = lesions_at((28, 5, 18), radius=(5, 4, 3))
    found = find_lesions(small | large, GRID, np.full(GRID.shape, 0.75, "f4"), surroundings)
    assert [one.index for one in found] == [1, 2]
    assert [one.volume_mm3 for one in found] == [large.sum(), small.sum()]
    np.testing.assert_allclose(found[0].centre, (28, 5, 18), atol=0.6)
    np.testing.assert_allclose(found[1].centre, (-28, -20, 10), atol=0.6)
    assert found[0].confidence == pytest.approx(0.75)


def test_lesions_that_share_a_corner_are_one(surroundings):
    chosen = np.zeros(GRID.shape, bool)
    chosen[60, 70, 60] = chosen[61, 71, 61] = True
    (one,) = find_lesions(chosen, GRID, np.ones(GRID.shape, "f4"), surroundings)
    assert one.volume_mm3 == 2


@pytest.mark.parametrize("place", BESIDE)
def test_a_lesion_lies_beside_a_ventricle_the_cortex_or_neither(surroundings, place):
    for side in (1, -1):
        x, y, z = BESIDE[place]
        chosen = lesions_at((side * x, y, z))
        (one,) = find_lesions(chosen, GRID, np.ones(GRID.shape, "f4"), surroundings)
        assert one.place == place


@pytest.mark.parametrize("labelled", [False, True])
@pytest.mark.parametrize("spacing", [1.0, 2.0])
def test_near_the_lesions_alone_the_same_is_told_of_them(labelled, spacing):
    grid = centred_grid((0, 0, 0), tuple(round(n / spacing) for n in GRID.shape), spacing)
    chosen = lesions_at(*BESIDE.values(), (34, -20, -8), grid=grid)
    head, brain = paint(grid, HEAD), paint(grid, HEAD[:1]) > 0
    everywhere, near = (
        find_lesions(
            chosen,
            grid,
            np.ones(grid.shape, "f4"),
            Surroundings.of(
                head, brain, chosen, grid, centre=(0, 0, 0), everywhere=all_of_it,
                anatomies=[whole_brain()] if labelled else [],
            ),
        )
        for all_of_it in (True, False)
    )  # fmt: skip
    assert len({one.place for one in everywhere}) >= 2
    assert near == everywhere


def test_without_a_lesion_nothing_is_measured():
    none = np.zeros(GRID.shape, bool)
    head, brain = paint(GRID, HEAD), paint(GRID, HEAD[:1]) > 0
    found = Surroundings.of(head, brain, none, GRID, centre=(0, 0, 0), everywhere=False)
    assert found.ventricle is not None and set(found.sources) == set(around().sources)
    assert (found.cortex < 100).mean() < 0.01


def test_the_fluid_of_a_sulcus_is_cortex_and_no_ventricle(surroundings):
    chosen = lesions_at((-34, 0, 24))
    (one,) = find_lesions(chosen, GRID, np.ones(GRID.shape, "f4"), surroundings)
    assert one.place == "juxtacortical"
    smooth = around(parts=HEAD[:3])
    (one,) = find_lesions(chosen, GRID, np.ones(GRID.shape, "f4"), smooth)
    assert one.place == "deep"


def test_what_is_dark_in_a_lesion_is_no_fluid():
    hole = lesions_at((28, 5, 18), radius=(6, 6, 6))
    parts = (*HEAD, ((28, 5, 18), (4, 4, 4), FLUID))
    assert around(parts=parts, lesions=hole).cortex[hole].min() > 5
    assert around(parts=parts).cortex[hole].min() == 0


def places_of(found: Surroundings, *centres) -> dict[int, str | None]:
    chosen = lesions_at(*centres)
    lesions = find_lesions(chosen, GRID, np.ones(GRID.shape, "f4"), found)
    return {round(one.centre[0]): one.place for one in lesions}


def test_without_ventricles_only_the_rim_of_the_brain_can_be_told():
    found = around(parts=HEAD[:1])
    assert found.ventricle is None and set(found.sources) == {"cortex", "infratentorial"}
    assert places_of(found, BESIDE["deep"], (52, 0, 0)) == {28: None, 52: "juxtacortical"}


def test_without_the_deep_structures_nothing_can_be_told():
    found = around(centre=None)  # the surface may be that of the cerebellum
    assert found.ventricle is None and set(found.sources) == {"cortex"}
    assert places_of(found, BESIDE["deep"], (52, 0, 0)) == {28: None, 52: None}


def test_places_are_the_same_on_thick_slices():
    affine = GRID.affine @ np.diag([1, 1, 5.0, 1])
    thick = Grid((118, 146, 22), affine)
    found = around(grid=thick)
    for place, (x, y, z) in BESIDE.items():
        chosen = lesions_at((x, y, z), grid=thick, radius=(3, 3, 5))
        (one,) = find_lesions(chosen, thick, np.ones(thick.shape, "f4"), found)
        assert one.place == place


def test_specks_are_measured_in_millimetres_not_in_voxels():
    chosen = np.zeros((9, 9, 9), bool)
    chosen[1, 1, 1:3] = True
    fine, coarse = Grid((9, 9, 9), np.eye(4)), Grid((9, 9, 9), np.diag([2, 2, 2, 1]))
    assert not drop_specks(chosen, fine).any()
    assert np.array_equal(drop_specks(chosen, coarse), chosen)


def test_no_lesions_are_an_empty_table(surroundings):
    nothing = np.zeros(GRID.shape, bool)
    assert find_lesions(nothing, GRID, np.ones(GRID.shape, "f4"), surroundings) == ()


COARSE = centred_grid((0, 0, 0), (59, 73, 55), 2.0)
PONS, LOBE, HIGH = (0, -25, -38), (-26, 20, -30), (28, 5, 18)


def deep_structures(turn: float = 0.0) -> Anatomy:
    """The deep structures as spots, of a head that is turned about its left-right axis."""
    c, s = np.cos(np.radians(turn)), np.sin(np.radians(turn))
    names, parts = [], []
    for name, (x, y, z) in _CENTRES.items():
        for side, sign in (("Right", 1), ("Left", -1)):
            names.append(f"{side}-{name}")
            place = (sign * x, c * y - s * z, s * y + c * z)
            parts.append((place, (3, 3, 3), float(len(names))))
    table = LabelTable(tuple(Label(k, name) for k, name in enumerate(names, start=1)))
    labels = LabelMap(paint(COARSE, parts).astype(np.uint8), COARSE)
    return Anatomy("deepbrain", labels, table)


def whole_brain() -> Anatomy:
    """Ventricles of a wholebrain map, a frontal and a temporal cortex, brain stem, cerebellum."""
    table = LabelTable.read(Path(lesions.__file__).with_name("wholebrain_labels.tsv"))
    parts = [
        ((20, 5, 18), (5, 10, 5), 51.0),
        ((-20, 5, 18), (5, 10, 5), 52.0),
        ((-38, 24, -30), (3, 8, 6), 191.0),
        ((45, 5, 18), (3, 8, 6), 155.0),
        (PONS, (9, 9, 14), 35.0),
        ((25, -50, -40), (12, 12, 10), 38.0),
    ]
    return Anatomy("wholebrain", LabelMap(paint(COARSE, parts).astype(np.uint8), COARSE), table)


def told(anatomy: Anatomy, *centres) -> dict[tuple[int, ...], tuple[str | None, str]]:
    head, brain = paint(COARSE, HEAD), paint(COARSE, HEAD[:1]) > 0
    none = np.zeros(COARSE.shape, bool)
    found = Surroundings.of(head, brain, none, COARSE, centre=(0, 0, 0), anatomies=[anatomy])
    out = {}
    for centre in centres:
        (one,) = find_lesions(
            lesions_at(centre, grid=COARSE), COARSE, np.ones(COARSE.shape, "f4"), found
        )
        out[centre] = (one.place, one.region)
    return out


@pytest.mark.parametrize("turn", [0.0, 15.0, -15.0])
def test_the_deep_structures_tell_what_is_infratentorial_however_the_head_lies(turn):
    c, s = np.cos(np.radians(turn)), np.sin(np.radians(turn))
    places = {"cerebellum": (20, -24, -44), "high": HIGH}
    turned = {name: (x, c * y - s * z, s * y + c * z) for name, (x, y, z) in places.items()}
    found = told(deep_structures(turn), *turned.values())
    assert found[turned["cerebellum"]][0] == "infratentorial"
    assert found[turned["high"]][0] in ("deep", "juxtacortical", "periventricular")


def test_low_places_are_not_made_up_without_the_deep_structures(surroundings):
    found = places_of(surroundings, PONS, HIGH)
    assert found[round(PONS[0])] is None and found[28] is not None


def test_a_map_of_the_whole_brain_tells_places_and_lobes():
    found = told(whole_brain(), PONS, LOBE, HIGH)
    assert found[PONS] == ("infratentorial", "Brainstem")
    assert found[LOBE] == ("deep", "Left-Frontal")
    assert found[HIGH][0] == "periventricular"  # beside the ventricle of the map
    head, none = paint(COARSE, HEAD), np.zeros(COARSE.shape, bool)
    around = Surroundings.of(head, head > 0, none, COARSE, centre=None, anatomies=[whole_brain()])
    assert around.ventricle is not None and set(around.sources.values()) >= {
        "label map of wholebrain"
    }


def test_a_map_with_other_names_for_the_same_numbers_is_no_landmark():
    table = LabelTable(tuple(Label(k, f"thing-{k}") for k in range(1, 208)))
    assert not is_anatomy(table)
    assert is_anatomy(whole_brain().table) and is_anatomy(deep_structures().table)

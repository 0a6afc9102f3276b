"""Grids and resampling: exact inverses, every orientation, and what interpolation promises."""

from __future__ import annotations

import itertools

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deepmrseg_bids.imaging import grid as module
from deepmrseg_bids.imaging.grid import Grid, canonical_grid, centred_grid, overlap, resample
from tests.support import ORIENTATIONS, stored_as

SHAPE = (9, 11, 13)
QUICK = settings(max_examples=50, deadline=None)


def rotation(x: float, y: float, z: float) -> np.ndarray:
    """Rotations about the three axes, degrees."""
    (cx, cy, cz), (sx, sy, sz) = (f(np.radians([x, y, z])) for f in (np.cos, np.sin))
    about_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    return about_x @ about_y @ about_z


def grid_of(
    shape=SHAPE, zooms=(1.0, 1.0, 1.0), origin=(-4.0, 3.0, 7.0), angles=(0.0, 0.0, 0.0)
) -> Grid:
    affine = np.eye(4)
    affine[:3, :3] = rotation(*angles) @ np.diag(zooms)
    affine[:3, 3] = origin
    return Grid(shape, affine)


def noise(shape=SHAPE, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random(shape, dtype=np.float32)


def world(grid: Grid) -> np.ndarray:
    """World coordinates of every voxel, (3, *shape)."""
    voxels = np.indices(grid.shape).reshape(3, -1).T
    return grid.to_world(voxels).T.reshape(3, *grid.shape)


def smooth(grid: Grid) -> np.ndarray:
    """A field that varies over tens of millimetres, sampled on a grid."""
    x, y, z = world(grid)
    return (np.sin(x / 9) + np.cos(y / 11) * np.sin(z / 8)).astype(np.float32)


grids = st.builds(
    grid_of,
    shape=st.tuples(*[st.integers(1, 6)] * 3),
    zooms=st.tuples(*[st.floats(0.3, 6)] * 3),
    origin=st.tuples(*[st.floats(-100, 100)] * 3),
    angles=st.tuples(*[st.floats(-180, 180)] * 3),
)


# --- Grid


@QUICK
@given(grids, st.lists(st.tuples(*[st.floats(-50, 50)] * 3), min_size=1, max_size=5))
def test_to_voxel_undoes_to_world(grid: Grid, points: list) -> None:
    assert np.allclose(grid.to_voxel(grid.to_world(points)), points, atol=1e-8)


@QUICK
@given(grids)
def test_volume_and_spacing_agree_with_the_corners(grid: Grid) -> None:
    edges = np.array(grid.shape) * grid.spacing
    assert grid.voxel_volume == pytest.approx(np.prod(grid.spacing))
    corners = grid.corners()
    assert np.linalg.norm(corners[0] - corners[-1]) == pytest.approx(np.linalg.norm(edges))


@QUICK
@given(grids, st.tuples(*[st.integers(-4, 4)] * 3), st.tuples(*[st.integers(1, 5)] * 3))
def test_a_crop_keeps_every_voxel_at_its_place(grid: Grid, start, edges) -> None:
    part = grid.crop(start, np.add(start, edges))
    assert part.shape == edges
    assert np.allclose(part.to_world([[0, 0, 0]]), grid.to_world([start]))
    assert np.allclose(part.affine[:3, :3], grid.affine[:3, :3])


def test_axis_codes_are_those_of_nibabel(orientation: str) -> None:
    _, grid = stored_as(noise(), grid_of(angles=(9, -7, 5)), orientation)
    assert grid.orientation == "".join(nib.aff2axcodes(grid.affine)) == orientation


def test_there_are_48_orientations() -> None:
    assert len(set(ORIENTATIONS)) == 48


@pytest.mark.parametrize("angle", [0, 3, 20, 44])
def test_obliquity_is_the_angle_to_the_nearest_axis(angle: float) -> None:
    assert grid_of(angles=(angle, 0, 0), zooms=(1, 2, 3)).obliquity == pytest.approx(angle)
    assert grid_of(angles=(90 + angle, 0, 0)).obliquity == pytest.approx(angle)


def test_equal_grids_hash_alike_even_where_a_zero_has_a_sign() -> None:
    signed = np.eye(4)
    signed[0, 1] = -0.0
    a, b = Grid(SHAPE, np.eye(4)), Grid(SHAPE, signed)
    assert a == b
    assert hash(a) == hash(b)
    assert a != Grid((9, 11, 14), np.eye(4))
    assert a != grid_of()
    assert a != "grid"


def test_a_grid_cannot_be_changed_through_the_array_it_was_made_from() -> None:
    affine = np.eye(4)
    grid = Grid(SHAPE, affine)
    affine[0, 0] = 5
    assert grid.spacing == (1, 1, 1)
    with pytest.raises(ValueError, match="read-only"):
        grid.affine[0, 0] = 5


@pytest.mark.parametrize("shape", [(1, 2), (1, 2, 0), (1, 2, 3, 4)])
def test_a_grid_has_three_positive_edges(shape) -> None:
    with pytest.raises(ValueError, match="three positive edges"):
        Grid(shape, np.eye(4))


def test_an_affine_is_four_by_four() -> None:
    with pytest.raises(ValueError, match=r"\(4, 4\) matrix, got shape \(3, 3\)"):
        Grid(SHAPE, np.eye(3))


# --- canonical_grid, centred_grid, overlap


@QUICK
@given(grids, st.floats(0.5, 4))
def test_the_canonical_grid_is_ras_and_holds_the_field_of_view(grid: Grid, spacing: float) -> None:
    found = canonical_grid(grid, spacing)
    assert found.orientation == "RAS"
    assert np.allclose(found.spacing, spacing)
    slack = spacing / 2 + 1e-4
    assert np.all(found.corners().min(axis=0) <= grid.corners().min(axis=0) + slack)
    assert np.all(found.corners().max(axis=0) >= grid.corners().max(axis=0) - slack)
    assert np.allclose(found.corners().mean(axis=0), grid.corners().mean(axis=0))


def test_every_orientation_has_the_same_canonical_grid(orientation: str) -> None:
    _, grid = stored_as(noise(), grid_of(zooms=(1, 1.2, 3)), orientation)
    found, expected = canonical_grid(grid, 1.0), canonical_grid(grid_of(zooms=(1, 1.2, 3)), 1.0)
    assert found.shape == expected.shape
    assert np.allclose(found.affine, expected.affine, atol=1e-9)


def test_a_centred_grid_has_its_middle_at_the_centre() -> None:
    grid = centred_grid((3, -2, 8), (4, 5, 6), 1.5)
    assert np.allclose(grid.corners().mean(axis=0), (3, -2, 8))
    assert grid.shape == (4, 5, 6)


def brute_overlap(part: Grid, whole: Grid) -> np.ndarray:
    """Which voxels of ``whole`` have their centre inside ``part``."""
    voxels = np.indices(whole.shape).reshape(3, -1).T
    places = part.to_voxel(whole.to_world(voxels))
    inside = (places >= -0.5 - 1e-6) & (places <= np.array(part.shape) - 0.5 + 1e-6)
    return inside.all(axis=1).reshape(whole.shape)


@QUICK
@given(
    st.tuples(*[st.integers(1, 8)] * 3),
    st.tuples(*[st.integers(-12, 30)] * 3),
    st.sampled_from(ORIENTATIONS),
    st.sampled_from([(1, 1, 1), (2, 1, 3), (0.5, 0.7, 4)]),
)
def test_overlap_is_what_a_search_over_all_voxels_finds(shape, origin, codes, zooms) -> None:
    part = Grid(shape, grid_of(origin=np.array(origin) * 0.5 + 0.13).affine)
    _, whole = stored_as(noise(), grid_of(zooms=zooms, origin=(0, 0, 0)), codes)
    inside = brute_overlap(part, whole)
    found = overlap(part, whole)
    if found is None:
        assert not inside.any()
    else:
        mask = np.zeros(whole.shape, bool)
        mask[found] = True
        assert np.array_equal(mask, inside)


@QUICK
@given(grids, grids)
def test_overlap_of_oblique_grids_misses_no_voxel(part: Grid, whole: Grid) -> None:
    inside = brute_overlap(part, whole)
    found = overlap(part, whole)
    if found is not None:
        inside[found] = False
    assert not inside.any()


def test_grids_far_apart_do_not_overlap() -> None:
    assert overlap(grid_of(origin=(500, 0, 0)), grid_of()) is None


# --- resample: orientations and inverses


@pytest.mark.parametrize("order", [0, 1])
def test_to_canonical_and_back_is_the_identity_at_the_same_spacing(
    orientation: str, order: int
) -> None:
    data, grid = stored_as(noise(), grid_of(), orientation)
    canonical = canonical_grid(grid, 1.0)
    there = resample(data, grid, canonical, order=order)
    assert np.array_equal(resample(there, canonical, grid, order=order), data)


@pytest.mark.parametrize("zooms", [(1, 1, 1), (0.8, 0.8, 2.5), (1, 1.1, 1.2)])
def test_the_same_scan_stored_otherwise_is_the_same_canonical_scan(
    orientation: str, zooms: tuple
) -> None:
    data, grid = noise(), grid_of(zooms=zooms)
    canonical = canonical_grid(grid, 1.0)
    moved, stored = stored_as(data, grid, orientation)
    expected = resample(data, grid, canonical)
    assert np.allclose(resample(moved, stored, canonical), expected, atol=2e-6)


def test_a_smooth_field_survives_the_way_to_another_spacing_and_back(orientation: str) -> None:
    base = grid_of((24, 26, 22), (1, 1, 1.2))
    data, grid = stored_as(smooth(base), base, orientation)
    canonical = canonical_grid(grid, 0.9)
    back = resample(resample(data, grid, canonical), canonical, grid)
    inner = (slice(2, -2),) * 3
    assert np.abs(back - data)[inner].max() < 0.02


def test_an_oblique_scan_is_the_field_it_samples_within_interpolation_error() -> None:
    grid = grid_of((30, 30, 30), (1, 1, 1.1), angles=(12, -8, 20))
    target = centred_grid(grid.corners().mean(axis=0), (14, 14, 14), 1.0)
    assert np.abs(resample(smooth(grid), grid, target) - smooth(target)).max() < 0.02


def test_oblique_orientations_of_one_scan_give_one_canonical_scan(orientation: str) -> None:
    base = grid_of((12, 13, 14), (1, 1, 1.3), angles=(10, -6, 15))
    canonical = canonical_grid(base, 1.0)
    moved, stored = stored_as(smooth(base), base, orientation)
    found = resample(moved, stored, canonical)
    expected = resample(smooth(base), base, canonical)
    assert (np.abs(found - expected) > 1e-4).mean() < 1e-3  # ties at the rim of the field of view


def test_left_stays_left(orientation: str) -> None:
    base = grid_of((20, 16, 16), origin=(-9.5, -8, -8), angles=(6, 4, -9))
    blob = np.zeros(base.shape, np.uint8)
    x, y, z = world(base)
    blob[(x + 5) ** 2 + y**2 + z**2 < 8] = 1
    data, grid = stored_as(blob, base, orientation)
    canonical = canonical_grid(grid, 1.0)
    found = resample(data, grid, canonical, order=0)
    assert found.any()
    assert world(canonical)[0][found > 0].max() < 0
    back = resample(found, canonical, grid, order=0)
    assert world(grid)[0][back > 0].max() < 0


@QUICK
@given(st.tuples(*[st.integers(-5, 4)] * 3), st.tuples(*[st.integers(1, 16)] * 3))
def test_crop_and_pad_put_every_voxel_back(start, edges) -> None:
    data, grid = noise(), grid_of(zooms=(1, 2, 3))
    part = grid.crop(start, np.add(start, edges))
    there = resample(data, grid, part, fill=-1)
    back = resample(there, part, grid, fill=-7)
    kept = brute_overlap(part, grid)
    assert np.allclose(back[kept], data[kept], atol=1e-6)
    assert np.all(back[~kept] == -7)


def test_padding_and_cropping_again_is_exact() -> None:
    data, grid = noise(), grid_of()
    wide = grid.crop((-3, -1, -2), np.add(SHAPE, 4))
    assert np.array_equal(resample(resample(data, grid, wide), wide, grid), data)


# --- resample: what interpolation promises


targets = [
    pytest.param(grid_of((5, 6, 7), (0.6, 0.7, 0.8), origin=(-2, 5, 9)), id="finer"),
    pytest.param(grid_of((3, 3, 3), (2, 2.7, 3), origin=(-3, 4, 8)), id="coarser"),
    pytest.param(grid_of((5, 5, 5), origin=(-2, 5.3, 9), angles=(10, 20, 5)), id="oblique"),
    pytest.param(
        grid_of((3, 3, 3), (2, 2, 2), origin=(-1, 6, 9), angles=(10, 9, 5)), id="oblique coarser"
    ),
]


@pytest.mark.parametrize("target", targets)
@pytest.mark.parametrize("order", [0, 1])
@pytest.mark.parametrize("fill", [0.0, -3.0])
def test_constant_in_constant_out(target: Grid, order: int, fill: float) -> None:
    data = np.full(SHAPE, 2.5, np.float32)
    out = resample(data, grid_of(), target, order=order, fill=fill)
    assert np.allclose(out, 2.5, atol=1e-5)


@pytest.mark.parametrize("angles", [(0, 0, 0), (8, -5, 11)])
@pytest.mark.parametrize("order", [0, 1])
def test_the_field_of_view_ends_at_the_outer_faces_of_the_voxels(angles, order: int) -> None:
    source = grid_of((6, 6, 6), (1, 1, 5), angles=angles)
    target = canonical_grid(source, 1.0)
    out = resample(np.full(source.shape, 4, np.float32), source, target, order=order, fill=-1)
    places = source.to_voxel(world(target).reshape(3, -1).T).reshape(*target.shape, 3)
    clear = np.abs(np.abs(places - 2.5) - 3).min(axis=-1) > 1e-3
    inside = (np.abs(places - 2.5) < 3).all(axis=-1)
    assert np.allclose(out[inside & clear], 4)
    assert np.all(out[~inside & clear] == -1)


@pytest.mark.parametrize("target", [t for t in targets if "coarser" not in (t.id or "")])
def test_linear_ramps_are_reproduced(target: Grid) -> None:
    source = grid_of()
    ramp = np.tensordot((1.0, -2.0, 0.5), world(source), 1) + 3
    expected = np.tensordot((1.0, -2.0, 0.5), world(target), 1) + 3
    assert np.allclose(resample(ramp, source, target), expected, atol=1e-3)


def test_linear_ramps_survive_halving_the_resolution() -> None:
    source = grid_of((16, 16, 16), origin=(0, 0, 0))
    target = canonical_grid(source, 2.0)
    out, expected = resample(world(source)[1], source, target), world(target)[1]
    assert np.allclose(out[:, 1:-1], expected[:, 1:-1], atol=1e-4)


@pytest.mark.parametrize("angles", [(0, 0, 0), (12, 12, 12)])
def test_a_fine_checkerboard_becomes_grey_on_a_coarse_grid(angles) -> None:
    source = grid_of((24, 24, 24), (1, 1, 1), origin=(0, 0, 0))
    board = (np.indices(source.shape).sum(axis=0) % 2).astype(np.float32)
    middle = grid_of((4, 4, 4), (3, 3, 3), origin=(7, 7, 7), angles=angles)
    out = resample(board, source, middle)
    assert np.abs(out - 0.5).max() < 0.05


def test_nearest_keeps_the_labels_and_their_type() -> None:
    codes = np.array([0, 23, 48, 60], np.uint16)
    labels = codes[np.random.default_rng(0).integers(0, 4, SHAPE)]
    for target in (grid_of((7, 7, 7), (0.7, 1.3, 2)), grid_of(angles=(9, 9, 9))):
        out = resample(labels, grid_of(), target, order=0)
        assert out.dtype == np.uint16
        assert set(np.unique(out)) <= set(codes.tolist())
        assert out.any()


@pytest.mark.parametrize("jitter", [0, 1e-9, -1e-9])
def test_half_way_between_voxels_nearest_takes_each_voxel_once(orientation, jitter) -> None:
    data = np.arange(np.prod(SHAPE)).reshape(SHAPE)
    target = grid_of(origin=(-4 + 0.5 + jitter, 3 - 0.5, 7 + 0.5 - jitter))
    moved, stored = stored_as(data, grid_of(), orientation)
    found = resample(moved, stored, target, order=0)[1:-1, 1:-1, 1:-1]
    assert np.array_equal(found, data[1:-1, :-2, 1:-1])


@pytest.mark.parametrize("kind", [np.bool_, np.int16, np.float64])
def test_nearest_keeps_any_type_and_linear_gives_float32(kind) -> None:
    data = np.ones(SHAPE, kind)
    for target in (grid_of(), grid_of(zooms=(2, 2, 2)), grid_of(angles=(5, 5, 5))):
        assert resample(data, grid_of(), target, order=0).dtype == kind
        assert resample(data, grid_of(), target, order=1).dtype == np.float32


@pytest.mark.parametrize("target", [grid_of(origin=(100, 0, 0)), grid_of(origin=(-4, 3, 100))])
@pytest.mark.parametrize("angles", [(0, 0, 0), (7, 7, 7)])
def test_outside_the_field_of_view_is_the_fill(target: Grid, angles) -> None:
    source = grid_of(angles=angles)
    assert np.all(resample(noise(), source, target, fill=-9) == -9)
    assert np.all(resample(np.ones(SHAPE, np.uint8), source, target, order=0, fill=255) == 255)


@pytest.mark.parametrize("target", targets)
@pytest.mark.parametrize("order", [0, 1])
def test_channels_are_resampled_one_by_one(target: Grid, order: int) -> None:
    data = np.stack([noise(seed=k) for k in range(3)])
    out = resample(data, grid_of(), target, order=order, fill=1)
    assert out.shape == (3, *target.shape)
    for channel, result in zip(data, out, strict=True):
        alone = resample(channel, grid_of(), target, order=order, fill=1)
        assert np.allclose(result, alone, atol=1e-6)


def test_probabilities_still_sum_to_one_after_resampling() -> None:
    data = noise((4, *SHAPE))
    data /= data.sum(axis=0)
    for target in (targets[0].values[0], targets[2].values[0]):
        assert np.allclose(resample(data, grid_of(), target).sum(axis=0), 1, atol=1e-5)


@pytest.mark.parametrize("order", [0, 1])
def test_the_result_is_a_copy_and_the_input_stays(order: int) -> None:
    data = noise()
    kept = data.copy()
    first = grid_of().crop((0, 0, 0), (2, *grid_of().shape[1:]))  # lies as the input does
    for target in (grid_of(), first, grid_of(zooms=(1.5, 1, 1)), grid_of(angles=(3, 0, 0))):
        for fill in (0, 2):
            out = resample(data, grid_of(), target, order=order, fill=fill)
            out[:] = 99
            assert np.array_equal(data, kept)


def test_one_voxel_thick_images_can_be_resampled() -> None:
    source = grid_of((5, 5, 1), (1, 1, 5))
    out = resample(np.ones(source.shape, np.float32), source, canonical_grid(source, 1.0))
    assert out.shape == (5, 5, 5)
    assert np.all(out == 1)


@pytest.mark.parametrize(
    "data", [np.zeros((9, 11, 12)), np.zeros((9, 11)), np.zeros((1, 2, *SHAPE))]
)
def test_an_array_that_is_not_on_the_grid_is_told_with_both_shapes(data) -> None:
    with pytest.raises(ValueError, match=r"not on a grid of \(9, 11, 13\)"):
        resample(data, grid_of(), grid_of())


def test_orders_other_than_nearest_and_linear_are_refused() -> None:
    with pytest.raises(ValueError, match="order must be 0 or 1, got 3"):
        resample(noise(), grid_of(), grid_of(), order=3)


def test_all_permutations_of_axes_are_aligned_and_exact() -> None:
    data, grid = noise(), grid_of()
    for codes in map("".join, itertools.permutations("RAS")):
        moved, stored = stored_as(data, grid, codes)
        assert np.array_equal(resample(moved, stored, grid), data)


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("channels", [(), (2,)])
def test_a_large_array_is_resampled_in_parts_to_the_same_values(monkeypatch, order, channels):
    rng = np.random.default_rng(0)
    source = Grid((9, 11, 8), np.diag([1.0, 2.0, 1.5, 1.0]))
    target = Grid((5, 13, 7), np.diag([1.7, 1.1, -1.2, 1.0]))
    data = np.asarray(rng.random((*channels, *source.shape), dtype=np.float32), order=order)
    whole = resample(data, source, target)
    monkeypatch.setattr("deepmrseg_bids.imaging.grid._PART", 100)
    np.testing.assert_allclose(resample(data, source, target), whole, rtol=1e-5, atol=1e-6)


@given(
    st.lists(st.tuples(st.integers(1, 6), st.integers(0, 3)), min_size=1, max_size=9),
    st.integers(0, 2),
)
def test_places_at_several_distances_are_the_same_in_parts(parts, axis):
    places = np.cumsum(np.concatenate([np.full(count, step) for count, step in parts]))
    runs = module._even_runs(places)
    covered = np.concatenate([np.arange(len(places))[run] for run in runs])
    assert np.array_equal(covered, np.arange(len(places)))
    assert len(runs) == 1 or all(len(set(np.diff(places[run]))) <= 1 for run in runs)
    data = np.random.default_rng(0).random((30, 31, 32), dtype=np.float32)
    data = np.moveaxis(np.resize(data, (places.max() + 1, 4, 5)), 0, axis)
    shares = np.linspace(0.1, 1, len(places), dtype=np.float32)
    shape = list(data.shape)
    shape[axis] = len(places)
    out = np.empty(shape, np.float32)
    module._times(data, axis, places, shares, out)
    along = shares.reshape(-1, *(1,) * (2 - axis))
    assert np.array_equal(out, np.take(data, places, axis=axis) * along)

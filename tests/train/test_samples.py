"""Samples: the table's mistakes one by one, folds of people, preparation, the cache."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deepmrseg_bids.errors import ImageReadError, TrainingError
from deepmrseg_bids.imaging.grid import Grid
from deepmrseg_bids.train.config import TrainConfig, load_config
from deepmrseg_bids.train.samples import (
    Prepared,
    Sample,
    load_samples,
    prepare_sample,
    split_folds,
)
from tests.support import stored_as

PROTOCOLS = """
[protocols.rest]
1 = "rest"
"""


def sample(name: str, person: str | None = None, **changes) -> Sample:
    values = {
        "sample_id": name, "participant_id": person or name,
        "images": {"T1w": Path("t1")}, "dseg": Path("d"),
    }  # fmt: skip
    return Sample(**(values | changes))


def ignoring(config: TrainConfig) -> TrainConfig:
    """The settings, with all codes but those of the labels as background."""
    return dataclasses.replace(config, ignore="rest")


def same(a: Prepared, b: Prepared) -> bool:
    return all(
        (x is None and y is None) or (x.dtype == y.dtype and np.array_equal(x, y))
        for x, y in (
            (a.image, b.image), (a.mask, b.mask), (a.target, b.target), (a.codes, b.codes),
        )
    ) and tuple(a.centre) == tuple(b.centre)  # fmt: skip


# --- the table


def test_a_table_is_read_with_paths_relative_to_it(table, save, tmp_path: Path) -> None:
    names = {key: save(f"{key}.nii.gz", np.ones((2, 2, 2), "u1")) for key in "abcd"}
    path = table(
        [
            {"sample_id": "one", "T1w": names["a"], "FLAIR": names["b"], "dseg": names["c"],
             "mask": names["d"], "participant_id": "p", "protocol": "rest", "weight": "0.5",
             "teaches_only": "1"},
            {"sample_id": "two", "T1w": "n/a", "dseg": names["c"]},
        ]
    )  # fmt: skip
    one, two = load_samples(path)
    assert one == Sample(
        "one", "p", {"T1w": tmp_path / "a.nii.gz", "FLAIR": tmp_path / "b.nii.gz"},
        tmp_path / "c.nii.gz", tmp_path / "d.nii.gz", "rest", 0.5, True,
    )  # fmt: skip
    assert two == Sample("two", "two", {}, tmp_path / "c.nii.gz")


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"sample": "s", "dseg": "d.nii.gz"}, "no column sample_id"),
        ({"sample_id": "s", "T1w": "d.nii.gz"}, "no column dseg"),
        ({"sample_id": "s", "dseg": ""}, "line 2, column dseg: s: no dseg"),
        ({"sample_id": "s", "dseg": "gone.nii.gz"}, "s: no file gone.nii.gz"),
        ({"sample_id": "s", "dseg": "d.nii.gz", "T1w": "gone"}, "column T1w: s: no file gone"),
        ({"sample_id": "s", "dseg": "d.nii.gz", "mask": "gone"}, "column mask: s: no file gone"),
        ({"sample_id": "", "dseg": "d.nii.gz"}, "line 2, column sample_id: no sample_id"),
        ({"sample_id": "s", "dseg": "d.nii.gz", "weight": "much"},
         "line 2, column weight: s: .* got 'much'"),
        ({"sample_id": "s", "dseg": "d.nii.gz", "weight": "-1"}, "weight .* got '-1'"),
        ({"sample_id": "s", "dseg": "d.nii.gz", "weight": "nan"}, "weight .* got 'nan'"),
        ({"sample_id": "s", "dseg": "d.nii.gz", "teaches_only": "yes"},
         "line 2, column teaches_only: s: 0 or 1 was expected, got 'yes'"),
        ({"sample_id": "s", "dseg": "d.nii.gz", "t1w": "d.nii.gz"},
         "line 1: the column t1w must be written T1w"),
    ],
)  # fmt: skip
def test_a_mistake_in_the_table_is_refused_with_its_name(table, save, row, told) -> None:
    save("d.nii.gz", np.ones((2, 2, 2), "u1"))
    with pytest.raises(TrainingError, match=told) as caught:
        load_samples(table([row]))
    assert "samples.tsv" in str(caught.value)


def test_a_sample_that_occurs_twice_is_refused(table, save) -> None:
    row = {"sample_id": "s", "dseg": save("d.nii.gz", np.ones((2, 2, 2), "u1"))}
    with pytest.raises(TrainingError, match="line 3, column sample_id: s occurs twice"):
        load_samples(table([row, row]))


def test_a_mistake_is_found_in_its_own_line(table, save) -> None:
    good = {"sample_id": "a", "dseg": save("d.nii.gz", np.ones((2, 2, 2), "u1"))}
    rows = [good, {**good, "sample_id": "b"}, {**good, "sample_id": "c", "mask": "gone.nii"}]
    with pytest.raises(TrainingError, match=r"line 4, column mask: c: no file gone\.nii"):
        load_samples(table(rows))


def test_columns_that_mean_nothing_are_named_and_change_nothing(table, save, caplog) -> None:
    row = {"sample_id": "s", "dseg": save("d.nii.gz", np.ones((2, 2, 2), "u1"))}
    plain = load_samples(table([row]))
    assert not caplog.text
    assert load_samples(table([{**row, "age": "40", "scanner": "x"}])) == plain
    assert "columns that are not used: age, scanner" in caplog.text


def test_what_is_not_known_is_as_if_it_were_not_there(table, save) -> None:
    row = {"sample_id": "s", "dseg": save("d.nii.gz", np.ones((2, 2, 2), "u1"))}
    optional = ("participant_id", "T1w", "FLAIR", "mask", "protocol", "weight", "teaches_only",
                "lesions")  # fmt: skip
    plain = load_samples(table([row]))
    for nothing in ("", "n/a"):
        assert load_samples(table([{**row, **dict.fromkeys(optional, nothing)}])) == plain


def test_a_missing_an_empty_and_a_binary_table_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.tsv").touch()
    (tmp_path / "binary.tsv").write_bytes(b"\xff\xfe\x80")
    for name in ("none.tsv", "empty.tsv", "binary.tsv"):
        with pytest.raises(TrainingError, match=name):
            load_samples(tmp_path / name)


# --- folds


people = st.lists(st.integers(0, 8), min_size=1, max_size=30).map(
    lambda who: [sample(f"s{k}", f"p{person}") for k, person in enumerate(who)]
)


@settings(max_examples=60, deadline=None)
@given(people, st.integers(2, 4), st.integers(0, 99))
def test_folds_keep_a_person_together_and_deal_everyone_once(samples, folds, seed) -> None:
    count = len({s.participant_id for s in samples})
    if count < folds:
        with pytest.raises(TrainingError, match=f"{folds} folds require .* found {count}"):
            split_folds(samples, folds, seed=seed)
        return
    split = split_folds(samples, folds, seed=seed)
    assert sorted(s.sample_id for part in split for s in part) == sorted(
        s.sample_id for s in samples
    )
    groups = [{s.participant_id for s in part} for part in split]
    assert sum(map(len, groups)) == count
    assert max(map(len, groups)) - min(map(len, groups)) <= 1


def test_folds_depend_on_the_seed_alone() -> None:
    samples = [sample(f"s{k}") for k in range(20)]
    first = split_folds(samples, 4, seed=1)
    assert first == split_folds(samples, 4, seed=1)
    assert first != split_folds(samples, 4, seed=2)


def test_label_maps_alone_and_what_teaches_only_never_judge() -> None:
    samples = [
        *(sample(f"s{k}") for k in range(4)),
        sample("map", images={}),
        sample("teacher", teaches_only=True),
    ]
    dealt = {s.sample_id for part in split_folds(samples, 2, seed=0) for s in part}
    assert dealt == {"s0", "s1", "s2", "s3"}


# --- preparation


def test_a_prepared_sample_is_the_scan_at_the_networks_spacing(balls, toy) -> None:
    prepared = prepare_sample(load_samples(balls(1))[0], toy())
    assert prepared.image.shape == prepared.target.shape == prepared.mask.shape == (20, 20, 20)
    assert prepared.image.dtype == np.float16
    assert prepared.target.dtype == np.uint8
    assert set(np.unique(prepared.target)) == {0, 1}
    assert prepared.mask.all()
    assert prepared.codes is None
    inside = prepared.image[prepared.target > 0].astype(float).mean()
    assert inside > 1.3 * prepared.image[prepared.target == 0].astype(float).mean()
    found = np.argwhere(prepared.target)
    assert np.allclose(prepared.centre, (found.min(axis=0) + found.max(axis=0)) / 2)


@pytest.mark.parametrize("codes", ["RAS", "LPS", "SRA", "PIL"])
def test_the_orientation_of_the_files_does_not_matter(table, save, toy, codes: str) -> None:
    image = np.random.default_rng(0).random((10, 12, 14)).astype("f4")
    labels = np.zeros(image.shape, "u1")
    labels[2:6, 3:8, 4:9] = 5
    grid = Grid(image.shape, np.eye(4))
    rows = [{"sample_id": "plain", "T1w": save("a.nii", image), "dseg": save("b.nii", labels)}]
    moved, where = stored_as(image, grid, codes)
    moved_labels, _ = stored_as(labels, grid, codes)
    rows.append(
        {
            "sample_id": "moved",
            "T1w": save("c.nii", moved, where.affine),
            "dseg": save("d.nii", moved_labels, where.affine),
        }
    )
    plain, other = (prepare_sample(s, toy()) for s in load_samples(table(rows)))
    assert same(plain, other)


def test_a_crop_has_the_asked_shape_with_room_around_the_target(balls, settings_file) -> None:
    config = load_config(settings_file(("spacing = 1.0", "spacing = 1.0\nshape = [8, 10, 12]")))
    prepared = prepare_sample(load_samples(balls(1))[0], config)
    assert prepared.target.shape == (48, 50, 52)
    found = np.argwhere(prepared.target)
    assert np.allclose((found.min(axis=0) + found.max(axis=0)) / 2, prepared.centre, atol=0.51)
    assert not prepared.mask.all()  # the room reaches beyond the field of view


@pytest.mark.parametrize("shift", [0, 1])
def test_a_crop_takes_every_voxel_of_the_labels_once(table, save, settings_file, shift) -> None:
    labels = np.zeros((20, 20, 20), np.uint8)
    labels[6 : 12 + shift, 5:12, 4:13] = 5
    labels[7, 7, 7] = labels[9, 9, 9] = 0
    image = np.random.default_rng(0).random(labels.shape, dtype="f4")
    row = {"sample_id": "s", "T1w": save("t.nii", image), "dseg": save("d.nii", labels)}
    config = load_config(settings_file(("spacing = 1.0", "spacing = 1.0\nshape = [8, 8, 8]")))
    found = prepare_sample(load_samples(table([row]))[0], config)
    corner = np.argwhere(found.target).min(axis=0)
    part = found.target[tuple(slice(c, c + n) for c, n in zip(corner, (7, 7, 9), strict=True))]
    assert np.array_equal(part * 5, labels[6:13, 5:12, 4:13])


def test_a_coarser_spacing_keeps_the_volume_of_the_target(balls, settings_file) -> None:
    samples = load_samples(balls(1))
    fine = prepare_sample(samples[0], load_config(settings_file()))
    coarse = prepare_sample(
        samples[0], load_config(settings_file(("spacing = 1.0", "spacing = 2.0")))
    )
    assert coarse.target.sum() * 8 == pytest.approx(fine.target.sum(), rel=0.15)


def test_a_label_map_alone_keeps_its_codes_to_synthesise_from(table, save, toy) -> None:
    codes = np.zeros((10, 10, 10), np.int16)
    codes[2:8, 2:8, 2:8], codes[4:6, 4:6, 4:6], codes[9] = 2, 5, 600
    row = {"sample_id": "map", "dseg": save("d.nii.gz", codes), "weight": "2"}
    prepared = prepare_sample(load_samples(table([row]))[0], ignoring(toy()))
    assert prepared.image is None
    assert np.array_equal(prepared.codes, codes)
    assert np.array_equal(prepared.target > 0, codes == 5)
    assert np.array_equal(prepared.mask, (codes > 0) & (codes < 500))
    assert prepared.weight == 2


def test_holes_in_the_rest_of_the_brain_are_filled(table, save, toy) -> None:
    codes = np.zeros((9, 9, 9), np.int16)
    codes[1:8, 1:8, 1:8] = 40
    codes[4, 4, 4] = 0
    row = {"sample_id": "s", "dseg": save("d.nii.gz", codes), "protocol": "rest"}
    prepared = prepare_sample(load_samples(table([row]))[0], toy(PROTOCOLS))
    assert prepared.target.sum() == 7**3


def test_a_sample_without_any_of_the_labels_is_refused_by_its_file(table, save, toy) -> None:
    row = {"sample_id": "s", "dseg": save("d.nii.gz", np.full((4, 4, 4), 9, "u1"))}
    with pytest.raises(TrainingError, match=r"d\.nii\.gz: it contains none of the labels"):
        prepare_sample(load_samples(table([row]))[0], ignoring(toy()))


def test_codes_beyond_any_protocol_are_refused(table, save, toy) -> None:
    row = {"sample_id": "s", "dseg": save("d.nii.gz", np.full((4, 4, 4), 40_000, "u2"))}
    sample = load_samples(table([row]))[0]
    with pytest.raises(TrainingError, match="go up to 32767, found 40000"):
        prepare_sample(sample, ignoring(toy()))


# --- the cache


def test_a_sample_from_the_cache_is_the_prepared_one(balls, table, save, toy, tmp_path) -> None:
    samples = load_samples(balls(1))
    codes = np.full((8, 8, 8), 5, np.int16)
    samples += load_samples(table([{"sample_id": "m", "dseg": save("m.nii.gz", codes)}], "m.tsv"))
    for one in samples:
        fresh = prepare_sample(one, toy())
        first = prepare_sample(one, toy(), tmp_path / "cache")
        again = prepare_sample(one, toy(), tmp_path / "cache")
        assert same(fresh, first)
        assert same(fresh, again)
        assert again.weight == one.weight


def test_a_kept_sample_is_not_prepared_again(balls, toy, tmp_path: Path) -> None:
    one = load_samples(balls(1))[0]
    prepare_sample(one, toy(), tmp_path / "cache")
    one.images["T1w"].write_bytes(b"broken")
    assert prepare_sample(one, toy(), tmp_path / "cache").image is not None
    with pytest.raises(ImageReadError):
        prepare_sample(one, toy())


def test_other_settings_are_kept_apart(balls, toy, settings_file, tmp_path: Path) -> None:
    one = load_samples(balls(1))[0]
    prepare_sample(one, toy(), tmp_path / "cache")
    coarse = load_config(settings_file(("spacing = 1.0", "spacing = 2.0")))
    assert prepare_sample(one, coarse, tmp_path / "cache").target.shape == (10, 10, 10)
    assert len(list((tmp_path / "cache").iterdir())) == 2

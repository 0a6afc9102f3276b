"""Label codes: the classes they stand for, and those that the settings do not mention."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deepmrseg_bids.errors import TrainingError
from deepmrseg_bids.imaging.grid import Grid
from deepmrseg_bids.imaging.nifti import LabelMap
from deepmrseg_bids.train.config import TrainConfig, changed_settings, load_config
from deepmrseg_bids.train.label_codes import check_codes, class_map, reference_classes
from deepmrseg_bids.train.samples import Sample, load_samples, prepare_sample
from deepmrseg_bids.train.slice_pairs import prepare
from tests.train.heads import head

PROTOCOLS = """
[protocols.rest]
1 = "rest"
[protocols.two]
1 = [5, 9]
[protocols.most]
1 = "rest"
ignore = [7, 8]
[protocols.some]
1 = [5]
ignore = [7, 8]
[protocols.loose]
1 = [5]
ignore = "rest"
"""


def labels_of(*codes: int) -> LabelMap:
    return LabelMap(np.array([[codes]], np.int32), Grid((1, 1, len(codes)), np.eye(4)))


def test_without_a_protocol_the_codes_are_the_label_tables(toy) -> None:
    lookup = class_map(toy(), "")
    assert lookup[5] == 1
    assert lookup.sum() == 1


def test_rest_is_every_other_code_above_zero(toy) -> None:
    lookup = class_map(toy(PROTOCOLS), "rest")
    assert lookup[0] == 0
    assert np.all(lookup[1:] == 1)


def test_named_codes_win_over_rest_whatever_their_order(settings_file) -> None:
    for entries in ('1 = "rest"\n2 = [7]', '2 = [7]\n1 = "rest"'):
        path = settings_file(
            ('labels = [{ index = 5, name = "Ball" }]',
             'labels = [{ index = 5, name = "A" }, { index = 6, name = "B" }]'),
            ("classes = 2", "classes = 3"),
            extra=f"[protocols.p]\n{entries}\n",
        )  # fmt: skip
        lookup = class_map(load_config(path), "p")
        assert (lookup[0], lookup[1], lookup[7], lookup[8]) == (0, 1, 2, 1)


def test_codes_that_no_class_names_are_background(toy) -> None:
    lookup = class_map(toy(PROTOCOLS), "two")
    assert np.flatnonzero(lookup).tolist() == [5, 9]


def test_an_unknown_protocol_is_refused_with_the_known_ones(toy) -> None:
    with pytest.raises(
        TrainingError, match="unknown protocol 'x'; the settings know rest, two, most, some, loose"
    ):
        class_map(toy(PROTOCOLS), "x")


def test_ignored_codes_are_background_beside_the_rest(toy) -> None:
    lookup = class_map(toy(PROTOCOLS), "most")
    assert np.flatnonzero(lookup[1:] == 0).tolist() == [6, 7]  # codes 7 and 8


# --- codes that the settings do not mention


@pytest.mark.parametrize(
    ("protocol", "codes", "told"),
    [
        ("", (0, 5, 6), "code 6 is not in `labels`"),
        ("", (9, 5, 6, 12, 13, 14), "codes 6, 9, 12 to 14 are not in `labels`"),
        ("", (40_000,), "code 40000 is not in `labels`"),
        ("two", (5, 9, 6), r"code 6 is not in \[protocols.two\]"),
        ("some", (5, 6, 7, 8), r"code 6 is not in \[protocols.some\]"),
    ],
)
def test_codes_that_are_not_mentioned_are_listed_with_the_file(toy, protocol, codes, told) -> None:
    with pytest.raises(TrainingError, match=told) as caught:
        check_codes(labels_of(*codes), Path("d.nii"), protocol, toy(PROTOCOLS))
    assert str(caught.value).startswith("d.nii: ")
    assert "ignore" in str(caught.value)


@pytest.mark.parametrize(
    ("protocol", "codes"),
    [
        ("", (0, 5)),
        ("rest", (0, 1, 32_767)),
        ("two", (5, 9)),
        ("most", (1, 7, 8)),
        ("some", (5, 7, 8)),
        ("loose", (5, 6, 600)),
    ],
)
def test_codes_that_are_mentioned_are_welcome(toy, protocol, codes) -> None:
    check_codes(labels_of(*codes), Path("d.nii"), protocol, toy(PROTOCOLS))


def test_codes_can_be_ignored_without_a_protocol(toy) -> None:
    listed = dataclasses.replace(toy(), ignore=(6, 7))
    check_codes(labels_of(5, 6, 7), Path("d.nii"), "", listed)
    check_codes(labels_of(5, 6, 99), Path("d.nii"), "", dataclasses.replace(toy(), ignore="rest"))
    with pytest.raises(TrainingError, match="code 8 is"):
        check_codes(labels_of(5, 6, 8), Path("d.nii"), "", listed)


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    codes=st.lists(st.integers(0, 20), min_size=1, max_size=10).map(tuple),
    listed=st.sets(st.integers(1, 20), min_size=1),
    ignored=st.sets(st.integers(1, 20)),
)
def test_every_code_is_a_class_or_ignored_or_an_error(toy, codes, listed, ignored) -> None:
    ignored = ignored - listed
    entries = {"1": sorted(listed), "ignore": sorted(ignored)}
    config = dataclasses.replace(toy(), protocols={"p": entries})
    strangers = {code for code in codes if code and code not in listed | ignored}
    labels = labels_of(*codes)
    if strangers:
        with pytest.raises(TrainingError, match=str(min(strangers))):
            check_codes(labels, Path("d"), "p", config)
        return
    check_codes(labels, Path("d"), "p", config)
    classes = reference_classes(labels, "p", config).ravel().tolist()
    assert classes == [int(code in listed) for code in codes]


# --- in training


def test_a_scan_with_a_structure_that_the_settings_forgot_teaches_nothing(
    balls, save, toy, tmp_path: Path
) -> None:
    sample = load_samples(balls(1))[0]
    labels = np.zeros((20, 20, 20), np.uint8)
    labels[2:6], labels[8:10], labels[12:14] = 5, 6, 17
    save("more.nii.gz", labels)
    more = dataclasses.replace(sample, dseg=tmp_path / "more.nii.gz")
    for _ in range(2):  # nothing is kept in the cache that was not checked
        with pytest.raises(TrainingError, match=r"more\.nii\.gz: the label codes 6, 17 are not in"):
            prepare_sample(more, toy(), tmp_path / "cache")
    prepare_sample(more, dataclasses.replace(toy(), ignore=(6, 17)), tmp_path / "cache")
    with pytest.raises(TrainingError, match="codes 6, 17"):
        prepare_sample(more, toy(), tmp_path / "cache")


def test_tissues_outside_the_brain_need_no_mention_in_a_map_without_a_scan(
    table, save, toy
) -> None:
    codes = np.zeros((12, 12, 12), np.int16)
    codes[2:10], codes[5:8], codes[0] = 2, 5, 506
    row = {"sample_id": "map", "dseg": save("d.nii.gz", codes)}
    sample = load_samples(table([row]))[0]
    with pytest.raises(TrainingError, match="label code 2 is not in"):
        prepare_sample(sample, toy())
    assert prepare_sample(sample, dataclasses.replace(toy(), ignore=(2,))).target.any()
    scan = dataclasses.replace(sample, images={"T1w": sample.dseg})
    with pytest.raises(TrainingError, match="label code 506 is not in"):
        prepare_sample(scan, dataclasses.replace(toy(), ignore=(2,)))


def test_pairs_and_maps_for_networks_in_2d_are_checked_too(
    small: TrainConfig,
    made_up: Sample,
    real: list[Sample],
    save: Callable[..., str],
    tmp_path: Path,
) -> None:
    config = dataclasses.replace(small, protocols={"thalamus": {"1": [10, 49]}})
    bare = dataclasses.replace(made_up, lesions=None, protocol="thalamus")
    with pytest.raises(TrainingError, match="the label codes 2 to 4, 11, 12, 17, 24, 41 to 43"):
        prepare(bare, config)
    prepare(made_up, config)  # with lesions put in, they alone are the label
    save("two.nii.gz", (head() > 0).astype("u1") * 2)
    with pytest.raises(TrainingError, match="label code 2 is not in `labels`"):
        prepare(dataclasses.replace(real[0], dseg=tmp_path / "two.nii.gz"), small)


# --- the settings


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[protocols.p]\n2 = [3]\n", r"\[protocols.p\]: '2' is no class: they are 1 to 1"),
        ("[protocols.p]\n0 = [3]\n", "'0' is no class"),
        ("[protocols.p]\n1 = 3\n", 'must be a list of label codes from 1 to 32767, or "rest"'),
        ("[protocols.p]\n1 = [0]\n", r"1 must be a list of label codes .* got \[0\]"),
        ("[protocols.p]\n1 = ['a']\n", "must be a list of label codes"),
        ("[protocols.p]\n1 = [3, 4]\nignore = [4]\n", "listed more than once: 4"),
        ("[protocols.p]\n1 = 'rest'\nignore = 'rest'\n", 'only one entry can be "rest"'),
    ],
)
def test_a_protocol_that_contradicts_itself_is_refused(settings_file, text, told) -> None:
    with pytest.raises(TrainingError, match=told):
        load_config(settings_file(extra=text))


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("ignore = [5]", r"ignore lists indices of labels: \[5\]"),
        ("ignore = 6", "ignore must be a list of label codes"),
        ("ignore = 'all'", "ignore must be a list of label codes"),
    ],
)
def test_ignored_codes_that_mean_nothing_are_refused(settings_file, line, told) -> None:
    with pytest.raises(TrainingError, match=told):
        load_config(settings_file(('task = "toy"', f'task = "toy"\n{line}')))


@pytest.mark.parametrize("line", ["ignore = [6, 7]", 'ignore = "rest"'])
def test_ignored_codes_are_kept_with_the_settings_and_change_no_network(
    settings_file, tmp_path: Path, line
) -> None:
    before = load_config(settings_file())
    config = load_config(settings_file(('task = "toy"', f'task = "toy"\n{line}')))
    (tmp_path / "again.toml").write_text(config.text)
    assert load_config(tmp_path / "again.toml") == config
    assert not changed_settings(before, config)


def test_ignored_codes_change_the_network_only_where_a_class_takes_the_rest(settings_file) -> None:
    def told(classes: str) -> list[str]:
        plain, ignoring = (
            load_config(settings_file(extra=f"[protocols.p]\n1 = {classes}\n{line}"))
            for line in ("", "ignore = [7]\n")
        )
        return changed_settings(plain, ignoring)

    assert not told("[5]")
    assert told('"rest"')

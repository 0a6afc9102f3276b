"""Training on slices of FLAIR and T1w: real pairs, and pairs made from label maps."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from deepmrseg_bids.bundle import ModelBundle
from deepmrseg_bids.errors import TrainingError
from deepmrseg_bids.intensity import OUTSIDE
from deepmrseg_bids.train.config import TrainConfig, load_config
from deepmrseg_bids.train.loop import train
from deepmrseg_bids.train.pairs import Pair, crop, prepare
from deepmrseg_bids.train.samples import Sample, load_samples
from deepmrseg_bids.train.scenes import Anatomy
from tests.train.heads import head, write_lesions

FLAIR = {0: 0.02, 2: 1.0, 41: 1.0, 3: 1.2, 42: 1.2, 24: 0.3, 4: 0.2, 43: 0.2, 506: 0.5}


@pytest.fixture
def small(settings_file: Callable[..., Path]) -> TrainConfig:
    path = settings_file(
        ("spatial_dims = 3", "spatial_dims = 2"),
        ("in_channels = 1", "in_channels = 2"),
        ("crop = [16, 16, 16]", "crop = [48, 48]"),
        ('intensity = "crop"', 'intensity = "brain"'),
        ("index = 5", "index = 1"),
        extra="[augment]\nflip = 0.5\nrotate_deg = 10\nshift_mm = 8\nelastic_mm = 1\nnoise = 0.2\n"
        "[pairs]\nthick_mm = 4\ndrop_t1w = 0.2\nhealthy = 0.2\ndirty = 0.3\nflow = 0.3\n",
    )
    return load_config(path)


@pytest.fixture
def made_up(save: Callable[..., str], table: Callable[..., Path], tmp_path: Path) -> Sample:
    """A label map with lesions to put into it."""
    write_lesions(tmp_path / "lesions.npz")
    row = {"sample_id": "map", "dseg": save("map.nii.gz", head()), "lesions": "lesions.npz",
           "teaches_only": "1"}  # fmt: skip
    return load_samples(table([row], "maps.tsv"))[0]


@pytest.fixture
def real(save: Callable[..., str], table: Callable[..., Path]) -> list[Sample]:
    """Two people with 3 mm slices and a bright lesion; the T1w is finer."""
    codes = head()
    rng = np.random.default_rng(0)
    rows = []
    for person in range(2):
        flair = np.vectorize(lambda code: FLAIR.get(code, 1.1))(codes)
        lesion = np.zeros(codes.shape, np.uint8)
        lesion[18:26, 24:34, 30:40] = 1
        flair = np.where(lesion > 0, 2.0, flair) + 0.02 * rng.standard_normal(codes.shape)
        thick = np.diag([1.0, 1.0, 3.0, 1.0])
        thick[2, 3] = 1
        mean = flair[..., :63].reshape(64, 64, 21, 3).mean(-1)
        rows.append(
            {
                "sample_id": f"p{person}",
                "T1w": save(f"t1-{person}.nii.gz", (2 - flair).astype("f4")),
                "FLAIR": save(f"flair-{person}.nii.gz", mean.astype("f4"), thick),
                "dseg": save(f"lesion-{person}.nii.gz", lesion[..., 1:63:3].copy(), thick),
                "mask": save("mask.nii.gz", ((codes > 0) & (codes < 500)).astype("u1")),
            }
        )
    return load_samples(table(rows, "pairs.tsv"))


def test_a_crop_is_fixed_by_the_state_of_the_generator(
    small: TrainConfig, made_up: Sample, real: list[Sample]
) -> None:
    for sample in (made_up, real[0]):
        ready = prepare(sample, small)
        one, two, other = (crop(ready, np.random.default_rng(seed), small) for seed in (1, 1, 2))
        assert one[0].shape == (2, 48, 48) and one[0].dtype == np.float32
        assert np.array_equal(one[0], two[0]) and np.array_equal(one[1], two[1])
        assert not np.array_equal(one[0], other[0])


def test_labelled_lesions_are_bright_in_the_flair_and_lie_in_the_brain(
    small: TrainConfig, made_up: Sample
) -> None:
    ready = prepare(made_up, small)
    rng = np.random.default_rng(0)
    sure = dataclasses.replace(small, pairs=dataclasses.replace(small.pairs, healthy=0.0))
    found = 0
    for _ in range(12):
        image, target = crop(ready, rng, sure)
        if target.sum() < 20:
            continue
        found += 1
        inside = image[0] > OUTSIDE
        assert inside[target > 0].all()
        assert image[0][target > 0].mean() > np.median(image[0][inside & (target == 0)]) + 0.5
    assert found >= 4


def test_heads_without_lesions_have_no_label(small: TrainConfig, made_up: Sample) -> None:
    ready = prepare(made_up, small)
    rng = np.random.default_rng(0)
    healthy = dataclasses.replace(small, pairs=dataclasses.replace(small.pairs, healthy=1.0))
    crops = [crop(ready, rng, healthy) for _ in range(8)]
    assert not any(target.any() for _, target in crops)
    assert all(image.std() > 0 for image, _ in crops)


def test_the_t1w_is_left_out_as_often_as_asked(
    small: TrainConfig, made_up: Sample, real: list[Sample]
) -> None:
    rng = np.random.default_rng(0)
    for chance in (0.0, 1.0):
        config = dataclasses.replace(small, pairs=dataclasses.replace(small.pairs, drop_t1w=chance))
        for sample in (made_up, real[0]):
            image, _ = crop(prepare(sample, config), rng, config)
            assert (image[1] == OUTSIDE).all() == bool(chance)
            assert (image[0] > OUTSIDE).any()


def test_other_structures_can_be_trained_from_the_label_maps(
    small: TrainConfig, made_up: Sample
) -> None:
    config = dataclasses.replace(small, protocols={"thalamus": {"1": [10, 49]}})
    sample = dataclasses.replace(made_up, lesions=None, protocol="thalamus")
    ready = prepare(sample, config)
    assert isinstance(ready, Anatomy) and ready.target is not None
    assert ready.target.sum() == np.isin(head(), (10, 49)).sum()
    rng = np.random.default_rng(0)
    assert any(crop(ready, rng, config)[1].any() for _ in range(20))


def test_a_real_pair_is_prepared_on_the_slices_of_its_flair(
    small: TrainConfig, real: list[Sample], tmp_path: Path
) -> None:
    fresh = prepare(real[0], small, tmp_path / "cache")
    kept = prepare(real[0], small, tmp_path / "cache")
    for ready in (fresh, kept):
        assert isinstance(ready, Pair)
        assert ready.thickness == 3.0 and ready.mirrors
        assert ready.image.shape == (2, *ready.target.shape)
        lesion = ready.image[:, ready.target > 0].astype(np.float32).mean(1)
        assert lesion[0] > 1 > lesion[1]  # bright in the FLAIR, dark in the T1w
    assert np.array_equal(fresh.image, kept.image)  # type: ignore[union-attr]


def test_a_network_of_slices_resumes_to_the_last_bit(
    small: TrainConfig, made_up: Sample, real: list[Sample], tmp_path: Path
) -> None:
    config = dataclasses.replace(
        small, loop=dataclasses.replace(small.loop, steps=12, batch=2, folds=2)
    )
    samples = [*real, made_up]
    whole = train(samples, config, tmp_path / "whole", cache=tmp_path / "cache")
    train(samples, config, tmp_path / "parts", cache=tmp_path / "cache", stop_at=7)
    parts = train(samples, config, tmp_path / "parts", cache=tmp_path / "cache", resume=True)
    bundle = ModelBundle.open(whole)
    assert bundle.sha256 == ModelBundle.open(parts).sha256
    assert bundle.preparation.window == (0, 0, 0)
    assert bundle.facts["samples_held_out"] == 1


def test_a_label_map_without_the_structures_to_lay_it_on_the_atlas_is_refused(
    small: TrainConfig, made_up: Sample, save: Callable[..., str], tmp_path: Path
) -> None:
    save("bare.nii.gz", np.where(np.isin(head(), (2, 41)), head(), 0).astype(np.int16))
    with pytest.raises(TrainingError, match="at least 6 of"):
        prepare(dataclasses.replace(made_up, dseg=tmp_path / "bare.nii.gz"), small)


def test_a_file_that_holds_no_lesions_is_named(small: TrainConfig, made_up: Sample) -> None:
    ready = prepare(dataclasses.replace(made_up, lesions=made_up.dseg), small)
    always = dataclasses.replace(small, pairs=dataclasses.replace(small.pairs, healthy=0.0))
    with pytest.raises(TrainingError, match="not a file of lesions"):
        crop(ready, np.random.default_rng(0), always)

"""Training on slices of FLAIR and T1w: real pairs, and pairs made from label maps."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from deepmrseg_bids.errors import TrainingError
from deepmrseg_bids.imaging.intensity import OUTSIDE
from deepmrseg_bids.inference.bundle import ModelBundle
from deepmrseg_bids.inference.predictor import Predictor
from deepmrseg_bids.reports.crossval import write_report
from deepmrseg_bids.tasks.registry import find_task
from deepmrseg_bids.train.config import TrainConfig
from deepmrseg_bids.train.crossval import NETWORKS, CrossValidation, crossval
from deepmrseg_bids.train.evaluation import evaluate, read_rows, write_tables
from deepmrseg_bids.train.loop import TrainingRun, train
from deepmrseg_bids.train.samples import Sample, load_samples
from deepmrseg_bids.train.scene import T1W_LEVELS, Anatomy, Scene, draw_scene
from deepmrseg_bids.train.slice_pairs import Pair, crop, prepare
from deepmrseg_bids.train.synthetic_slices import render
from deepmrseg_bids.train.tissues import FREESURFER_OF_MUSE, TISSUE_OF, Tissue
from tests.train.heads import head, write_lesions


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


@pytest.fixture
def quiet_scene(small: TrainConfig, made_up: Sample) -> tuple[Anatomy, Scene]:
    """A slice through the ventricles, without lesions and without anything bright."""
    ready = prepare(made_up, small)
    assert isinstance(ready, Anatomy)
    still = dataclasses.replace(small.augment, noise=0.0, bias=0.0, elastic_mm=0.0)
    scene = draw_scene(np.random.default_rng(3), ready, small.pairs, still)
    ventricle = np.argwhere(np.isin(ready.codes, (4, 43))).mean(0)
    geometry = dataclasses.replace(scene.geometry, centre=ventricle, thickness=1.0, lesions=None)
    contrast = dataclasses.replace(
        scene.contrast, band=0.0, flow=0.0, grey=0.0, rim=(0.0, 1.0), caps=(0.0, 3.0),
        dirty=(0.0, 5.0), halo=0.0, plexus=0.0,
    )  # fmt: skip
    artifacts = dataclasses.replace(
        scene.artifacts, pixel=(1.0, 1.0), ghost=(0.0, 8, 0), no_t1w=False, misplaced=np.zeros(3)
    )
    return ready, Scene(geometry, contrast, artifacts, scene.seed)


def changed_by(
    quiet_scene: tuple[Anatomy, Scene], **change: object
) -> tuple[NDArray[np.bool_], NDArray[np.floating]]:
    """Where the FLAIR gets brighter by a change of contrast that adds no label, and as it was."""
    ready, plain = quiet_scene
    contrast = dataclasses.replace(plain.contrast, **change)  # type: ignore[arg-type]
    before, nothing = render(ready, plain, (48, 48))
    after, target = render(ready, dataclasses.replace(plain, contrast=contrast), (48, 48))
    assert not target.any() and not nothing.any()
    changed = after[0] - before[0] > 0.3
    assert changed.any()
    return changed, before[0]


def test_bright_spots_of_the_plexus_lie_in_the_ventricles_and_are_no_lesions(quiet_scene) -> None:
    changed, before = changed_by(quiet_scene, plexus=1.0)
    fluid = before < np.quantile(before[before > OUTSIDE], 0.2)
    assert changed[ndimage.binary_dilation(fluid, iterations=2)].sum() == changed.sum()


@pytest.mark.parametrize("what", ["rim", "caps"])
def test_rims_and_caps_lie_along_the_ventricles_and_are_no_lesions(quiet_scene, what) -> None:
    changed, before = changed_by(quiet_scene, **{what: (1.0, 2.0)})
    fluid = before < np.quantile(before[before > OUTSIDE], 0.2)
    assert not changed[~ndimage.binary_dilation(fluid, iterations=6)].any()


@pytest.fixture
def textured(save: Callable[..., str], table: Callable[..., Path], tmp_path: Path) -> Sample:
    """A T1w with labels of MUSE: white 100, grey 60, fluid 20, and a dark spot deep in white."""
    codes = head()
    muse = np.zeros(1024, np.uint8)
    muse[FREESURFER_OF_MUSE[::-1]] = np.arange(256)[::-1]
    muse[0] = 0
    labels = muse[codes]
    image = np.select([labels == 0, *(TISSUE_OF[codes] == t for t in (1, 3))], [0, 100, 20], 60)
    image[18, 32, 34] = 60  # deep in the white matter
    image = image + np.abs(np.random.default_rng(0).standard_normal(codes.shape))
    write_lesions(tmp_path / "bank.npz")
    row = {"sample_id": "real", "T1w": save("t1w.nii.gz", image.astype("f4")),
           "dseg": save("muse.nii.gz", labels), "protocol": "muse", "lesions": "bank.npz",
           "teaches_only": "1"}  # fmt: skip
    return load_samples(table([row], "textured.tsv"))[0]


def test_a_real_t1w_gets_the_contrast_of_a_flair_and_keeps_its_detail(small, textured) -> None:
    ready = prepare(textured, small)
    assert isinstance(ready, Anatomy) and ready.texture is not None
    tissue = TISSUE_OF[ready.codes]
    for kind, level in zip((3, 2, 1), T1W_LEVELS, strict=True):
        assert np.median(ready.texture[tissue == kind]) == pytest.approx(level, abs=0.01)
    deep = ndimage.binary_erosion(tissue == Tissue.WHITE)
    assert ready.texture[deep].min() >= 0.85  # a dark spot would be a lesion without a label
    flair, t1w = quiet_slice(ready, small)
    middle = tissue[:, :, 37]
    looks = {
        kind: (flair[middle == kind].mean(), t1w[middle == kind].mean())
        for kind in (Tissue.FLUID, Tissue.CORTEX, Tissue.WHITE)
    }
    by_flair = sorted(looks, key=lambda kind: looks[kind][0])
    by_t1w = sorted(looks, key=lambda kind: looks[kind][1])
    assert by_flair == [Tissue.FLUID, Tissue.WHITE, Tissue.CORTEX]
    assert by_t1w == [Tissue.FLUID, Tissue.CORTEX, Tissue.WHITE]
    finer = dataclasses.replace(ready, texture=ready.texture + 0.2 * stripes(ready.codes.shape))
    striped, _ = quiet_slice(finer, small)
    white = deep[:, :, 37]
    assert (striped - flair)[white].std() > 0.05 > flair[white].std()


def stripes(shape: tuple[int, ...]) -> NDArray[np.float16]:
    """Bands of 4 mm."""
    bands: NDArray[np.float16] = ((np.indices(shape)[0] // 4) % 2).astype(np.float16)
    return bands


def quiet_slice(ready: Anatomy, settings: TrainConfig) -> NDArray[np.float32]:
    """(2, 64, 64) the middle axial slice without lesions, noise or anything bright."""
    still = dataclasses.replace(settings.augment, noise=0.0, bias=0.0, elastic_mm=0.0)
    scene = draw_scene(np.random.default_rng(3), ready, settings.pairs, still)
    geometry = dataclasses.replace(
        scene.geometry, frame=np.eye(3)[:, [2, 0, 1]], centre=np.array([31.5, 31.5, 37.0]),
        thickness=1.0, lesions=None,
    )  # fmt: skip
    contrast = dataclasses.replace(
        scene.contrast, band=0.0, flow=0.0, grey=0.0, rim=(0.0, 1.0), caps=(0.0, 3.0),
        dirty=(0.0, 5.0), halo=0.0, plexus=0.0,
    )  # fmt: skip
    artifacts = dataclasses.replace(
        scene.artifacts, pixel=(1.0, 1.0), ghost=(0.0, 8, 0), no_t1w=False, misplaced=np.zeros(3),
        shading=np.zeros((2, 2, 2)),
    )  # fmt: skip
    pair, target = render(ready, Scene(geometry, contrast, artifacts, scene.seed), (64, 64))
    assert not target.any()
    return pair


def test_shading_changes_brightness_across_the_slice_and_moves_no_label(quiet_scene) -> None:
    ready, plain = quiet_scene
    slope = np.zeros((2, 2, 2))
    slope[0, 0, 0] = 2 * np.log(2)
    shaded = dataclasses.replace(
        plain, artifacts=dataclasses.replace(plain.artifacts, shading=slope)
    )
    flat = dataclasses.replace(
        plain, artifacts=dataclasses.replace(plain.artifacts, shading=np.zeros((2, 2, 2)))
    )
    (one, _), (other, _) = render(ready, flat, (48, 48)), render(ready, shaded, (48, 48))
    change = (other - one)[0]
    inside = (one[0] > OUTSIDE) & (np.abs(one[0]) < 4) & (np.abs(other[0]) < 4)
    first, last = change[:16][inside[:16]], change[-16:][inside[-16:]]
    assert first.mean() < 0 < last.mean()
    np.testing.assert_allclose(one[1], other[1])


def test_faint_lesions_are_drawn_as_often_as_bright_ones(
    small: TrainConfig, made_up: Sample
) -> None:
    ready = prepare(made_up, small)
    assert isinstance(ready, Anatomy)
    pairs = dataclasses.replace(small.pairs, lesion=(0.1, 0.9))
    rng = np.random.default_rng(0)
    scenes = [draw_scene(rng, ready, pairs, small.augment) for _ in range(400)]
    above = np.array(
        [scene.contrast.bright - scene.contrast.means[0][Tissue.CORTEX] for scene in scenes]
    )
    assert above.min() >= 0.1 and above.max() <= 0.9
    assert abs(np.mean(above < 0.3) - 0.5) < 0.1  # 0.3 is the geometric mean


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
    config = dataclasses.replace(small, protocols={"thalamus": {"1": [10, 49], "ignore": "rest"}})
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
    whole = train(TrainingRun(samples, config, tmp_path / "whole", cache=tmp_path / "cache"))
    train(TrainingRun(samples, config, tmp_path / "parts", cache=tmp_path / "cache", stop_at=7))
    parts = train(
        TrainingRun(samples, config, tmp_path / "parts", cache=tmp_path / "cache", resume=True)
    )
    bundle = ModelBundle.open(whole)
    assert bundle.sha256 == ModelBundle.open(parts).sha256
    assert bundle.preparation.window == (0, 0, 0)
    assert bundle.facts["samples_held_out"] == 1


def test_a_network_of_slices_learns_what_a_lesion_is(
    small: TrainConfig, real: list[Sample], tmp_path: Path
) -> None:
    loop = dataclasses.replace(small.loop, steps=60, batch=4, folds=2, validate_every=60)
    network = dataclasses.replace(small.network, width=8)
    bundle = train(
        TrainingRun(real, dataclasses.replace(small, loop=loop, network=network), tmp_path / "run")
    )
    assert ModelBundle.open(bundle).facts["dice_held_out"]["Ball"] > 0.5


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


class Threshold:
    """A predictor that calls lesion what is bright in the FLAIR."""

    def __init__(self, config: TrainConfig) -> None:
        self.bundle = SimpleNamespace(
            task="wml", labels=config.labels, preparation=config.preparation, facts={}
        )

    def slices(self, image: np.ndarray, *, mirrored: bool) -> np.ndarray:
        bright = (image[0] > 1.5).astype(np.float32)
        return np.stack([1 - bright, bright])


def test_lesions_are_counted_beside_the_scores_of_the_contract(
    small: TrainConfig, real: list[Sample], tmp_path: Path
) -> None:
    predictor = cast(Predictor, Threshold(small))
    rows = evaluate(real, find_task("wml"), lambda _: predictor, small, prepared=True)
    summary = write_tables(rows, tmp_path)
    lines = (tmp_path / "per_sample.tsv").read_text().splitlines()
    assert lines[0].split("\t")[-5:] == [
        "lesions", "reference_lesions", "lesion_recall", "lesion_precision", "lesion_f1",
    ]  # fmt: skip
    for row in rows:
        assert row.agreement.f1 > 0.8
        assert row.lesions is not None
        assert (row.lesions.n_reference, row.lesions.n_detected) == (1, 1)
    assert [row.lesions for row in read_rows(tmp_path / "per_sample.tsv")] == [
        row.lesions for row in rows
    ]
    entry = summary["structures"][0]
    assert entry["lesion_recall_mean"] == 1
    assert entry["volume_difference_mm3_mean"] == pytest.approx(
        np.mean([abs(r.agreement.volume_mm3 - r.agreement.reference_volume_mm3) for r in rows])
    )
    assert (tmp_path / "summary.tsv").read_text().split("\n")[0].split("\t")[10] == (
        "lesion_recall_mean"
    )


def test_two_networks_of_slices_are_cross_validated_with_pictures(
    small: TrainConfig, real: list[Sample], tmp_path: Path
) -> None:
    loop = dataclasses.replace(small.loop, steps=2, batch=2)
    protocol = CrossValidation(dataclasses.replace(small, loop=loop), tmp_path / "cv", folds=2)
    judged = crossval(real, protocol, cache=tmp_path / "cache")
    assert judged is not None
    assert {(one.network, one.row.sample_id) for one in judged} == {
        (network, sample.sample_id) for network in NETWORKS for sample in real
    }
    assert all(path.is_file() for path in write_report(judged, protocol, real))

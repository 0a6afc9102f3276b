"""Two checks of a model of white-matter lesions that need no rater.

    python benchmarks/lesion_checks.py DATA OUT --clinical SAMPLES.tsv [--model BUNDLE]

*False lesions*: heads without lesions, made of the label maps with everything else that the
training draws (brightness around the ventricles, flow, noise, thick slices); what is found
there is false. With the T1w and without.

*Thick slices*: the 1 mm FLAIR of ``wml/consensus``, the 2 mm FLAIR of ``wml/clinical`` and
synthetic heads with few and with many lesions, resliced to 3, 5 and 8 mm (of 2 mm: to 4, 6 and
8 mm) by averaging; the volume should stay what it was. (Half of the label maps, to save time.)

``OUT`` receives ``false_lesions.tsv`` and ``thick_slices.tsv``; the medians are printed. A few
minutes on two cores.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from deepmrseg_bids.imaging.grid import Grid, resample
from deepmrseg_bids.imaging.intensity import OUTSIDE
from deepmrseg_bids.imaging.nifti import Volume, read_volume
from deepmrseg_bids.inference.bundle import ModelBundle
from deepmrseg_bids.inference.predictor import Predictor, set_threads
from deepmrseg_bids.system import prepare_process
from deepmrseg_bids.tasks import wml
from deepmrseg_bids.tasks.coregistration import Pair, pair_scans
from deepmrseg_bids.tasks.flair_slices import prepare_pair, slice_grid
from deepmrseg_bids.tasks.lesions import drop_specks
from deepmrseg_bids.train.config import load_config
from deepmrseg_bids.train.evaluation import tsv
from deepmrseg_bids.train.samples import Sample, load_samples
from deepmrseg_bids.train.scene import Anatomy, Scene, draw_scene
from deepmrseg_bids.train.slice_pairs import prepare
from deepmrseg_bids.train.synthetic_slices import render

CONFIG = load_config("wml")
SPACING = CONFIG.preparation.spacing
CROP = (176, 224)  # a whole axial slice
TALL = 150  # millimetres from the lowest slice to the highest
THICK = (3, 5, 8)
LEAST_ML = 0.5  # of lesions whose volume is compared
MANY_ML = 5.0  # found in thin slices: the summary has a line for such loads
SEED = 5


def anatomies(data: Path, cache: Path | None) -> list[tuple[str, Anatomy]]:
    """The label maps, by name."""
    found = []
    for path in sorted((data / "labelmaps").glob("*_dseg.nii.gz")):
        name = path.name.split("_dseg")[0]
        sample = Sample(name, name, {}, path, lesions=data / "wml" / "lesions")
        ready = prepare(sample, CONFIG, cache)
        assert isinstance(ready, Anatomy)
        found.append((name, ready))
    return found


def axial_scene(rng: np.random.Generator, anatomy: Anatomy, *, healthy: bool) -> Scene:
    """A head as drawn in training, cut in axial slices, with its T1w."""
    pairs = dataclasses.replace(CONFIG.pairs, healthy=1.0 if healthy else 0.0, drop_t1w=0.0)
    augment = dataclasses.replace(CONFIG.augment, elastic_mm=0.0)
    while True:
        scene = draw_scene(rng, anatomy, pairs, augment)
        if scene.geometry.frame[2, 0] > 0.9:
            middle = anatomy.places.mean(axis=0).astype(float)
            geometry = dataclasses.replace(scene.geometry, centre=middle)
            return dataclasses.replace(scene, geometry=geometry)


def whole_head(
    anatomy: Anatomy, scene: Scene, thickness: float
) -> tuple[NDArray[np.float32], NDArray[np.uint8], Grid]:
    """(2, slices, *CROP), the lesions (slices, *CROP), and their grid."""
    count, lies = int(TALL / thickness), scene.geometry
    images, targets = [], []
    for k in range(count):
        away = (k - (count - 1) / 2) * thickness
        cut = dataclasses.replace(
            scene,
            geometry=dataclasses.replace(
                lies, centre=lies.centre + lies.frame[:, 0] * away, thickness=thickness
            ),
            seed=scene.seed + k if lies.lesions is None else scene.seed,
        )
        image, target = render(anatomy, cut, CROP)
        images.append(image)
        targets.append(target)
    affine = np.zeros((4, 4))
    affine[2, 0], affine[0, 1], affine[1, 2], affine[3, 3] = thickness, 1, 1, 1
    grid = Grid((count, *CROP), affine)
    return np.stack(images, axis=1), np.stack(targets), grid


def millilitres(
    predictor: Predictor, image: NDArray[np.float32], grid: Grid, *, alone: bool = False
) -> float:
    """The volume of lesions in prepared slices; ``alone``: without the T1w."""
    if alone:
        image = np.stack([image[0], np.full_like(image[1], OUTSIDE)])
    answer = predictor.slices(image, mirrored=True)
    wml.weigh(answer, np.ones(answer.shape[1:], dtype=bool), grid, predictor.bundle)
    found = answer.argmax(axis=0) > 0
    chosen = drop_specks(found & (image[0] > OUTSIDE), grid)
    return float(chosen.sum()) * grid.voxel_volume / 1000


def false_lesions(
    heads: list[tuple[str, Anatomy]], predictor: Predictor
) -> list[dict[str, object]]:
    """What is found in heads that have no lesions."""
    rng = np.random.default_rng(SEED)
    rows: list[dict[str, object]] = []
    for name, anatomy in heads:
        scene = axial_scene(rng, anatomy, healthy=True)
        image, target, grid = whole_head(anatomy, scene, max(scene.geometry.thickness, 2.0))
        assert not target.any()
        rows.append(
            {
                "head": name,
                "slice_mm": grid.spacing[0],
                "false_ml": millilitres(predictor, image, grid),
                "false_ml_flair_alone": millilitres(predictor, image, grid, alone=True),
            }
        )
        print(rows[-1], flush=True)
    return rows


def averaged(image: NDArray[np.float32], factor: int) -> NDArray[np.float32]:
    """So many slices (the first axis but one of space) averaged into one."""
    count = image.shape[-3] // factor
    shape = (*image.shape[:-3], count, factor, *image.shape[-2:])
    mean: NDArray[np.float32] = image[..., : count * factor, :, :].reshape(shape).mean(axis=-3)
    return mean


def thicker(volume: Volume, factor: int) -> Volume:
    """The scan with axial slices averaged."""
    axis = int(np.argmax(np.abs(volume.grid.affine[2, :3])))
    data = np.moveaxis(averaged(np.moveaxis(volume.data, axis, 0), factor), 0, axis)
    affine = volume.grid.affine.copy()
    affine[:3, 3] += affine[:3, axis] * (factor - 1) / 2
    affine[:3, axis] *= factor
    return Volume(data, Grid((data.shape[0], data.shape[1], data.shape[2]), affine))


def thick_slices(
    data: Path, heads: list[tuple[str, Anatomy]], predictor: Predictor, clinical: Path
) -> list[dict[str, object]]:
    """Volumes in thin slices, and after averaging to thick ones."""
    brain = Predictor(ModelBundle.shipped("brain"))
    rows: list[dict[str, object]] = []
    for sample in load_samples(data / "wml" / "consensus" / "samples.tsv"):
        t1w, flair = (read_volume(sample.images[modality]) for modality in ("T1w", "FLAIR"))
        found = {1: consensus_ml(t1w, flair, predictor)}
        found |= {n: consensus_ml(t1w, thicker(flair, n), predictor) for n in THICK}
        rows.append(moved(sample.sample_id, found))
    for sample in load_samples(clinical):
        t1w, flair = (read_volume(sample.images[modality]) for modality in ("T1w", "FLAIR"))
        pair = pair_scans(flair, t1w, brain)
        found = {1: paired_ml(pair, 1, predictor)}
        found |= {n: paired_ml(pair, n // 2 + n % 2, predictor) for n in THICK}
        rows.append(moved(sample.sample_id, found))
    rng, more = np.random.default_rng(SEED), np.random.default_rng(SEED)
    for name, anatomy, many in [(*head, many) for many in (False, True) for head in heads[::2]]:
        image, grid = ill_head(more if many else rng, anatomy, MANY_ML if many else 0.0)
        found = {1: millilitres(predictor, image, grid)}
        for n in THICK:
            thick = averaged(image, n)
            affine = grid.affine @ np.diag([n, 1, 1, 1])
            there = Grid((thick.shape[1], *CROP), affine)
            found[n] = millilitres(predictor, thick, there)
        rows.append(moved(name, found))
    return rows


def ill_head(
    rng: np.random.Generator, anatomy: Anatomy, least_ml: float
) -> tuple[NDArray[np.float32], Grid]:
    """A head with lesions in slices of 1 mm, with at least so many of them."""
    while True:
        scene = axial_scene(rng, anatomy, healthy=False)
        image, target, grid = whole_head(anatomy, scene, 1.0)
        if target.sum() / 1000 >= least_ml:
            return image, grid


def paired_ml(pair: Pair, factor: int, predictor: Predictor) -> float:
    """The volume in two raw scans, the slices of the FLAIR averaged."""
    flair = thicker(pair.flair, factor)
    return brain_ml(flair, pair.t1w, pair.brain.mask_on, predictor, rigid=pair.rigid)


def consensus_ml(t1w: Volume, flair: Volume, predictor: Predictor) -> float:
    """The volume in two brain-extracted scans that lie in one space."""
    inside = ndimage.binary_fill_holes(flair.data > 0).astype(np.float32)

    def mask_on(grid: Grid) -> NDArray[np.bool_]:
        return np.asarray(resample(inside, flair.grid, grid) > 0.5)

    return brain_ml(flair, t1w, mask_on, predictor)


def brain_ml(
    flair: Volume,
    t1w: Volume | None,
    mask_on: Callable[[Grid], NDArray[np.bool_]],
    predictor: Predictor,
    *,
    rigid: NDArray[np.float64] | None = None,
) -> float:
    """The volume in the brain of a FLAIR, with its T1w laid on it."""
    grid = slice_grid(flair.grid, mask_on(flair.grid), spacing=SPACING)
    image = prepare_pair(flair, t1w, mask_on(grid), grid, rigid=rigid)
    return millilitres(predictor, image, grid)


def moved(name: str, found: dict[int, float]) -> dict[str, object]:
    """A row: volumes, and by which part they moved."""
    row: dict[str, object] = {"head": name}
    row |= {f"ml_{n}mm": value for n, value in found.items()}
    whole = found[1] if found[1] >= LEAST_ML else np.nan  # of next to nothing there is no part
    row |= {f"moved_{n}mm": found[n] / whole - 1 for n in THICK}
    print(row, flush=True)
    return row


def median(rows: list[dict[str, object]], column: str) -> float:
    return float(np.nanmedian([abs(float(str(row[column]))) for row in rows]))


def main() -> None:
    parser = argparse.ArgumentParser(description="False lesions, and thick slices.")
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--clinical", type=Path, required=True, metavar="SAMPLES.tsv",
                        help="raw pairs of 2 mm")  # fmt: skip
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--omp-nthreads", type=int, default=2)
    args = parser.parse_args()
    prepare_process()
    set_threads(args.omp_nthreads)
    bundle = ModelBundle.open(args.model) if args.model else ModelBundle.shipped("wml")
    predictor, data = Predictor(bundle), args.data.resolve()
    heads = anatomies(data, args.cache)
    args.out.mkdir(parents=True, exist_ok=True)
    tables = {
        "false_lesions": false_lesions(heads, predictor),
        "thick_slices": thick_slices(data, heads, predictor, args.clinical),
    }
    for name, rows in tables.items():
        (args.out / f"{name}.tsv").write_text(tsv(tuple(rows[0]), rows), encoding="utf-8")
    clean, thick = tables["false_lesions"], tables["thick_slices"]
    print(f"false lesions, median of {len(clean)} heads: {median(clean, 'false_ml'):.2f} ml, "
          f"FLAIR alone {median(clean, 'false_ml_flair_alone'):.2f} ml")  # fmt: skip
    real = [row for row in thick if "sub-" in str(row["head"])]
    for what, rows in (("real", real), ("synthetic", [row for row in thick if row not in real])):
        many = [row for row in rows if float(str(row["ml_1mm"])) >= MANY_ML]
        few = [row for row in rows if row not in many]
        for load, some in ((f"from {MANY_ML:g} ml", many), (f"below {MANY_ML:g} ml", few)):
            moves = ", ".join(f"{n} mm {100 * median(some, f'moved_{n}mm'):.1f} %" for n in THICK)
            print(f"volume moves, median of {len(some)} ({what}, {load}): {moves}")


if __name__ == "__main__":
    main()

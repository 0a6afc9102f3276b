"""False and missing alarms of the check whether a FLAIR has the contrast of one.

    python benchmarks/flair_guard.py DATA [--every N]

All FLAIRs and T1ws of ``DATA`` (of ``wml/``, ``bids_ms/``; T1ws also of ``heads/``, ``study/``,
``deepbrain/`` and ``bids_highres/``, every Nth of the three large sets) are given as FLAIR. Beside
each scan as it is, its variants: 2 and 4 mm of the rim of the brain lost, as in a tight
extraction; slices of 6 and 8 mm; lesions of 30 and 60 ml around the ventricles (FLAIRs only). T2w
and PD images are not at hand: both are made from T1ws, whose fluid becomes the brightest, or as
bright as tissue. Then T1w and FLAIR of each session are compared as they are and exchanged.
Printed is how many of each kind get the error. About a quarter of an hour on two cores.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from deepmrseg_bids.imaging.grid import Array, Grid, resample
from deepmrseg_bids.imaging.nifti import read_volume
from deepmrseg_bids.inference.predictor import PredictorPool
from deepmrseg_bids.tasks.brain import find_brain
from deepmrseg_bids.tasks.flair_contrast import check_flair, tissue_step

PAIRED = ("wml/clinical", "wml/consensus", "wml/manual", "bids_ms")
LARGE = ("study", "heads", "deepbrain")
LESIONS_ML = (30, 60)

Mask = NDArray[np.bool_]


def scans(data: Path, every: int) -> Iterator[tuple[str, Path]]:
    """Modality and path of each scan."""
    for folder in (*PAIRED, "bids_highres", *LARGE):
        for modality in ("FLAIR", "T1w"):
            found = sorted((data / folder).glob(f"sub-*/**/*_{modality}.nii.gz"))
            for path in found[:: every if folder in LARGE else 1]:
                yield modality, path


def variants(image: Array, inside: Mask, rng: np.random.Generator | None) -> Iterator[
    tuple[str, Array, Mask]
]:  # fmt: skip
    """The scan in its variants; with lesions if there is a generator."""
    yield "as it is", image, inside
    for steps in (1, 2):
        yield f"rim of {2 * steps} mm lost", image, ndimage.binary_erosion(inside, iterations=steps)
    for slices in (3, 4):
        yield f"slices of {2 * slices} mm", ndimage.uniform_filter1d(image, slices, axis=2), inside
    if rng is not None:
        for ml in LESIONS_ML:
            yield f"lesions of {ml} ml", with_lesions(image, inside, ml, rng), inside


def with_lesions(image: Array, inside: Mask, ml: float, rng: np.random.Generator) -> Array:
    """Lesions half as bright again as they were, around the ventricles, with ragged borders."""
    depth = ndimage.distance_transform_edt(np.pad(inside, 1))[1:-1, 1:-1, 1:-1] * 2
    median = np.median(image[inside])
    fluid = inside & (image < 0.6 * median) & (depth > 16)
    if not fluid.any():
        return image
    noise = ndimage.gaussian_filter(rng.standard_normal(image.shape), 2.5)
    away = ndimage.distance_transform_edt(~fluid) * 2 - 4 * noise / noise.std()
    away[~(inside & ~fluid & (depth > 10) & (image > 0.8 * median))] = np.inf
    last = np.sort(away[inside])[int(ml / 0.008)]
    lesion = np.where(np.isfinite(away), np.clip((last + 1 - away) / 2, 0, 1), 0)
    brighter: Array = image * (1 + 0.5 * lesion)
    return brighter


def as_t2w(image: Array, inside: Mask) -> Array:
    level = np.clip(image / np.median(image[inside]), 0.2, None)
    return np.where(inside, np.clip(level**-1.1, 0, 3.5), 0).astype(np.float32)


def as_pd(image: Array, inside: Mask) -> Array:
    level = np.clip(image / np.median(image[inside]), 0.2, 2)
    flat = 1.1 - 0.15 * level + 0.1 * np.minimum(level, 0.8)
    return np.where(inside, flat, 0).astype(np.float32)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--every", type=int, default=4)
    args = parser.parse_args()
    predictor = PredictorPool({})("brain")
    rng = np.random.default_rng(1)
    alarms: Counter[tuple[str, str]] = Counter()
    total: Counter[tuple[str, str]] = Counter()
    steps: dict[tuple[str, str], float] = {}
    for modality, path in scans(args.data, args.every):
        volume = read_volume(path, force_header=True)
        brain = find_brain(volume, predictor)
        image, inside = resample(volume.data, volume.grid, brain.grid), brain.probability > 0.5
        kinds = {modality: image}
        if modality == "T1w":
            kinds |= {"T2w-like": as_t2w(image, inside), "PD-like": as_pd(image, inside)}
        for kind, one in kinds.items():
            drawn = list(variants(one, inside, rng if kind == "FLAIR" else None))
            if kind not in ("FLAIR", "T1w"):
                drawn = drawn[:3]  # nothing is known of what surrounds the brain
            for variant, picture, mask in drawn:
                total[kind, variant] += 1
                if found := check_flair(picture, mask, brain.grid):
                    alarms[kind, variant] += 1
                    print(f"{path.name}, {kind}, {variant}: {found[0].message}", flush=True)
        if any(folder in str(path) for folder in PAIRED):
            steps[str(path).replace(f"_{modality}.nii.gz", ""), modality] = tissue_step(
                image, inside, Grid(brain.grid.shape, brain.grid.affine)
            )
    for kind, variant in total:
        print(f"{kind}\t{variant}\t{alarms[kind, variant]} of {total[kind, variant]}")
    pairs = [(steps[stem, "T1w"], flair) for (stem, modality), flair in steps.items()
             if modality == "FLAIR" and (stem, "T1w") in steps]  # fmt: skip
    right = sum(t1w < flair for t1w, flair in pairs)
    swapped = sum(flair < t1w for t1w, flair in pairs)
    print(f"exchanged: reported for {right} of {len(pairs)} right pairs, "
          f"{swapped} of {len(pairs)} exchanged ones")  # fmt: skip


if __name__ == "__main__":
    main()

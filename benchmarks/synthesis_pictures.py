"""Draw the pictures of docs/synthesis.md: synthetic pairs, and how one comes about.

    python benchmarks/synthesis_pictures.py DATA OUT [--cache DIR]

``DATA`` holds ``labelmaps/`` and ``wml/lesions/``; ``OUT`` receives ``synthetic_pairs.png``
and ``synthetic_steps.png``. The pictures show label maps and lesions of the training data, no
scan.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from deepmrseg_bids.train.config import load_config
from deepmrseg_bids.train.samples import Sample
from deepmrseg_bids.train.scene import Anatomy, Scene, draw_scene
from deepmrseg_bids.train.slice_pairs import prepare
from deepmrseg_bids.train.synthetic_slices import render

CONFIG = load_config("wml")
CROP = (160, 192)  # a whole slice
COLUMNS = 6
SEED = 11
CLEAN = {
    "lesions": None, "band": 0.0, "dirty": (0.0, 5.0), "rim": (0.0, 1.0), "halo": 0.0, "flow": 0.0,
    "plexus": 0.0, "grey": 0.0, "thickness": 1.0, "pixel": (1.0, 1.0), "ghost": (0.0, 20, 0),
    "noise": (0.03, 0.03),
    "no_t1w": False, "misplaced": np.zeros(3), "scale": np.ones(2), "shift": np.zeros(2),
    "bias": np.zeros((2, 4, 4), np.float32),
}  # fmt: skip
STEPS = {
    "tissues": (),
    "lesions": ("lesions", "band"),
    "unlabelled\nbrightness": ("dirty", "rim", "halo", "flow", "plexus", "grey"),
    "thick slice": ("thickness",),
    "coarse pixels,\nbias, ghosts, noise": ("pixel", "bias", "ghost", "noise"),
    "T1w displaced": ("misplaced",),
}


def heads(data: Path, cache: Path | None) -> list[Anatomy]:
    """The label maps, ready to make scans of."""
    found = []
    for path in sorted((data / "labelmaps").glob("*_dseg.nii.gz"))[:COLUMNS]:
        name = path.name.split(".")[0]
        sample = Sample(name, name, {}, path, lesions=data / "wml" / "lesions")
        ready = prepare(sample, CONFIG, cache)
        assert isinstance(ready, Anatomy)
        found.append(ready)
    return found


def whole(anatomy: Anatomy, scene: Scene) -> Scene:
    """The scene as a whole slice through the middle of the brain, near its own place."""
    middle = anatomy.places.mean(axis=0)
    across = scene.geometry.frame[:, 0]
    away = float(np.clip((scene.geometry.centre - middle) @ across, -15, 40))
    return changed(scene, {"centre": middle + across * away, "no_t1w": False})


def changed(scene: Scene, fields: dict[str, Any]) -> Scene:
    """The scene with some fields of its parts exchanged."""
    parts = {}
    for name in ("geometry", "contrast", "artifacts"):
        part = getattr(scene, name)
        mine = {key: value for key, value in fields.items() if key in vars(part)}
        parts[name] = dataclasses.replace(part, **mine)
    return dataclasses.replace(scene, **parts)


def show(axes: Axes, image: NDArray[np.float32], target: NDArray[np.uint8] | None = None) -> None:
    """One slice, seen from below (left is right), with the outlines of the lesions."""
    axes.imshow(image.T, origin="lower", cmap="gray", vmin=-3, vmax=4)
    if target is not None and target.any():
        axes.contour(target.T, [0.5], colors="#e6194b", linewidths=0.7)
    axes.set_axis_off()


def rows_of(figure: Figure, names: tuple[str, ...], columns: int) -> NDArray[np.object_]:
    panels: NDArray[np.object_] = figure.subplots(len(names), columns, squeeze=False)
    for row, name in enumerate(names):
        panels[row, 0].text(-0.04, 0.5, name, rotation=90, va="center", ha="right",
                            transform=panels[row, 0].transAxes, fontsize=9)  # fmt: skip
    return panels


def pairs(anatomies: list[Anatomy], out: Path) -> None:
    """A slice of every head, as drawn."""
    rng = np.random.default_rng(SEED)
    figure = Figure(figsize=(1.5 * COLUMNS, 5.4), dpi=85, layout="constrained")
    panels = rows_of(figure, ("FLAIR", "T1w", "target"), COLUMNS)
    for column, anatomy in enumerate(anatomies):
        scene = draw_scene(rng, anatomy, CONFIG.pairs, CONFIG.augment)
        while scene.geometry.lesions is None:
            scene = draw_scene(rng, anatomy, CONFIG.pairs, CONFIG.augment)
        scene = whole(anatomy, scene)
        image, target = render(anatomy, scene, CROP)
        show(panels[0, column], image[0])
        show(panels[1, column], image[1])
        show(panels[2, column], image[0], target)
        panels[0, column].set_title(f"{scene.geometry.thickness:.1f} mm", fontsize=9)
    figure.savefig(out)


def steps(anatomy: Anatomy, out: Path) -> None:
    """One slice, from its tissues to the scan."""
    rng = np.random.default_rng(SEED)
    while True:
        scene = whole(anatomy, draw_scene(rng, anatomy, CONFIG.pairs, CONFIG.augment))
        lies, looks = scene.geometry, scene.contrast
        axial = abs(lies.frame[2, 0]) > 0.9
        if axial and looks.band and scene.artifacts.ghost[0] and looks.flow and lies.thickness > 3:
            break
    figure = Figure(figsize=(1.55 * len(STEPS), 5.5), dpi=90, layout="constrained")
    panels = rows_of(figure, ("FLAIR", "T1w", "target"), len(STEPS))
    plain = dict(CLEAN)
    for column, (title, fields) in enumerate(STEPS.items()):
        for name in fields:
            plain.pop(name)
        image, target = render(anatomy, changed(scene, plain), CROP)
        show(panels[0, column], image[0])
        show(panels[1, column], image[1])
        show(panels[2, column], image[0], target)
        panels[0, column].set_title(title, fontsize=9)
    figure.savefig(out)


def main() -> None:
    parser = argparse.ArgumentParser(description="Draw the pictures of docs/synthesis.md.")
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--cache", type=Path)
    args = parser.parse_args()
    anatomies = heads(args.data.resolve(), args.cache)
    pairs(anatomies, args.out / "synthetic_pairs.png")
    steps(anatomies[0], args.out / "synthetic_steps.png")


if __name__ == "__main__":
    main()

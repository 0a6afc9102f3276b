"""All random choices for a synthetic slice of T1w and FLAIR, as plain values.

``draw_scene`` turns a random generator into a :class:`Scene`: how the slice lies in the head
and where the lesions do (:class:`Geometry`), what each tissue looks like (:class:`Contrast`),
and what the scanner does (:class:`Artifacts`). Equal states of the generator give equal scenes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from deepmrseg_bids.train.config import AugmentConfig, PairConfig
from deepmrseg_bids.train.lesion_bank import LesionBank, load_lesions
from deepmrseg_bids.train.tissues import HEAD_TISSUES, TISSUES, Tissue

__all__ = ["T1W_LEVELS", "Anatomy", "Artifacts", "Contrast", "Geometry", "Scene", "draw_scene"]

T1W_LEVELS = (0.25, 0.65, 1.0)
"""Fluid, grey and white matter in a texture."""
_CONTROL = 6  # points an edge of the smooth fields


@dataclass(frozen=True, eq=False)
class Anatomy:
    """A head as a label map, ready for :func:`render`.

    Attributes:
        codes: (I, J, K) int16 FreeSurfer codes at 1 mm, RAS.
        target: (I, J, K) uint8 classes; None where the lesions are what is looked for.
        near: (I, J, K) uint8, half millimetres from the ventricles.
        to_mni: (4, 4), voxels to millimetres in MNI152; None without lesions.
        places: (N, 3) int16, some voxels of the brain.
        shares: (tissues,) how much of the brain each tissue is.
        lesions: where the lesions come from.
        texture: (I, J, K) float16, a T1w of the head; ``T1W_LEVELS`` are fluid, grey and white
            matter in it. None for a head of flat tissues.
    """

    codes: NDArray[np.int16]
    target: NDArray[np.uint8] | None
    near: NDArray[np.uint8]
    to_mni: NDArray[np.float64] | None
    places: NDArray[np.int16]
    shares: NDArray[np.float64]
    lesions: Path | None
    weight: float = 1.0
    texture: NDArray[np.float16] | None = None


@dataclass(frozen=True, eq=False)
class Geometry:
    """How a slice lies in the head, and where the lesions do; lengths are millimetres.

    Attributes:
        frame: (3, 3) columns: across the slice, first and second axis in it, in voxels of
            the label map a millimetre.
        centre: (3,) voxel of the label map in the middle of the crop.
        elastic: (2, c, c) displacement within the slice at the control points.
        lesions: flat voxels of the lesions on their own grid; None for none.
        moved: (3,) by which the lesions are moved.
    """

    frame: NDArray[np.float64]
    centre: NDArray[np.float64]
    thickness: float
    elastic: NDArray[np.float32]
    lesions: NDArray[np.int64] | None
    moved: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Contrast:
    """What tissues look like, and which of them may be a lesion; white matter is 1.

    Attributes:
        means: (tissues,) mean of each tissue, in the FLAIR and in the T1w.
        bright, dark: a lesion in the FLAIR and in the T1w.
        band: how far labelled lesions around the ventricles reach, millimetres; 0 for none.
        dirty: (strength, reach) of the unlabelled brightness around the ventricles.
        rim: (strength, width) of unlabelled thin bands along the ventricles.
        caps: (strength, reach) of unlabelled soft caps on the ventricles.
        halo: strength of the unlabelled brightness around lesions.
        edge: sigma of the soft edges of lesions, millimetres.
        flow: strength of bright fluid.
        plexus: brightness of spots in the ventricles, as of the choroid plexus.
        grey: by which part places of grey matter are brighter in the FLAIR than the rest of it.
        deep: lesions are allowed in deep grey matter, too; cortical: in the cortex.
    """

    means: tuple[NDArray[np.float32], NDArray[np.float32]]
    bright: float
    dark: float
    band: float
    dirty: tuple[float, float]
    rim: tuple[float, float]
    caps: tuple[float, float]
    halo: float
    edge: float
    flow: float
    plexus: float
    grey: float
    deep: bool
    cortical: bool


@dataclass(frozen=True, eq=False)
class Artifacts:
    """What the scanner and the preparation add.

    Attributes:
        pixel: (2,) edge of the pixels of FLAIR and T1w, millimetres.
        ghost: (strength, shift in pixels, axis).
        misplaced: (3,) angle in radians and shift in pixels of the T1w.
        outline: how the brain mask was made: with the outer fluid, and grown by how much.
        bias: (2, c, c) logarithm of the multiplicative fields.
        shading: (2, 2, 2) for each image, along each axis: logarithm of the brightness, its slope
            per 100 mm, and its curvature per 100 mm squared.
        noise: (2,) standard deviations.
        scale, shift: (2,) of the scaled intensities.
        no_t1w: the T1w is left out.
    """

    pixel: tuple[float, float]
    ghost: tuple[float, int, int]
    misplaced: NDArray[np.float64]
    outline: tuple[bool, int]
    bias: NDArray[np.float32]
    shading: NDArray[np.float64]
    noise: tuple[float, float]
    scale: NDArray[np.float64]
    shift: NDArray[np.float64]
    no_t1w: bool


@dataclass(frozen=True, eq=False)
class Scene:
    """All choices for one synthetic slice; ``seed`` is that of the smooth fields and the noise."""

    geometry: Geometry
    contrast: Contrast
    artifacts: Artifacts
    seed: int


class _Present(NamedTuple):
    """Which of what only some slices have is there; in the order in which it is drawn."""

    band: bool
    rim: bool
    halo: bool
    flow: bool
    deep: bool
    cortical: bool
    ghost: bool
    grey: bool
    plexus: bool


def draw_scene(
    rng: np.random.Generator, anatomy: Anatomy, pairs: PairConfig, augment: AugmentConfig
) -> Scene:
    """Draw all choices; the same generator state gives the same choices."""
    means = _means(rng)
    moved = rng.uniform(-3, 3, 3)
    centre = anatomy.places[int(rng.integers(len(anatomy.places)))].astype(np.float64)
    ill = anatomy.lesions is not None and rng.random() >= pairs.healthy
    lesions = None
    if ill and anatomy.lesions is not None and anatomy.to_mni is not None:
        bank = load_lesions(anatomy.lesions)
        lesions = bank.draw(rng)
        if rng.random() < 0.75:
            centre = _lesion_place(rng, bank, lesions, moved, anatomy.to_mni)
    frame = _frame(rng, augment)
    centre = centre + frame[:, 1:] @ rng.uniform(-1, 1, 2) * augment.shift_mm
    thickness = 1.0 if rng.random() < 0.35 else float(rng.uniform(1, max(pairs.thick_mm, 1)))
    above = float(np.exp(rng.uniform(*np.log(pairs.lesion))))
    chances = (pairs.band, 0.6, 0.6, pairs.flow, 0.3, 0.2, 0.3, 0.8, pairs.plexus)
    present = _Present(*(rng.random(9) < chances).tolist())
    if not ill:
        present = present._replace(band=False)
    elastic = (rng.standard_normal((2, _CONTROL, _CONTROL)) * augment.elastic_mm).astype("f4")
    return Scene(
        Geometry(frame, centre, thickness, elastic, lesions, moved),
        _draw_contrast(rng, means, above, present, pairs),
        _draw_artifacts(rng, present.ghost, pairs, augment),
        seed=int(rng.integers(2**31)),
    )


def _lesion_place(
    rng: np.random.Generator,
    bank: LesionBank,
    lesions: NDArray[np.int64],
    moved: NDArray[np.float64],
    to_mni: NDArray[np.float64],
) -> NDArray[np.float64]:
    """(3,) where one of the lesions lies, in voxels of the label map."""
    voxel = np.unravel_index(lesions[int(rng.integers(len(lesions)))], bank.grid.shape)
    point = bank.grid.to_world([[float(v) for v in voxel]])[0] + moved
    inverse = np.linalg.inv(to_mni)
    place: NDArray[np.float64] = inverse[:3, :3] @ point + inverse[:3, 3]
    return place


def _draw_contrast(
    rng: np.random.Generator,
    means: tuple[NDArray[np.float32], NDArray[np.float32]],
    above: float,
    present: _Present,
    pairs: PairConfig,
) -> Contrast:
    """``above``: how much brighter than grey matter a lesion is."""
    flair, t1w = means
    return Contrast(
        means=means,
        bright=float(flair[Tissue.CORTEX]) + above,
        dark=float(rng.uniform(t1w[Tissue.CORTEX] - 0.2, 0.5 + 0.5 * t1w[Tissue.CORTEX])),
        band=float(rng.uniform(2, 9)) if present.band else 0.0,
        dirty=(float(rng.uniform(0, pairs.dirty)) * above, float(rng.uniform(3, 12))),
        rim=(
            _if(present.rim, rng.uniform(min(0.1, pairs.rim), pairs.rim) * above),
            float(rng.uniform(0.7, 2)),
        ),
        caps=(float(rng.uniform(0, pairs.caps)) * above, float(rng.uniform(2, 7))),
        halo=_if(present.halo, rng.uniform(0, 0.3)),
        edge=float(rng.uniform(0.3, 0.8)),
        flow=_if(present.flow, rng.uniform(0.2, 1.0)),
        plexus=_if(present.plexus, rng.uniform(0.3, 1.4)),
        grey=_if(present.grey, rng.uniform(0, pairs.grey)),
        deep=present.deep,
        cortical=present.cortical,
    )


def _if(present: bool, strength: float) -> np.float64:
    """The strength or none; what is computed with it is computed in double precision."""
    return np.float64(strength if present else 0.0)


def _draw_artifacts(
    rng: np.random.Generator, ghosted: bool, pairs: PairConfig, augment: AugmentConfig
) -> Artifacts:
    return Artifacts(
        pixel=(float(rng.uniform(0.7, 2.1)), float(rng.uniform(0.7, 2.1))),
        ghost=(
            _if(ghosted, rng.uniform(0, pairs.ghost)),
            int(rng.integers(8, 50)),
            int(rng.integers(2)),
        ),
        misplaced=rng.normal(0, 1, 3)
        * [np.radians(pairs.misplaced_deg), pairs.misplaced_mm, pairs.misplaced_mm],
        outline=(bool(rng.random() < 0.4), int(rng.integers(0, 4))),
        bias=(rng.uniform(-1, 1, (2, 4, 4)) * augment.bias * rng.random()).astype("f4"),
        shading=np.stack([_shading(rng, augment.shading) for _ in range(2)]),
        noise=(float(rng.random() * augment.noise), float(rng.random() * augment.noise)),
        scale=np.exp(rng.uniform(-1, 1, 2) * augment.contrast),
        shift=rng.uniform(-1, 1, 2) * augment.brightness,
        no_t1w=bool(rng.random() < pairs.drop_t1w),
    )


def _shading(rng: np.random.Generator, most: float) -> NDArray[np.float64]:
    """(2, 2) slopes in any direction; curvatures alike, from the middle outwards."""
    angle, slope = rng.uniform(0, 2 * np.pi), rng.random() * most
    slopes = np.array([np.cos(angle), np.sin(angle)]) * slope
    return np.stack([slopes, np.full(2, rng.uniform(-1, 1) * most)])


def _frame(rng: np.random.Generator, augment: AugmentConfig) -> NDArray[np.float64]:
    """Axial, coronal or sagittal, tilted and scaled."""
    kind = rng.random()
    order = (2, 0, 1) if kind < 0.6 else (0, 1, 2) if kind < 0.85 else (1, 0, 2)
    upright = np.eye(3)[:, list(order)]
    angles = np.radians(rng.uniform(-1, 1, 3) * augment.rotate_deg)
    (a, b, c), (d, e, f) = np.cos(angles), np.sin(angles)
    turn = (
        np.array([[1, 0, 0], [0, a, -d], [0, d, a]])
        @ np.array([[b, 0, e], [0, 1, 0], [-e, 0, b]])
        @ np.array([[c, -f, 0], [f, c, 0], [0, 0, 1]])
    )
    frame: NDArray[np.float64] = (
        turn @ upright @ np.diag([1.0, *np.exp(rng.uniform(-1, 1, 2) * augment.scale)])
    )
    if rng.random() < augment.flip:
        frame[0] *= -1  # the mirror image of the head
    return frame


def _means(rng: np.random.Generator) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """What the tissues look like in FLAIR and T1w; white matter is 1."""
    u = rng.uniform
    flair, t1w = np.zeros(TISSUES, np.float32), np.zeros(TISSUES, np.float32)
    flair[Tissue.HEAD :] = u(0.05, 1.8, HEAD_TISSUES)
    t1w[Tissue.HEAD :] = u(0.05, 1.5, HEAD_TISSUES)
    grey, fluid = u(1.08, 1.45), u(0.08, 0.5)
    flair[:Tissue.HEAD] = (
        u(0, 0.06), 1.0, grey, fluid, fluid + u(0, 0.25), 1 + (grey - 1) * u(0.3, 0.9),
        1 + (grey - 1) * u(0.1, 0.6), u(0.75, 1.02), grey * u(1.0, 1.12), u(0.95, 1.2),
        u(0.92, 1.12), 1 + (grey - 1) * u(0.5, 1.1), u(0.9, 1.1), u(0.5, 1.3),
    )  # fmt: skip
    if rng.random() < 0.75:
        grey, fluid = u(0.55, 0.82), u(0.12, 0.4)
    else:  # spin echo
        grey, fluid = u(0.8, 0.96), u(0.3, 0.65)
    t1w[:Tissue.HEAD] = (
        u(0, 0.06), 1.0, grey, fluid, fluid + u(0, 0.15), grey + (1 - grey) * u(0.1, 0.45),
        grey + (1 - grey) * u(0.35, 0.75), grey + (1 - grey) * u(0.6, 0.95), grey * u(0.95, 1.05),
        u(0.88, 1.0), u(0.93, 1.03), grey * u(0.95, 1.1), u(0.8, 0.98), u(0.4, 1.0),
    )  # fmt: skip
    return flair, t1w

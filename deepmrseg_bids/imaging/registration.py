"""Bringing images onto one another: rigid between two scans, and a T1w onto a template.

The only user of antspyx. A transform is the map that resampling needs: from points of the
fixed space to points of the moving one (RAS+ millimetres). ITK runs on one thread with one
seed, so the same images give the same transform, whatever the number of cores.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from deepmrseg_bids.errors import RegistrationError
from deepmrseg_bids.imaging.grid import Array, Grid, canonical_grid, centred_grid, resample, sample
from deepmrseg_bids.imaging.hdf5_timestamps import forget_times
from deepmrseg_bids.imaging.morphology import dilated, eroded
from deepmrseg_bids.imaging.nifti import Volume
from deepmrseg_bids.wording import counted

__all__ = [
    "METHOD",
    "Quality",
    "RigidFit",
    "TemplateFit",
    "ants_version",
    "carry_points",
    "compare",
    "edge_agreement",
    "itk_text",
    "register_rigid",
    "register_to_template",
]

METHOD = {
    "Type": "affine, then SyN",
    "Metric": "mutual information",
    "FinestSpacingMM": 2.0,
    "Iterations": [60, 40, 5],
    "Seed": 1,
}
"""How :func:`register_to_template` works, for sidecars."""

_SPACING = 2.0  # millimetres of the images that are registered
_MARGIN = 12.0  # millimetres around a brain
_ITERATIONS = (60, 40, 5)  # of SyN at 4, 2 and 1 times the spacing
_RIGID_ITERATIONS = (200, 100, 50, 5)
_BINS = 32
_SEED = 1
_RAMP = 4096.0  # half the edge of a cube that holds every scanner, millimetres
_LEAST_CORRELATION, _LEAST_OVERLAP = 0.5, 0.85  # below, the scan does not lie on the template


@dataclass(frozen=True)
class Quality:
    """How well a moving image lies on a fixed one, within the brain where it is known.

    Attributes:
        correlation: of the intensities, -1 to 1; low between contrasts, however well they lie.
        information: what each tells of the other, 0 (nothing) to 1 (all): the mutual
            information over the mean of the two entropies. For images of any contrast.
        overlap: Dice of the two brain masks; None where one of them is not known.
        edges: see :func:`edge_agreement`; None where it was not asked for.
    """

    correlation: float
    information: float
    overlap: float | None = None
    edges: float | None = None

    def to_json(self) -> dict[str, float]:
        """As an entry of a sidecar."""
        names = {"Correlation": self.correlation, "Information": self.information}
        if self.overlap is not None:
            names["BrainOverlap"] = self.overlap
        if self.edges is not None:
            names["EdgeAgreement"] = self.edges
        return {name: round(value, 4) for name, value in names.items()}


@dataclass(frozen=True, eq=False)
class RigidFit:
    """Where a scan lies in the space of another one.

    Attributes:
        matrix: (4, 4), points of the fixed space to points of the moving one.
        quality: with this transform.
        before: with the positions in the headers alone.
    """

    matrix: NDArray[np.float64]
    quality: Quality
    before: Quality

    @cached_property
    def angle(self) -> float:
        """By how much it turns, in degrees."""
        cosine = (float(np.trace(self.matrix[:3, :3])) - 1) / 2
        return float(np.degrees(np.arccos(np.clip(cosine, -1, 1))))

    def place(self, grid: Grid) -> Grid:
        """The voxels of the moving scan where they lie in the fixed space.

        ``resample(moving.data, fit.place(moving.grid), fixed.grid)`` brings the moving scan
        onto the fixed one; with the grids exchanged, labels on the fixed one go back.
        """
        return Grid(grid.shape, np.linalg.inv(self.matrix) @ grid.affine)


@dataclass(frozen=True)
class TemplateFit:
    """A scan on a template: two files of composite transforms, as antsApplyTransforms takes them.

    Attributes:
        forward: brings the scan onto the template.
        inverse: brings the template onto the scan.
    """

    forward: Path
    inverse: Path
    quality: Quality


def ants_version() -> str:
    """The version of antspyx."""
    return version("antspyx")


def register_rigid(
    moving: Volume,
    fixed: Volume,
    *,
    mask: NDArray[np.bool_] | None = None,
    spacing: float = _SPACING,
) -> RigidFit:
    """Turn and shift one scan of a head onto another one, of any contrast.

    It starts from the positions in the headers or from the two centres of mass, whichever
    lies better.

    Args:
        mask: brain or head of ``fixed``, on its grid: where the images are compared; without
            it, where ``fixed`` is not air.
        spacing: of the copies that are registered, in millimetres.

    Raises:
        RegistrationError: the images do not overlap, or the search breaks off.
    """
    still, still_grid = _whole(fixed, spacing)
    moved, moved_grid = _whole(moving, spacing)
    inside = still > 0.1 if mask is None else _on(mask, fixed.grid, still_grid)
    middles = [_middle(image, grid) for image, grid in ((still, still_grid), (moved, moved_grid))]
    shifted = np.eye(4)
    shifted[:3, 3] = middles[1] - middles[0]

    def judge(matrix: NDArray[np.float64]) -> Quality:
        there = Grid(moved_grid.shape, np.linalg.inv(matrix) @ moved_grid.affine)
        image = resample(moved, there, still_grid)
        quality = compare(image, still, inside)
        return replace(quality, edges=edge_agreement(image, still, inside))

    starts = [np.eye(4), shifted]
    scores = [judge(start) for start in starts]
    best = int(np.argmax([score.information for score in scores]))
    ants = _ants()
    with tempfile.TemporaryDirectory(prefix="deepmrseg-ants-") as folder:
        first = _write_affine(Path(folder) / "start.mat", starts[best])
        found = _run_ants(
            _image(still, still_grid),
            _image(moved, moved_grid),
            type_of_transform="Rigid",
            initial_transform=[str(first)],
            mask=_image(_grown(inside), still_grid),
            mask_all_stages=True,
            aff_random_sampling_rate=0.25,
            aff_iterations=_RIGID_ITERATIONS,
            aff_shrink_factors=(4, 3, 2, 1),
            aff_smoothing_sigmas=(3, 2, 1, 0),
            outprefix=str(Path(folder) / "rigid_"),
        )
        matrix = _matrix([ants.read_transform(name) for name in found["fwdtransforms"]])
    quality = judge(matrix)
    if quality.information < scores[best].information:  # it may not get worse
        matrix, quality = starts[best], scores[best]
    return RigidFit(matrix, quality, scores[0])


def register_to_template(
    t1w: Volume,
    brain: NDArray[np.bool_],
    template: Volume,
    template_brain: NDArray[np.bool_],
    *,
    folder: Path,
) -> TemplateFit:
    """Warp a T1w onto a template: affine, then SyN, brain to brain.

    Both are registered at 2 mm, or at the spacing of a coarser template.

    Args:
        brain: mask on the grid of ``t1w``.
        template: its T1w, of the head or the brain alone.
        template_brain: mask on the grid of ``template``.
        folder: receives the transforms, ``Composite.h5`` and ``InverseComposite.h5``.

    Raises:
        RegistrationError: the search breaks off, or the scan does not lie on the template.
    """
    spacing = max(_SPACING, *template.grid.spacing)
    fixed, fixed_brain, fixed_grid = _brain_alone(template, template_brain, spacing)
    moving, moving_brain, moving_grid = _brain_alone(t1w, brain, spacing)
    found = _run_ants(
        _image(fixed, fixed_grid),
        _image(moving, moving_grid),
        type_of_transform="SyN",
        reg_iterations=_ITERATIONS,
        write_composite_transform=True,
        outprefix=f"{folder}{os.sep}",
    )
    forward, inverse = Path(found["fwdtransforms"]), Path(found["invtransforms"])
    for path in (forward, inverse):
        forget_times(path)
    points = carry_points(forward, fixed_grid)
    inside = fixed_brain > 0.5
    warped = sample(moving, moving_grid, points)
    quality = compare(
        warped, fixed, inside, masks=(sample(moving_brain, moving_grid, points) > 0.5, inside)
    )
    if quality.correlation < _LEAST_CORRELATION or (quality.overlap or 0) < _LEAST_OVERLAP:
        raise RegistrationError(
            f"{t1w.source or 'the image'} is not aligned with the template: "
            f"correlation {quality.correlation:.2f} (at least {_LEAST_CORRELATION} "
            f"expected), overlap of the brains {quality.overlap:.2f} (at least "
            f"{_LEAST_OVERLAP}); inspect the brain mask"
        )
    return TemplateFit(forward, inverse, quality)


def carry_points(transform: Path, grid: Grid) -> NDArray[np.float32]:
    """Where each voxel of a grid in the fixed space lies in the moving one.

    Args:
        transform: a file that ANTs can read.

    Returns:
        (3, *grid.shape), RAS+ millimetres.
    """
    ants = _ants()
    target = _image(np.zeros(grid.shape, dtype=np.float32), grid)
    corner = -_RAMP * np.ones(3)
    affine = np.diag([2 * _RAMP, 2 * _RAMP, 2 * _RAMP, 1.0])
    affine[:3, 3] = corner
    cube = Grid((2, 2, 2), affine)
    out = np.empty((3, *grid.shape), dtype=np.float32)
    for axis in range(3):
        # linear interpolation of a coordinate is the coordinate itself
        ramp = corner[axis] + 2 * _RAMP * np.indices((2, 2, 2))[axis]
        moved = ants.apply_transforms(
            target, _image(ramp, cube), [str(transform)], interpolator="linear",
            defaultvalue=_RAMP, singleprecision=False,
        )  # fmt: skip
        out[axis] = moved.numpy()
    return out


def itk_text(matrix: Array) -> str:
    """A transform of RAS+ points as the text that ITK reads (its world is LPS+).

    Given to antsApplyTransforms it resamples an image of the space that ``matrix`` leads to
    onto one of the space that it starts from.
    """
    moved = _FLIP @ matrix @ _FLIP
    numbers = [*moved[:3, :3].ravel(), *moved[:3, 3]]
    parameters = " ".join(f"{number + 0.0:.9g}" for number in numbers)
    return (
        "#Insight Transform File V1.0\n#Transform 0\nTransform: AffineTransform_double_3_3\n"
        f"Parameters: {parameters}\nFixedParameters: 0 0 0\n"
    )


def compare(
    moving: Array,
    fixed: Array,
    inside: NDArray[np.bool_],
    *,
    masks: tuple[NDArray[np.bool_], NDArray[np.bool_]] | None = None,
) -> Quality:
    """How well two images on one grid agree; both are (I, J, K).

    Args:
        inside: where to compare them.
        masks: the two brains, for their overlap.

    >>> image = np.arange(1000.0).reshape(10, 10, 10)
    >>> compare(image, 2 * image, image >= 0).to_json()
    {'Correlation': 1.0, 'Information': 1.0}
    """
    one, other = moving[inside].astype(np.float64), fixed[inside].astype(np.float64)
    overlap = None
    if masks is not None:
        both = int(masks[0].sum()) + int(masks[1].sum())
        overlap = 2 * int((masks[0] & masks[1]).sum()) / both if both else 0.0
    if len(one) < 2 or not one.std() or not other.std():
        return Quality(0.0, 0.0, overlap)
    joint = np.histogram2d(one, other, bins=_BINS)[0] / len(one)
    apart = _entropy(joint.sum(axis=0)) + _entropy(joint.sum(axis=1))
    information = 2 * (1 - _entropy(joint.ravel()) / apart) if apart else 0.0
    correlation = float(np.corrcoef(one, other)[0, 1])
    return Quality(correlation, max(information, 0.0), overlap)


def edge_agreement(moving: Array, fixed: Array, inside: NDArray[np.bool_]) -> float:
    """How well the edges of two images on one grid run along each other, 1/3 to 1.

    The squared cosine between the two gradients, averaged with the product of their lengths
    (normalised gradient fields, Haber & Modersitzki 2006). Whatever the contrasts, the
    edges of one head coincide, those of two heads meet at any angle.

    Args:
        moving, fixed, inside: (I, J, K); the rim of ``inside`` is left out: it is an edge
            in both.
    """
    core = eroded(inside, 2)
    slopes = [
        np.stack(np.gradient(ndimage.gaussian_filter(np.asarray(one, np.float32), 0.5)))
        for one in (moving, fixed)
    ]
    one, other = (slope[:, core] for slope in slopes)
    lengths = np.sqrt((one**2).sum(axis=0) * (other**2).sum(axis=0))
    total = float(lengths.sum())
    if not total:
        return 0.0
    aligned = (one * other).sum(axis=0) ** 2 / np.maximum(lengths, 1e-12)
    return float(aligned.sum()) / total


def _entropy(shares: Array) -> float:
    shares = shares[shares > 0]
    return float(-(shares * np.log(shares)).sum())


def _ants() -> Any:
    """antspyx, on one thread and with one seed (both are read when ITK first runs)."""
    os.environ["ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"] = "1"
    os.environ["ANTS_RANDOM_SEED"] = str(_SEED)
    import ants

    return ants


def _run_ants(fixed: Any, moving: Any, **options: Any) -> dict[str, Any]:
    try:
        found: dict[str, Any] = _ants().registration(fixed, moving, **options)
    except (RuntimeError, ValueError) as error:
        raise RegistrationError(
            f"the registration failed ({error}); do both images show the same head?"
        ) from error
    return found


def _image(data: Array, grid: Grid) -> Any:
    """An image of ANTs, whose world is LPS+."""
    affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ grid.affine
    spacing = np.array(grid.spacing)
    return _ants().from_numpy(
        np.ascontiguousarray(data, dtype=np.float32),
        origin=affine[:3, 3].tolist(),
        spacing=spacing.tolist(),
        direction=affine[:3, :3] / spacing,
    )


_FLIP = np.diag([-1.0, -1.0, 1.0, 1.0])


def _write_affine(path: Path, matrix: NDArray[np.float64]) -> Path:
    """A transform of RAS+ points as a file of ITK."""
    ants = _ants()
    moved = _FLIP @ matrix @ _FLIP
    parameters = [*moved[:3, :3].ravel().tolist(), *moved[:3, 3].tolist()]
    ants.write_transform(
        ants.create_ants_transform(transform_type="AffineTransform", dimension=3,
                                   parameters=parameters, fixed_parameters=[0.0, 0.0, 0.0]),
        str(path),
    )  # fmt: skip
    return path


def _matrix(transforms: Sequence[Any]) -> NDArray[np.float64]:
    """The (4, 4) matrix of linear transforms of ANTs, the last applied first; RAS+."""
    corners = np.vstack([np.zeros(3), 100 * np.eye(3)])
    images = []
    for corner in corners:
        point = corner.tolist()
        for transform in reversed(transforms):
            point = transform.apply_to_point(point)
        images.append(point)
    moved = np.array(images, dtype=np.float64)
    matrix = np.eye(4)
    matrix[:3, :3] = (moved[1:] - moved[0]).T / 100
    matrix[:3, 3] = moved[0]
    turned: NDArray[np.float64] = _FLIP @ matrix @ _FLIP
    return turned


def _whole(volume: Volume, spacing: float) -> tuple[NDArray[np.float32], Grid]:
    """A scan at a coarse spacing, from 0 to 1."""
    grid = canonical_grid(volume.grid, spacing)
    image = resample(volume.data, volume.grid, grid)
    low, high = np.percentile(image, (1, 99.5))
    scaled = np.clip((image - low) / max(float(high - low), 1e-6), 0, 1)
    return scaled.astype(np.float32), grid


def _brain_alone(
    volume: Volume, mask: NDArray[np.bool_], spacing: float
) -> tuple[NDArray[np.float32], NDArray[np.float32], Grid]:
    """A brain at the working spacing, 0 to 1, dark outside; its mask, 0 to 1; their grid."""
    if mask.shape != volume.grid.shape or not mask.any():
        raise RegistrationError(
            f"{volume.source or 'the image'}: a brain mask on its grid {volume.grid.shape} was "
            f"expected, got one of {mask.shape} with {counted(int(mask.sum()), 'voxel')} in it"
        )
    points = volume.grid.to_world(np.argwhere(mask))
    low, high = points.min(axis=0) - _MARGIN, points.max(axis=0) + _MARGIN
    edges = np.ceil((high - low) / spacing).astype(int) + 1
    grid = centred_grid((low + high) / 2, (edges[0], edges[1], edges[2]), spacing)
    image = resample(volume.data, volume.grid, grid)
    inside = resample(mask.astype(np.float32), volume.grid, grid)
    bright = float(np.percentile(image[inside > 0.5], 99.5))
    scaled = np.clip(image / max(bright, 1e-6), 0, 1) * inside
    return scaled.astype(np.float32), inside, grid


def _on(mask: NDArray[np.bool_], source: Grid, target: Grid) -> NDArray[np.bool_]:
    carried: NDArray[np.bool_] = resample(mask.astype(np.float32), source, target) > 0.5
    if not carried.any():
        raise RegistrationError("the mask of the fixed image is empty")
    return carried


def _grown(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """A mask with a rim of 5 voxels: what lies around the brain says where it is, too."""
    return dilated(mask, 5)


def _middle(image: NDArray[np.float32], grid: Grid) -> NDArray[np.float64]:
    """The centre of mass, RAS+ millimetres."""
    middle: NDArray[np.float64] = grid.to_world([ndimage.center_of_mass(image)])[0]
    return middle

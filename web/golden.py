"""What the Python package answers to small made-up inputs: ``python web/golden.py`` writes it.

``web/test/golden.json`` holds the answers; the tests of web/src/lib compare theirs with them. The
inputs are made from a seed, so that the file changes only if the package does.
"""

from __future__ import annotations

import base64
import gzip
import json
import struct
import tempfile
import zlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import nibabel as nib
import numpy as np
from scipy import ndimage

from deepmrseg_bids.bids.tables import write_morph
from deepmrseg_bids.errors import ImageError
from deepmrseg_bids.imaging.air import find_air, with_air_at_zero
from deepmrseg_bids.imaging.brightness import brightness_gradient
from deepmrseg_bids.imaging.grid import (
    Grid,
    axes_of,
    canonical_grid,
    centred_grid,
    covered,
    overlap,
    resample,
)
from deepmrseg_bids.imaging.intensity import brain_coordinates, normalise
from deepmrseg_bids.imaging.labels import Label, LabelTable
from deepmrseg_bids.imaging.nifti import LabelMap, Volume, read_volume, write_labels
from deepmrseg_bids.inference.bundle import Preparation
from deepmrseg_bids.inference.calibration import Calibration
from deepmrseg_bids.inference.predictor import Predictor, window_places
from deepmrseg_bids.session.publish import morph_rows
from deepmrseg_bids.tasks.averaging import average_in
from deepmrseg_bids.tasks.flair_slices import slice_grid
from deepmrseg_bids.tasks.hippocampus import with_coronal_border
from deepmrseg_bids.tasks.hippocampus_search import Search, best_fit
from deepmrseg_bids.tasks.outline import find_outline
from deepmrseg_bids.tasks.pose import upright_axes
from deepmrseg_bids.tasks.qc import check_brain, check_image
from deepmrseg_bids.tasks.regions import Region, region_volumes
from deepmrseg_bids.tasks.results import (
    Measure,
    Posteriors,
    Segmentation,
    confidences,
    label_map,
    largest_parts,
)
from deepmrseg_bids.tasks.soft_counts import count
from deepmrseg_bids.tasks.wml import segment_prepared

FILE = Path(__file__).parent / "test" / "golden.json"
RNG = np.random.default_rng(20)


def packed(array: Any) -> dict[str, Any]:
    """An array as its shape and its float32 values in base64, C order."""
    values = np.ascontiguousarray(array, dtype=np.float32)
    return {"shape": list(values.shape), "data": base64.b64encode(values.tobytes()).decode()}


def of_grid(grid: Grid) -> dict[str, Any]:
    return {"shape": list(grid.shape), "affine": grid.affine.tolist()}


def turned(degrees: float, spacing: tuple[float, float, float], origin: tuple[float, ...]) -> Any:
    """An affine turned about two axes."""
    a, b = np.radians(degrees), np.radians(degrees / 2)
    about_z = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    about_x = np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
    affine = np.eye(4)
    affine[:3, :3] = about_z @ about_x @ np.diag(spacing)
    affine[:3, 3] = origin
    return affine


def grids() -> dict[str, Grid]:
    """Grids that lie in one place, one finer, one coarser, permuted, turned."""
    swapped = np.array([[0, 0, -1.5, 8], [1.2, 0, 0, -7], [0, -1, 0, 6], [0, 0, 0, 1.0]])
    return {
        "plain": centred_grid((0, -0.5, -0.5), (9, 10, 8), 1.0),
        "finer": centred_grid((0.3, 0.2, -0.1), (11, 8, 9), 0.6),
        "coarser": centred_grid((0.5, 0, 0), (5, 6, 4), 2.3),
        "swapped": Grid((10, 9, 8), swapped),
        "turned": Grid((9, 8, 10), turned(20, (1.1, 1, 0.9), (-4, -6, -3))),
        "turned coarse": Grid((4, 5, 4), turned(-15, (2.4, 2.2, 2.6), (-5, -4, -4))),
    }  # fmt: skip


def resampling() -> list[dict[str, Any]]:
    cases = []
    for one, other in (("plain", "finer"), ("plain", "coarser"), ("swapped", "plain"),
                       ("plain", "swapped"), ("turned", "plain"), ("plain", "turned"),
                       ("plain", "turned coarse"), ("turned", "turned coarse"),
                       ("plain", "plain")):  # fmt: skip
        source, target = grids()[one], grids()[other]
        data = RNG.normal(10, 3, source.shape).astype(np.float32)
        fill = 1.0 if other == "finer" else 0.0
        part = overlap(source, target)
        cases.append({
            "source": of_grid(source), "target": of_grid(target), "data": packed(data),
            "fill": fill, "out": packed(resample(data, source, target, fill=fill)),
            "covered": packed(covered(source, target)),
            "overlap": part and [[s.start for s in part], [s.stop for s in part]],
        })  # fmt: skip
    return cases


def geometry() -> list[dict[str, Any]]:
    return [
        {
            "grid": of_grid(grid), "axes": axes_of(grid).tolist(), "obliquity": grid.obliquity,
            "orientation": grid.orientation, "volume": grid.voxel_volume,
            "canonical": of_grid(canonical_grid(grid, 1.3, axes=axes_of(grid))),
            "centred": of_grid(centred_grid((1, 2, 3), (4, 5, 6), 1.1, axes=axes_of(grid))),
        }
        for grid in grids().values()
    ]  # fmt: skip


def neighbours() -> dict[str, Any]:
    shape = (10, 12, 9)
    mask = ndimage.gaussian_filter(RNG.normal(0, 1, shape), 1.2) > 0.03
    data = RNG.normal(5, 2, shape).astype(np.float32)
    pieces, _ = ndimage.label(mask)
    joined, _ = ndimage.label(mask, np.ones((3, 3, 3)))
    room = [(n, n) for n in (1, 2, 1)]
    box = np.ones((3, 5, 3), bool)
    closed = ndimage.binary_closing(np.pad(mask, room), box)[1:-1, 2:-2, 1:-1]
    away = ndimage.distance_transform_edt(np.pad(mask, 1), sampling=(1, 2, 1.5))[1:-1, 1:-1, 1:-1]
    return {
        "mask": packed(mask), "data": packed(data), "label": packed(pieces),
        "label26": packed(joined), "dilated": packed(ndimage.binary_dilation(mask, iterations=2)),
        "eroded": packed(ndimage.binary_erosion(mask)),
        "opened": packed(ndimage.binary_opening(mask)), "closed": packed(closed),
        "filled": packed(ndimage.binary_fill_holes(mask)), "distance": packed(away),
        "gaussian": packed(ndimage.gaussian_filter(data, 1.1)),
        "nearest": packed(ndimage.gaussian_filter(data, (0.8, 0, 1.4), mode="nearest")),
        "gradient": packed(ndimage.gaussian_gradient_magnitude(data, 1.0)),
        "laplace": packed(ndimage.laplace(data)),
        "percentiles": np.percentile(data, (0.5, 50, 99.5)).tolist(),
    }  # fmt: skip


def intensities() -> dict[str, Any]:
    data = RNG.gamma(2, 60, (9, 8, 7)).astype(np.float32)
    mask = data > 40
    whole = np.ones(data.shape, bool)
    return {
        "data": packed(data), "mask": packed(mask),
        "head": packed(normalise(data, mode="head", scanned=mask)),
        "brain": packed(normalise(data, mode="brain", mask=mask)),
        "crop": packed(normalise(data, mode="crop", mask=whole)),
        "coordinates": packed(brain_coordinates((4, 5, 3), (1.5, 2.2, 0.7), 1.5)),
    }  # fmt: skip


def answers() -> dict[str, Any]:
    """Posteriors of three classes, and all that is made of them."""
    grid = centred_grid((0, 0, 0), (14, 12, 10), 1.0)
    noise = np.stack([ndimage.gaussian_filter(RNG.normal(0, 1, grid.shape), 1.3) for _ in range(3)])
    share = np.exp(9 * noise)
    posteriors = Posteriors((share / share.sum(axis=0)).astype(np.float32), grid, (0, 7, 9))
    target = Grid((12, 13, 9), turned(12, (1.2, 1, 1.3), (-6, -7, -5)))
    kept = largest_parts(posteriors)
    bordered = with_coronal_border(posteriors)
    found, shape = np.clip(2 * posteriors.data[1] - 1, 0, 1), grid.shape
    outline = np.roll(ndimage.gaussian_filter(found, 1), (1, -2, 1), (0, 1, 2))
    return {
        "grid": of_grid(grid), "data": packed(posteriors.data), "target": of_grid(target),
        "labels": packed(label_map(kept, target).data),
        "parts": packed(kept.data), "bordered": packed(bordered.data),
        "confidences": list(confidences(posteriors).items()),
        "fit": best_fit(outline, found).tolist(), "found": packed(found),
        "outline": packed(outline), "shape": list(shape),
        "unions": [[labels, count(posteriors).expected_dice(labels)] for labels in ([7], [7, 9])],
    }  # fmt: skip


def calibrations() -> list[dict[str, Any]]:
    facts = {
        "volume_interval": {"plain": [0.8, 1.3]},
        "volume_interval_ranges": {
            "ranged": {"offset_mm3": 100, "ranges": [[1000, 0.5, 1.8], [None, 0.7, 1.4]]}
        },
        "volume_floor": {"ranged": 300},
        "volume_if_none": {"ranged": 500},
        "confidence_fit": {"ranged": [-1, 0.3, 0.9]},
        "volume_thresholds": {"ranged": [[200, 0.9], [1000, 0.6], [4000, 0.5]]},
    }
    return [
        {
            "facts": facts, "name": name, "volume": volume,
            "interval": list(Calibration.of(facts, name).interval(volume)),
            "confidence": Calibration.of(facts, name).confidence(0.83, volume),
            "threshold": Calibration.of(facts, name).threshold(volume),
        }
        for name in ("plain", "ranged", "unknown")
        for volume in (0.0, 120.0, 800.0, 5000.0)
    ]  # fmt: skip


def paddings() -> list[dict[str, Any]]:
    """Heads with air of several kinds."""
    head = ndimage.gaussian_filter(RNG.gamma(2, 50, (14, 15, 13)), 0.7) + 60
    far = sum((i - 7) ** 2 for i in np.indices(head.shape)) > 30
    air = RNG.gamma(1, 3, head.shape)
    plain = np.where(far, air, head)
    rim = np.ones(head.shape, bool)
    rim[2:-2, 2:-2, 2:-2] = False
    made = [plain, plain - 1024, np.where(rim, -500, plain), np.where(far, 0, head), 800 - plain,
            np.where(rim, 7, plain)]  # fmt: skip
    cases = []
    for data in (one.astype(np.float32) for one in made):
        found = find_air(data)
        cases.append({
            "data": packed(data), "level": found.level, "outside": list(found.outside),
            "negated": found.negated, "out": packed(with_air_at_zero(data, found)),
            "codes": [one.code for one in found.findings(data)],
        })  # fmt: skip
    return cases


def files() -> list[dict[str, Any]]:
    """Files, each with its voxels and its label map as the package reads and writes them."""
    cases = []
    for name in ("plain", "swapped", "turned"):
        grid = grids()[name]
        scan = LabelMap(RNG.integers(0, 900, grid.shape).astype(np.uint16), grid)
        with tempfile.TemporaryDirectory() as folder:
            path, label_path = Path(folder) / "scan.nii.gz", Path(folder) / "labels.nii.gz"
            write_labels(path, scan)
            volume = read_volume(path)
            labels = LabelMap((scan.data % 5).astype(np.uint8), volume.grid)
            write_labels(label_path, labels)
            cases.append({
                "file": base64.b64encode(path.read_bytes()).decode(),
                "data": packed(volume.data), "grid": of_grid(volume.grid),
                "labels": base64.b64encode(label_path.read_bytes()).decode(),
                "codes": [one.code for one in (*volume.findings, *check_image(volume))],
            })  # fmt: skip
    return cases


def edited(*changes: tuple[int, str, Any], forms: tuple[int, int] = (1, 1)) -> bytes:
    """A NIfTI file with other numbers at some places of its header."""
    i, j, k = np.indices((10, 9, 8))
    image = nib.Nifti1Image(((i * j * k) % 97).astype(np.int16), np.diag([16, 16, 16, 1.0]))
    image.set_sform(image.affine, code=forms[0])
    image.set_qform(image.affine, code=forms[1])
    content = bytearray(image.to_bytes())
    for place, kind, values in changes:
        struct.pack_into(f"<{kind}", content, place, *np.atleast_1d(values))
    return bytes(content)


def of_values(values: Any) -> bytes:
    """A NIfTI file of some intensities."""
    image = nib.Nifti1Image(values, np.diag([16, 16, 16, 1.0]))
    image.set_sform(image.affine, code=1)
    return bytes(image.to_bytes())


def odd_headers() -> dict[str, bytes]:
    """Files that the package repairs or refuses, by what their header says."""
    inf, nan = np.inf, np.nan
    q = {"forms": (0, 1)}
    edits = {
        "dimensions": (40, "h", 9), "one slice": (46, "h", 1), "plane": (40, "h", 2),
        "no edge": (42, "h", 0), "huge": (42, "3h", (9000, 9000, 9000)), "5D": (40, "h", 5),
        "slope": (112, "2f", (-1, 0)), "slope nan": (112, "2f", (nan, 5)),
        "slope inf": (112, "2f", (inf, 0)), "intercept": (112, "2f", (2, inf)),
        "voxels before": (108, "f", 320), "voxels nowhere": (108, "f", nan),
        "voxels beyond": (108, "f", 9000), "sform code": (254, "h", 9),
        "qform code": (252, "h", -3), "metres": (123, "B", 1), "unit": (123, "B", 7),
        "size": (80, "f", 12), "size a little": (80, "f", 15.5), "no size": (80, "f", 0),
        "no rotation": (256, "3f", (2, 0, 0)), "infinite": (256, "3f", (inf, 0, 0)),
        "turned": (256, "3f", (1, 0, 0)), "far": (292, "f", 5000), "too far": (292, "f", 1e6),
        "absurd": (292, "f", 1e10), "no affine": (292, "f", nan), "singular": (280, "f", 0),
        "sheared": (284, "f", 4), "much sheared": (284, "f", 30),
        "edges": (280, "f", 40), "template": (254, "h", 4),
    }  # fmt: skip
    of_qform = {
        "size": (80, "f", -16), "no size": (80, "f", 0), "third axis": (76, "f", 5),
        "no rotation": (256, "3f", (2, 0, 0)), "template": (252, "h", 5),
    }  # fmt: skip
    return {
        **{name: edited(edit) for name, edit in edits.items()},
        **{f"{name}, qform": edited(edit, **q) for name, edit in of_qform.items()},
        "only sform": edited(forms=(1, 0)), "longer": edited() + bytes(400),
        "shorter": edited()[:-100], "header alone": edited()[:352], "part of it": edited()[:100],
    }  # fmt: skip


def odd_values() -> dict[str, bytes]:
    """Files that the package repairs or refuses, by their voxels."""
    i, j, k = np.indices((10, 9, 8))
    plain = ((i * j * k) % 97).astype(np.float32)
    one = np.where((i == 5) & (j == 5) & (k == 4), np.float32(1e20), np.float32(0))
    return {
        "constant": of_values(plain * 0 + 5), "nan": of_values(np.where(plain == 8, np.nan, plain)),
        "negative": of_values(plain - 40), "logarithms": of_values(np.log1p(plain)),
        "base 10": of_values(np.log10(plain + 1)), "tenths": of_values(plain / 10),
        "large": of_values(plain * 1e20), "small": of_values(plain.astype(float) * 1e-60),
        "one voxel": of_values(one), "few": of_values((plain // 25).astype(np.uint8)),
        "volumes": of_values(np.stack([plain] * 2, axis=-1)[..., None, :]),
    }  # fmt: skip


def other_kinds() -> dict[str, bytes]:
    """Files that are no NIfTI images."""
    text = {
        "lfs": "version https://git-lfs.github.com/spec/v1\n", "annex": "/annex/objects/MD5E-s1",
        "link": "..\\.git\\annex\\objects\\MD5E-s1", "html": "\ufeff <HEAD>", "xml": "<?xml ?>",
        "json": "[1]", "words": "a text", "nrrd": "NRRD", "mha": "ObjectType = Image",
        "pdf": "%PDF",
    }  # fmt: skip
    marks = {
        "dicom": bytes(128) + b"DICM", "gzip": gzip.compress(gzip.compress(b"1")),
        "zip": b"PK\x03\x04",
        "7z": b"7z\xbc\xaf", "tar": b"1" + bytes(256) + b"ustar", "bzip2": b"BZh\0",
        "xz": b"\xfd7zXZ", "zstd": b"\x28\xb5\x2f\xfd", "minc": b"CDF\x01", "hdf5": b"\x89HDF",
        "png": b"\x89PNG", "jpeg": b"\xff\xd8\xff", "numpy": b"\x93NUMPY", "zeros": bytes(9),
        "pair": edited((344, "4s", b"ni1")), "pair 2": bytes(4) + b"ni2\0",
        "analyze": edited((344, "4s", b""))[:348], "other": b"\x01\x02\x03",
        "mgh": struct.pack(">7i", 1, 256, 256, 256, 1, 0, 0) + bytes(300),
    }  # fmt: skip
    return {**{name: one.encode() for name, one in text.items()}, **marks}


def odd_files() -> list[dict[str, Any]]:
    """What the package says of files that are odd or broken."""
    cases = []
    for name, content in {**odd_headers(), **odd_values(), **other_kinds()}.items():
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "scan"
            path.write_bytes(content)
            case: dict[str, Any] = {"name": name, "file": packed_bytes(content)}
            try:
                volume = read_volume(path)
            except ImageError as error:
                case["refused"] = str(error).replace(str(path), "scan")
            else:
                case["findings"] = [[one.code, one.severity, one.message]
                                    for one in volume.findings]  # fmt: skip
                case["grid"], case["mean"] = of_grid(volume.grid), float(volume.data.mean())
            cases.append(case)
    return cases


def packed_bytes(content: bytes) -> str:
    return base64.b64encode(zlib.compress(content, 9)).decode()


def brains() -> list[dict[str, Any]]:
    """Made-up brains, by a formula that the tests know too, and what the guard says of them."""
    view = centred_grid((0, 0, 0), (60, 70, 60), 2.0)
    i, j, k = np.indices(view.shape)
    x, y, z = i - 30, j - 35, k - 30
    depth = 1 - np.sqrt((x / 22) ** 2 + (y / 28) ** 2 + (z / 21) ** 2)
    wave = np.sin(i * 12.9898 + j * 78.233 + k * 37.719) * 437.585453
    noise = wave - np.floor(wave) - 0.5
    tissue = np.select([depth > 0.45, depth > 0.12, depth > 0], [140.0, 100.0, 60.0], 8.0)
    cases = []
    for name, image in (
        ("plain", tissue + 8 * noise),
        ("uneven", (tissue + 8 * noise) * np.exp(x / 30)),
        ("dark core", np.where(depth > 0, 200 - tissue, tissue) + 8 * noise),
        ("noisy", tissue + 90 * noise),
        ("stripped", np.where(depth > 0, tissue + 8 * noise, 0)),
    ):
        picture = image.astype(np.float32)
        gradient = brightness_gradient(picture, depth > 0, view)
        findings = check_brain(depth > 0, picture, view, view, confidence=0.87)
        assert gradient is not None
        cases.append({
            "name": name, "ratio": gradient.ratio, "grid": of_grid(view),
            "findings": [[one.code, one.severity, one.message] for one in findings],
        })  # fmt: skip
    return cases


def poses() -> dict[str, Any]:
    """The axes of a head of which eight structures were found."""
    names = ["Caudate", "Hippocampus", "Putamen", "Thalamus-Proper"]
    places = {"Caudate": (12, 12, 13), "Hippocampus": (24, -17, -10), "Putamen": (23, 5, 4),
              "Thalamus-Proper": (11, -15, 7)}  # fmt: skip
    table = LabelTable(tuple(
        Label(10 * k + s, f"{side}-{name}") for k, name in enumerate(names, 1)
        for s, side in enumerate(("Left", "Right"))
    ))  # fmt: skip
    affine = turned(14, (1, 1, 1), (0, 0, 0))
    affine[:3, 3] = -affine[:3, :3] @ (40, 40, 30)
    grid = Grid((80, 80, 60), affine)
    classes = np.zeros(grid.shape, np.uint8)
    for number, label in enumerate(table, start=1):
        side, _, name = label.name.partition("-")
        across, *rest = places[name]
        middle = grid.to_voxel([[across if side == "Right" else -across, *rest]])[0]
        away = sum((i - m) ** 2 for i, m in zip(np.indices(grid.shape), middle, strict=True))
        classes[away < 9] = number
    data = np.stack([(classes == k).astype(np.float32) for k in range(len(table) + 1)])
    found = Posteriors(data, grid, (0, *table.indices))
    axes = upright_axes(found, table)
    assert axes is not None
    return {
        "grid": of_grid(grid), "voxels": np.argwhere(classes).tolist(),
        "classes": classes[classes > 0].tolist(), "names": list(table.names), "axes": axes.tolist(),
    }  # fmt: skip


class Bright:
    """In the place of a network: bright is hippocampus, anterior in the front half."""

    def many(self, images: list[Any]) -> list[Any]:
        """Answers of several images."""
        answers = []
        for image in images:
            share = 1 / (1 + np.exp(-4 * (image.astype(np.float64) - 1)))
            front = np.arange(image.shape[1])[:, None] >= image.shape[1] / 2
            answers.append(np.stack([1 - share, share * front, share * ~front]).astype(np.float32))
        return answers


def searches() -> list[dict[str, Any]]:
    """Where a bright ball is found that was first seen some millimetres off."""
    cases = []
    grid = Grid((44, 46, 42), turned(0, (1, 1, 1), (-21.3, -22.6, -20.8)))
    i, j, k = np.indices(grid.shape)
    image = 50 + 5 * np.sin(i * 1.3 + j * 2.1 + k * 0.7)
    image[((i - 24) / 4) ** 2 + ((j - 22) / 6) ** 2 + ((k - 20) / 4) ** 2 < 1] += 60
    seen = ((i - 21) / 4) ** 2 + ((j - 24) / 6) ** 2 + ((k - 22) / 4) ** 2 < 1
    volume = Volume(image.astype(np.float32), grid)
    for side in ("left", "right"):
        for window in ((0, 0, 0), (16, 18, 16)):
            preparation = Preparation(1.0, "crop", (20, 24, 20), 3, window=window)
            search = Search(volume, seen, grid, side, preparation)
            for _ in range(6):
                if not search.converged:
                    search.take(Bright().many([search.window()])[0])
            found = search.looks[search.found_at][1]
            cases.append({
                "grid": of_grid(grid), "side": side, "window": list(window),
                "place": list(search.found_at), "converged": search.converged,
                "found": of_grid(found.grid), "mass": search.looks[search.found_at][0],
            })  # fmt: skip
    return cases


class Brighter:
    """In the place of a network: what is brighter than a level belongs to the only structure."""

    def __init__(self, bundle: SimpleNamespace, level: float) -> None:
        self.bundle, self.level = bundle, level

    def __call__(self, image: Any) -> Any:
        """Posteriors of one image."""
        share = 1 / (1 + np.exp(-4 * (image.astype(np.float64) - self.level)))
        return np.stack([1 - share, share]).astype(np.float32)

    def slices(self, image: Any, *, mirrored: bool) -> Any:
        """By the first channel, and a little by the second."""
        del mirrored
        return self(image[0] + 0.25 * image[1])


def outlines() -> list[dict[str, Any]]:
    """A ball with a dark spot in it, a rim that is no brain, and a mask that is too large."""
    grid = Grid((30, 32, 28), turned(7, (1.3, 1.2, 1.3), (-18.1, -20.3, -17.4)))
    i, j, k = np.indices(grid.shape)
    away = np.sqrt(((i - 15) * 1.3) ** 2 + ((j - 16) * 1.2) ** 2 + ((k - 14) * 1.3) ** 2)
    spot = (i - 15) ** 2 + (j - 16) ** 2 + (k - 14) ** 2 < 4
    image = np.where(away < 11, 100.0, 20.0) + 5 * np.sin(i * 1.3 + j * 2.1 + k * 0.7)
    image[spot] = 10
    image[14:16, 16:18, 24] = 130
    preparation = Preparation(2.0, "brain", (16, 16, 16), 0)
    labels = LabelTable((Label(1, "Brain"),))
    bundle = SimpleNamespace(preparation=preparation, labels=labels)
    cases = []
    coarse = Grid((20, 21, 19), turned(7, (2.0, 2.0, 2.0), (-19.5, -21.0, -18.5)))
    middle = grid.to_world([[15, 16, 14]])[0]
    places = coarse.to_world(np.argwhere(np.ones(coarse.shape, bool)))
    far = np.sqrt(((places - middle) ** 2).sum(axis=1)).reshape(coarse.shape)
    for radius in (11.5, 13.5):
        probability = (1 / (1 + np.exp(far - radius))).astype(np.float32)

        def mask_on(target: Grid, share: Any = probability) -> Any:
            return resample(share, coarse, target) > 0.5

        volume = Volume(image.astype(np.float32), grid)
        found = find_outline(volume, probability, coarse, mask_on,
                             cast(Predictor, Brighter(bundle, 0.6)))  # fmt: skip
        cases.append({
            "radius": radius, "grid": of_grid(grid), "coarse": of_grid(coarse),
            "middle": middle.tolist(), "found": found and {
                "grid": of_grid(found.grid), "confidence": found.confidence,
                "probability": packed(found.probability),
            },
        })  # fmt: skip
    assert [one["found"] is None for one in cases] == [False, True]
    return cases


def lesions() -> list[dict[str, Any]]:
    """Spots in a brain, by a threshold that their load decides."""
    grid = Grid((34, 36, 12), np.array([[-1.0, 0, 0, 17], [0, 1.0, 0, -18], [0, 0, 3, -18],
                                        [0, 0, 0, 1]]))  # fmt: skip
    i, j, k = np.indices(grid.shape)
    brain = ((i - 17) / 15) ** 2 + ((j - 18) / 16) ** 2 + ((k - 6) / 5) ** 2 < 1
    spots = [(10, 14, 5, 3.2), (22, 20, 6, 2.3), (17, 26, 7, 1.2), (17, 9, 6, 0.4)]
    wave = 6 * np.sin(i * 1.3 + j * 2.1 + k * 0.7)
    t1w = np.where(brain, 100 - wave, 0).astype(np.float32)
    table = LabelTable((Label(1, "White-Matter-Lesions"),))
    cases = []
    for name, known in (("few", [[400, 0.85], [3000, 0.5]]), ("none", []), ("many", [[50, 0.3]])):
        flair = np.where(brain, 60 + wave, 0)
        for x, y, z, radius in spots:
            away = (i - x) ** 2 + (j - y) ** 2 + (3 * (k - z)) ** 2
            flair += brain * 80 * np.exp(-away / (2 * radius**2))
        facts = {"volume_thresholds": {"White-Matter-Lesions": known}} if known else {}
        preparation = Preparation(1.0, "brain", (16, 16), 0)
        bundle = SimpleNamespace(task="wml", preparation=preparation, labels=table, facts=facts)
        found = segment_prepared(
            Volume(t1w, grid), Volume(flair.astype(np.float32), grid),
            cast(Predictor, Brighter(bundle, 1.2)),
        )  # fmt: skip
        assert found.lesions
        (row,) = found.measures
        cases.append({
            "name": name, "grid": of_grid(grid), "spots": spots, "facts": facts,
            "voxels": np.flatnonzero(found.on_flair.data).tolist(), "count": len(found.lesions),
            "volume": row.volume_mm3, "confidence": row.confidence,
        })  # fmt: skip
    volumes = [one["volume"] for one in cases]
    assert volumes[0] < volumes[1] < volumes[2]
    return cases


def regions() -> dict[str, Any]:
    """White matter (5) between four patches of cortex, one of them absent."""
    grid = Grid((19, 23, 17), turned(11, (1.13, 0.97, 2.31), (-9, -11, -20)))
    depth = ndimage.gaussian_filter(RNG.normal(0, 1, grid.shape), 2)
    data = np.where(depth > -0.03, 5, 0).astype(np.uint8)
    data[:7], data[-4:], data[7:-4, :4] = 6, 7, 8  # no voxel is as near to two of them
    made_of = (Region(1, "all", (5, 6, 7, 8)), Region(2, "low", (5,), (6,)),
               Region(3, "high", (5,), (7,)), Region(4, "beside", (5,), (8, 9)),
               Region(5, "absent", (9,)))  # fmt: skip
    return {
        "grid": of_grid(grid), "labels": "".join(map(str, data.ravel())),
        "regions": [{"index": r.index, "name": r.name, "labels": r.labels, "near": r.near}
                    for r in made_of],
        "volumes": list(region_volumes(LabelMap(data, grid), made_of).values()),
    }  # fmt: skip


def averages() -> list[dict[str, Any]]:
    """Two structures of which another network has the first on two sides, or misses the second."""
    cases = []
    for name in ("finer", "swapped", "turned"):
        one, other = grids()["plain"], grids()[name]
        rng = np.random.default_rng(len(name))
        first, second = (rng.random((4, *grid.shape)) ** 3 for grid in (one, other))
        second[3] *= 1 if name == "turned" else 0.2
        found = np.rint(first / first.sum(axis=0) * 65535).astype(np.uint16)
        before = found.copy()
        seen = (second / second.sum(axis=0)).astype(np.float32)
        average_in(Posteriors(found, one, (0, 36, 35, 44)), Posteriors(seen, other, (0, 1, 2, 3)),
                   {1: 36, 2: 36, 3: 35})  # fmt: skip
        cases.append({"grid": of_grid(one), "other": of_grid(other), "before": packed(before),
                      "seen": packed(seen), "after": packed(found)})  # fmt: skip
    return cases


def slices() -> list[dict[str, Any]]:
    cases = []
    for affine, shape in (
        (np.diag([-1.0, 1.0, 4.0, 1.0]), (60, 70, 20)),
        (turned(8, (1, 1.02, 1.0), (-30, -35, -20)), (50, 60, 40)),
        (np.array([[0, 0, 3, -30], [-0.9, 0, 0, 40], [0, 0.9, 0, 9], [0, 0, 0, 1]]), (80, 70, 22)),
    ):  # fmt: skip
        grid = Grid(shape, affine)
        mask = np.zeros(shape, bool)
        mask[tuple(slice(n // 4, n - n // 5) for n in shape)] = True
        first = [n // 4 for n in shape]
        cases.append({"grid": of_grid(grid), "first": first, "stop": [n - n // 5 for n in shape],
                      "slices": of_grid(slice_grid(grid, mask, spacing=1.0))})  # fmt: skip
    return cases


def tables() -> dict[str, Any]:
    rows = (Measure(7, "Left-Thing", 1234.5678, 1000.0, 1500.25, 0.91234),
            Measure(9, "Right-Thing", 0.0))  # fmt: skip
    labels = LabelMap(np.zeros((2, 2, 2), np.uint8), Grid((2, 2, 2), np.eye(4)))
    table = LabelTable((Label(7, "Left-Thing"), Label(9, "Right-Thing")))
    result = Segmentation("toy", labels, table, rows, brain_mm3=1.2e6, icv_mm3=None)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "morph.tsv"
        write_morph(path, morph_rows(result))
        text = path.read_text(encoding="utf-8")
    measures = [
        {"index": r.index, "name": r.name, "volume": r.volume_mm3, "low": r.low_mm3,
         "high": r.high_mm3, "confidence": r.confidence, "floor": r.floor_mm3}
        for r in rows
    ]  # fmt: skip
    return {"measures": measures, "brainMm3": 1.2e6, "icvMm3": None, "tsv": text}


def windows() -> list[dict[str, Any]]:
    return [
        {"edge": edge, "window": window, "starts": [s.start for s in window_places(edge, window)]}
        for edge in (60, 72, 83, 96, 106, 130, 151)
        for window in (0, 32, 72, 80)
    ]


def golden() -> dict[str, Any]:
    """All answers."""
    return {
        "resampling": resampling(), "geometry": geometry(), "neighbours": neighbours(),
        "intensities": intensities(), "answers": answers(), "calibrations": calibrations(),
        "paddings": paddings(), "brains": brains(), "files": files(), "poses": poses(),
        "slices": slices(), "searches": searches(), "tables": tables(), "windows": windows(),
        "outlines": outlines(), "lesions": lesions(), "regions": regions(),
        "averages": averages(), "odd_files": odd_files(),
    }  # fmt: skip


if __name__ == "__main__":
    FILE.write_text(json.dumps(golden()) + "\n", encoding="utf-8")

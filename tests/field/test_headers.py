"""Numbers in a header that contradict each other are refused or reported before voxels are read."""

from __future__ import annotations

import contextlib
import gzip
import resource
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from deepmrseg_bids.errors import HeaderError, ImageReadError
from deepmrseg_bids.imaging.nifti import read_grid, read_volume
from deepmrseg_bids.tasks.qc import check_image
from tests.field.conftest import Study, fill
from tests.field.headers import Header

SHAPE = (40, 50, 44)
AFFINE = np.array([[-4.0, 0, 0, 80], [0, 4, 0, -100], [0, 0, 4, -88], [0, 0, 0, 1]])
NAN, INF = float("nan"), float("inf")


def head(scale: float = 1.0, *, shear: float = 0.0, shape: tuple[int, int, int] = SHAPE) -> Header:
    """A scan whose two forms agree; its size is that of a head times ``scale``."""
    return scan(np.diag([scale, scale, scale, 1.0]) @ sheared(shear), shape=shape)


def sheared(degrees: float) -> np.ndarray:
    affine = AFFINE.copy()
    affine[1, 2] += affine[2, 2] * np.tan(np.radians(degrees))
    return affine


def scan(
    sform: np.ndarray | None,
    qform: np.ndarray | None = None,
    *,
    shape: tuple[int, int, int] = SHAPE,
    codes: tuple[int, int] = (1, 1),
) -> Header:
    data = np.random.default_rng(0).integers(0, 1000, shape).astype("<f4")
    return Header.of(data, sform=sform, qform=sform if qform is None else qform, codes=codes)


def only_qform() -> Header:
    return scan(None, AFFINE)


def only_sform() -> Header:
    return scan(AFFINE).put("qform_code", 0)


REFUSED: dict[str, tuple[Callable[[], Header], str]] = {
    "a head of 2.4 m": (lambda: head(15 / 4, shape=(170, 170, 170)), "covers 2550 x"),
    "dims of 1000 that a gzip might hold": (
        lambda: head().put("dim", 3, 1000, 1000, 1000, 1, 1, 1, 1), "covers 4000 x"),
    "a head of 2 cm": (lambda: head(1 / 40, shape=(200, 220, 180)), "covers only 20 x"),
    "a head of 1 cm in few voxels": (lambda: head(1 / 20), "covers only 8 x"),
    "metres of which none is a head": (lambda: head(1 / 40).put("units", 1), "covers only"),
    "voxels without a size": (lambda: only_qform().put("pixdim", 0, 4, 4), "voxel sizes of 0 x 4"),
    "voxels of nan": (lambda: only_qform().put("pixdim", NAN, 4, 4), "NaN or infinite"),
    "voxels of inf": (lambda: only_qform().put("pixdim", INF, 4, 4), "NaN or infinite"),
    "an intercept of nan": (lambda: head().put("intercept", NAN).put("slope", 1), "of nan"),
    "an intercept of inf": (lambda: head().put("intercept", INF).put("slope", 1), "of inf"),
    "voxels from byte nan on": (lambda: head().put("vox_offset", NAN), "from byte nan"),
    "voxels from byte -352 on": (lambda: head().put("vox_offset", -352), "from byte -352"),
    "voxels behind the end": (lambda: head().put("vox_offset", 1e9), "truncated"),
    "nine dimensions": (lambda: head().put("dim", 9, 40, 50, 44, 1, 1, 1, 1), "9 dimensions"),
    "no dimensions": (lambda: head().put("dim", 0, 40, 50, 44, 1, 1, 1, 1), "0 dimensions"),
    "a negative edge": (lambda: head().put("dim", 3, -40, 50, 44, 1, 1, 1, 1), "-40 x 50 x 44"),
    "more voxels than bytes": (
        lambda: head().put("dim", 3, 80, 50, 44, 1, 1, 1, 1), "truncated"),
    "a shear of 50 degrees": (lambda: head(shear=50), "sheared by 50 degrees"),
    "a place of nan": (lambda: only_qform().put("qoffset", NAN, 0, 0), "NaN or infinite"),
    "a place of inf": (lambda: only_sform().put("offset_y", INF), "NaN or infinite"),
    "a place of inf beside a good qform": (lambda: head().put("offset_z", INF), "NaN or infinite"),
    "an axis of nan": (lambda: head().put("srow_x", NAN, 0, 0, 0), "NaN or infinite"),
    "an axis of 3e38 mm": (lambda: head().put("srow_y", 0, 3e38, 0, 0), "impossible values"),
    "a place 1e30 mm away": (lambda: only_sform().put("offset_y", 1e30), "impossible values"),
    "the same by the qform": (lambda: only_qform().put("qoffset", 0, 0, -1e30), "impossible"),
    "a place 1 km away": (lambda: head().put("offset_x", 1e6), "1e\\+03 m from the centre"),
    "a quaternion of nan": (lambda: only_qform().put("quaternion", 0, NAN, 0), "no rotation"),
    "a quaternion of inf": (lambda: only_qform().put("quaternion", INF, 0, 0), "no rotation"),
    "a quaternion that is too long": (
        lambda: only_qform().put("quaternion", 0.9, 0, 0.9), "no rotation"),
    "forms without a meaning": (
        lambda: head().put("sform_code", -1).put("qform_code", 77), "neither sform nor qform"),
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED)
def test_a_header_that_no_head_has_is_refused_from_the_header_alone(
    kind: str, tmp_path: Path
) -> None:
    make, told = REFUSED[kind]
    header = make()
    for name in ("scan.nii", "scan.nii.gz"):
        if kind == "more voxels than bytes" and name.endswith(".gz"):
            continue  # nobody knows before it is unpacked
        path = header.save(tmp_path / name)
        with pytest.raises((HeaderError, ImageReadError), match=told) as whole:
            read_volume(path)
        with pytest.raises((HeaderError, ImageReadError)) as first:
            read_grid(path)
        assert str(first.value) == str(whole.value)


def test_a_header_of_64_bit_numbers_is_refused_too(tmp_path: Path) -> None:
    good = nib.Nifti2Image(np.zeros(SHAPE, "<f4"), AFFINE).to_bytes()
    for number in (1e300, -INF, NAN):
        changed = bytearray(good)
        struct.pack_into("<d", changed, 400, number)  # srow_x
        (tmp_path / "scan.nii").write_bytes(changed)
        with pytest.raises(HeaderError, match="the affine contains"):
            read_grid(tmp_path / "scan.nii")


@pytest.mark.robustness(
    "a position that is no number, or impossible",
    tried="nan, inf, 1e30 mm, 1 km and 5 m in the origin, the axes and the quaternion, of the form "
    "that is used and of the other",
)
def test_no_impossible_position_is_silent(tmp_path: Path, came_out: Callable[[str], None]) -> None:
    numbers = {"nan": NAN, "inf": INF, "far": 1e30, "1 km": 1e6, "5 m": 5000.0}
    places = {"qoffset": 3, "quaternion": 3, "srow_x": 4, "srow_y": 4, "srow_z": 4}
    silent = []
    for name, count in places.items():
        for kind, number in numbers.items():
            made = [scanned.put(name, *[number] * count) for scanned in (head(), only_qform())]
            made += [only_sform().put(name, *[number] * count)] if name.startswith("srow") else []
            if name.startswith("srow"):
                del made[1]  # nobody looks at the sform where only the qform is set
            for header in made:
                with contextlib.suppress(HeaderError):
                    if not read_volume(header.save(tmp_path / "scan.nii")).findings:
                        silent.append((name, kind))
    assert not silent
    came_out(
        "failed: the affine contains NaN, infinite or impossible values, the qform is no rotation, "
        "or the place is more than 100 m away; a form that is not used, or a place more than 2 m "
        "away: a warning"
    )


REPORTED: dict[str, tuple[Callable[[], Header], str]] = {
    "sizes twice as large": (lambda: head().put("pixdim", 8, 8, 8), "error:voxel-size-differs"),
    "sizes that were never set": (
        lambda: only_sform().put("pixdim", 1, 1, 1), "error:voxel-size-differs"),
    "one size 2 % larger": (
        lambda: head().put("pixdim", 4.08, 4, 4), "warning:voxel-size-differs"),
    "a negative size": (lambda: head().put("pixdim", -4, 4, 4), "warning:voxel-size-differs"),
    "a size of nan": (lambda: head().put("pixdim", NAN, 4, 4), "error:voxel-size-differs"),
    "a size of 0": (lambda: head().put("pixdim", 0, 4, 4), "error:voxel-size-differs"),
    "a negative size that is used": (
        lambda: only_qform().put("pixdim", -4, 4, 4), "warning:header-values"),
    "metres": (lambda: head(1 / 1000).put("units", 1), "info:units-doubtful"),
    "micrometres": (lambda: head(1000).put("units", 3), "info:units-doubtful"),
    "metres that are mm": (lambda: head().put("units", 1), "warning:units-doubtful"),
    "micrometres that are mm": (lambda: head().put("units", 3), "warning:units-doubtful"),
    "a unit without a meaning": (lambda: head().put("units", 6), "info:units-doubtful"),
    "a slope of -1": (lambda: head().put("slope", -1), "warning:header-values"),
    "a slope of inf": (lambda: head().put("slope", INF), "warning:header-values"),
    "an unknown code": (lambda: head().put("sform_code", 9), "warning:header-values"),
    "half of the slices": (
        lambda: head().put("dim", 3, 40, 50, 22, 1, 1, 1, 1), "warning:surplus-data"),
    "a type of fewer bytes": (lambda: head().put("datatype", 2), "warning:surplus-data"),
    "a shear of half a degree": (lambda: head(shear=0.5), "warning:sheared"),
    "a shear of 20 degrees": (lambda: head(shear=20), "warning:sheared"),
    "a qfac that was never set": (lambda: head().put("qfac", 0), "error:orientation-differs"),
    "a qform of nan that is not used": (
        lambda: head().put("qoffset", NAN, 0, 0), "warning:header-values"),
    "a qform 1e30 mm away that is not used": (
        lambda: head().put("qoffset", 0, 1e30, 0), "warning:header-values"),
    "a quaternion of 2 that is not used": (
        lambda: head().put("quaternion", 2, 0, 0), "warning:header-values"),
    "a place 5 m away": (lambda: head().put("offset_x", 5000), "warning:header-values"),
    "a qfac of 0.5": (lambda: only_qform().put("qfac", 0.5), "warning:header-values"),
    "a qfac of nan": (lambda: only_qform().put("qfac", NAN), "warning:header-values"),
    "voxels of 8 mm": (lambda: head(2), "error:thick-slices"),
}  # fmt: skip


@pytest.mark.parametrize("name", ["scan.nii", "scan.nii.gz"])
@pytest.mark.parametrize("kind", REPORTED)
def test_what_contradicts_itself_is_reported(kind: str, name: str, tmp_path: Path) -> None:
    make, tag = REPORTED[kind]
    volume = read_volume(make().save(tmp_path / name))
    assert tag in [finding.tag for finding in (*volume.findings, *check_image(volume))]
    assert 100 < max(volume.grid.spacing) * 50 < 500  # the size of a head, in mm


SILENT: dict[str, Callable[[], Header]] = {
    "nothing": head,
    "no unit": lambda: head().put("units", 0),
    "mm and seconds": lambda: head().put("units", 10),
    "no scaling": lambda: head().put("slope", 0),
    "scaling as nibabel leaves it": lambda: head().put("slope", NAN).put("intercept", NAN),
    "one form": only_sform,
    "the other form": only_qform,
    "shear by rounding": lambda: head(shear=0.005),
}


@pytest.mark.parametrize("kind", SILENT)
def test_what_is_usual_is_not_reported(kind: str, tmp_path: Path) -> None:
    assert read_volume(SILENT[kind]().save(tmp_path / "scan.nii.gz")).findings == ()


def test_a_library_does_not_speak_in_our_place(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for number, change in enumerate((("vox_offset", 353), ("pixdim", -4, 4, 4), ("qfac", 0))):
        path = head().put(*change).save(tmp_path / f"{number}.nii.gz")
        with contextlib.suppress(ImageReadError):
            read_volume(path)
    assert capfd.readouterr() == ("", "")


def test_the_angle_of_a_sheared_scan_is_reported(tmp_path: Path) -> None:
    (found,) = (
        one
        for one in read_volume(head(shear=12).save(tmp_path / "scan.nii")).findings
        if one.code == "sheared"
    )
    assert "12.0 degrees" in found.message


LIMITED = """
import sys
from deepmrseg_bids.errors import DeepMRSegError
from deepmrseg_bids.imaging.nifti import read_volume
try:
    read_volume(sys.argv[1])
except DeepMRSegError as error:
    print(error)
"""


def test_dims_beyond_the_memory_are_refused_before_memory_is_asked_for(tmp_path: Path) -> None:
    """A gzip of 3 MB that unpacks to 2.7 GiB, in a process that may take 2 GiB."""
    header = head(1 / 8).put("dim", 3, 900, 900, 900, 1, 1, 1, 1)
    path = tmp_path / "scan.nii"
    with path.open("wb") as stream:
        stream.write(header.content[:352])
        stream.truncate(352 + 4 * 900**3)  # sparse
    ended = subprocess.run(
        [sys.executable, "-c", LIMITED, str(path)],
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (2**31, 2**31)),
    )
    assert "needs 2.7 GiB of memory" in ended.stdout and "available" in ended.stdout, ended


@pytest.mark.robustness(
    "impossible size in the header",
    tried="voxels 15 times too large (a head of 2.6 m), and of 1/40 of their size; a good scan",
)
def test_a_header_of_an_impossible_size_costs_its_session_alone(
    tiny_model: Path,
    scan: Callable[[int], Path],
    tmp_path: Path,
    came_out: Callable[[str], None],
) -> None:
    study = Study(tmp_path, tiny_model)
    fill(study.raw, scan, "sub-01_T1w", "sub-02_T1w", "sub-03_T1w")
    for name, scale in (("02", 15.0), ("03", 1 / 40)):
        path = study.raw / f"sub-{name}/anat/sub-{name}_T1w.nii.gz"
        head(scale, shape=(44, 52, 40)).save(path)
    ended = study.run("--no-reports")
    rows = study.rows
    assert ended.code == 3 and rows["sub-01"][0] == "done", ended.err
    assert {rows[f"sub-{name}"][0] for name in ("02", "03")} == {"failed"}
    assert "impossible" in rows["sub-02"][1] and "covers only" in rows["sub-03"][1]
    came_out(
        f"exit code {ended.code}; their sessions failed: the voxels are impossible, and the image "
        "covers only 4.4 x 5.2 x 4 mm; the other one was completed"
    )


@pytest.mark.robustness(
    "contradictory numbers in the header",
    tried="pixdim twice the sform, units metre on mm, half of the slices announced, a shear of 5 "
    "degrees",
)
def test_contradictions_are_in_the_table_and_on_the_page(
    tiny_model: Path,
    scan: Callable[[int], Path],
    tmp_path: Path,
    came_out: Callable[[str], None],
) -> None:
    study = Study(tmp_path, tiny_model)
    names = ["01", "02", "03", "04"]
    fill(study.raw, scan, *(f"sub-{name}_T1w" for name in names))
    paths = [study.raw / f"sub-{name}/anat/sub-{name}_T1w.nii.gz" for name in names]
    good = [Header(bytearray(gzip.decompress(path.read_bytes()))) for path in paths]
    good[0].put("pixdim", 8, 8, 8).save(paths[0])
    good[1].put("units", 1).save(paths[1])
    good[2].put("dim", 3, 44, 52, 38, 1, 1, 1, 1).save(paths[2])
    tilted = bytearray(good[3].content)
    np.frombuffer(tilted, "<f4", 12, 280)[6] = 4 * np.tan(np.radians(5))  # srow_y, third column
    Header(tilted).save(paths[3])
    ended = study.run()
    assert ended.code == 0, ended.err
    tags = ["error:voxel-size-differs", "warning:units-doubtful", "warning:surplus-data",
            "warning:sheared"]  # fmt: skip
    table = (study.out / "logs" / "sessions.tsv").read_text(encoding="utf-8")
    for name, tag in zip(names, tags, strict=True):
        line = next(row for row in table.splitlines() if row.startswith(f"sub-{name}"))
        assert tag in line
    assert "sheared by 5.0 degrees" in study.page("04")
    came_out(f"done, with {', '.join(tags)}")

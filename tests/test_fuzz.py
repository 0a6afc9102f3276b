"""Files that are wrong in ways nobody thought of: the readers answer with our errors, in little
time and memory, or read them.
"""

from __future__ import annotations

import gzip
import json
import logging
import struct
import time
import tracemalloc
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deepmrseg_bids.bids.participants import read_people
from deepmrseg_bids.bids.provenance import Digests, findings_of
from deepmrseg_bids.bids.query import find_sessions
from deepmrseg_bids.bids.tables import read_morph, read_sessions
from deepmrseg_bids.config import read_config
from deepmrseg_bids.errors import DeepMRSegError, ImageError
from deepmrseg_bids.group.tables import write_morphs
from deepmrseg_bids.group.volumes import read_volumes
from deepmrseg_bids.imaging.labels import LabelTable
from deepmrseg_bids.imaging.nifti import read_labels, read_volume, voxel_count
from deepmrseg_bids.tasks.registry import find_task
from deepmrseg_bids.train.samples import load_samples

_SECONDS, _MEBIBYTES = 5.0, 64
few = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def sound(kind: type = np.int16) -> bytes:
    """A NIfTI file of 6 x 7 x 8 voxels."""
    data = np.arange(6 * 7 * 8).reshape(6, 7, 8).astype(kind)
    image = nib.Nifti1Image(data, np.diag([-1.0, 1.5, 2.0, 1.0]))
    image.header.extensions.append(nib.nifti1.Nifti1Extension(6, b"a comment"))
    return bytes(image.to_bytes())


SOUND = sound()
FIELDS = {
    "dim": (40, "<8h", st.integers(-(2**15), 2**15 - 1)),
    "datatype": (70, "<2h", st.sampled_from([0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 768, 1024,
                                             1280, 1536, 1792, 2048, 2304, -1, 999])),
    "pixdim": (76, "<8f", st.floats(width=32)),
    "vox_offset": (108, "<f", st.floats(width=32)),
    "scl": (112, "<2f", st.floats(width=32)),
    "form_codes": (252, "<2h", st.integers(-(2**15), 2**15 - 1) | st.integers(0, 5)),
    "quaternion": (256, "<6f", st.floats(width=32)),
    "srow": (280, "<12f", st.floats(width=32)),
    "magic": (344, "<4s", st.sampled_from([b"ni1\0", b"n+2\0", b"abcd", b"n+1\1"])),
    "extension": (348, "<4bii", st.integers(-128, 127)),
    "sizeof_hdr": (0, "<i", st.sampled_from([0, 348, 540, -1, 2**31 - 1])),
}  # fmt: skip


@st.composite
def headers(draw: st.DrawFn) -> bytes:
    """A sound file with one to three fields of its header exchanged, maybe cut off."""
    raw = bytearray(SOUND)
    for name in draw(st.lists(st.sampled_from(sorted(FIELDS)), min_size=1, max_size=3)):
        place, form, values = FIELDS[name]
        count = len(struct.unpack(form, bytes(struct.calcsize(form))))
        new = struct.pack(form, *(draw(values) for _ in range(count)))
        raw[place : place + len(new)] = new
    return bytes(raw[: draw(st.just(len(raw)) | st.integers(0, len(raw)))])


@st.composite
def flipped(draw: st.DrawFn, whole: bytes) -> bytes:
    """A file with some bytes exchanged, taken out or put in."""
    raw = bytearray(whole)
    for _ in range(draw(st.integers(1, 8))):
        place = draw(st.integers(0, max(0, len(raw) - 1)))
        raw[place : place + draw(st.integers(0, 3))] = draw(st.binary(max_size=3))
    return bytes(raw)


def bounded(read: Callable[[], object], expected: type[Exception]) -> None:
    """Read; an error of ours will do; time and memory stay small."""
    tracemalloc.start()
    start = time.perf_counter()
    try:
        with suppress(expected):
            read()
    finally:
        peak = tracemalloc.get_traced_memory()[1] / 2**20
        tracemalloc.stop()
    assert time.perf_counter() - start < _SECONDS
    assert peak < _MEBIBYTES, f"{peak:.0f} MiB"


def read_all(path: Path) -> None:
    for read in (
        lambda: read_volume(path),
        lambda: read_volume(path, force_header=True),
        lambda: read_labels(path),
        lambda: voxel_count(path),
    ):
        bounded(read, ImageError)


@pytest.fixture(autouse=True)
def hush() -> None:
    """Nibabel logs each thing that is wrong with a header."""
    logging.getLogger("nibabel").setLevel(logging.CRITICAL)


@pytest.mark.filterwarnings("ignore")  # what numpy and nibabel say about such numbers
@few
@given(raw=headers(), packed=st.booleans())
def test_no_header_crashes_the_reader(tmp_path: Path, raw: bytes, packed: bool) -> None:
    path = tmp_path / ("scan.nii.gz" if packed else "scan.nii")
    path.write_bytes(gzip.compress(raw, 1) if packed else raw)
    read_all(path)


@pytest.mark.filterwarnings("ignore")
@few
@given(raw=flipped(gzip.compress(SOUND, mtime=0)) | flipped(SOUND) | st.binary(max_size=400),
       name=st.sampled_from(["scan.nii.gz", "scan.nii"]))  # fmt: skip
def test_no_bytes_crash_the_reader(tmp_path: Path, raw: bytes, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(raw)
    read_all(path)


@pytest.mark.parametrize(
    "shape", [(32767, 32767, 32767), (2000, 2000, 2000), (1, 30000, 30000), (400, 400, 400)]
)
@pytest.mark.parametrize("name", ["scan.nii.gz", "scan.nii"])
def test_a_header_that_promises_too_much_takes_no_memory(
    tmp_path: Path, shape: tuple[int, int, int], name: str
) -> None:
    raw = bytearray(sound(np.float64))
    raw[40:56] = struct.pack("<8h", 3, *shape, 1, 1, 1, 1)
    path = tmp_path / name
    path.write_bytes(gzip.compress(bytes(raw)) if name.endswith("gz") else bytes(raw))
    read_all(path)
    with pytest.raises(ImageError, match=r"truncated|more than any|one 3D volume"):
        read_volume(path)


def test_a_large_4d_image_is_refused_before_its_voxels_are_read(tmp_path: Path) -> None:
    image = nib.Nifti1Image(np.zeros((64, 64, 64, 100), np.float32), np.eye(4))
    image.to_filename(tmp_path / "bold.nii.gz")
    with pytest.raises(ImageError, match="64 x 64 x 64 x 100"):
        read_volume(tmp_path / "bold.nii.gz")
    bounded(lambda: read_volume(tmp_path / "bold.nii.gz"), ImageError)


# --- tables and settings

cells = st.text(max_size=8) | st.sampled_from(
    ["n/a", "nan", "inf", "-1", "1e999", "1", "2.5", "sub-01", "../../etc/passwd", "", '"', "\0"]
)
MORPH = """\
index\tname\tvolume_mm3\tvolume_low_mm3\tvolume_high_mm3\tvolume_icv_percent\tconfidence
1\tBrain\t8.0\t7.0\tn/a\t100.0\t0.9
"""
SESSIONS = """\
participant_id\tsession_id\ttask\tstatus\treason\tseconds\tpeak_mib\tfindings
sub-01\tn/a\tbrain\tdone\tn/a\t1.0\t300\tinfo:oblique
"""
TABLES: dict[str, tuple[Callable[[Path], object], str]] = {
    "morph": (read_morph, MORPH),
    "sessions": (read_sessions, SESSIONS),
    "samples": (load_samples, "sample_id\tT1w\tdseg\tweight\na\ta.nii\ta.nii\t1\n"),
    "labels": (LabelTable.read, "index\tname\tabbreviation\tcolor\n1\tBrain\tBR\t#3cb44b\n"),
    "config": (read_config, 'nprocs = 2\ntasks = ["brain"]\nmem = "4G"\n[models]\nbrain = "x"\n'),
    "digests": (Digests.read, "path\tsize\tmtime_ns\tsha256\n/x\t1\t2\tab\n"),
}  # fmt: skip


@st.composite
def tables(draw: st.DrawFn, sound: str) -> bytes:
    """A sound table with other cells, more lines, or damaged bytes."""
    lines = [line.split("\t") for line in sound.splitlines()]
    for _ in range(draw(st.integers(0, 4))):
        line = draw(st.sampled_from(lines[1:] or lines))
        line[draw(st.integers(0, len(line) - 1))] = draw(cells)
    lines += draw(st.lists(st.lists(cells, max_size=9), max_size=3))
    text = "\n".join("\t".join(line) for line in lines) + draw(st.sampled_from(["\n", ""]))
    whole = text.encode("utf-8", "surrogatepass")
    return draw(st.just(whole) | flipped(whole) | st.binary(max_size=200))


@pytest.mark.parametrize("kind", TABLES)
@few
@given(data=st.data())
def test_no_table_and_no_settings_crash_their_reader(
    tmp_path: Path, kind: str, data: st.DataObject
) -> None:
    read, text = TABLES[kind]
    path = tmp_path / "file"
    path.write_bytes(data.draw(tables(text)))
    (tmp_path / "a.nii").touch()
    bounded(lambda: read(path), DeepMRSegError)


leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6)
trees = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)


@few
@given(tree=trees)
def test_no_sidecar_crashes_its_reader(tmp_path: Path, tree: object) -> None:
    (tmp_path / "x.json").write_text(json.dumps({"Findings": tree}))
    assert findings_of(tmp_path, Path("x.nii.gz")) == ()
    (tmp_path / "x.json").write_text(json.dumps(tree))
    assert findings_of(tmp_path, Path("x.nii.gz")) == ()


@few
@given(raw=st.data())
def test_no_participants_table_stops_the_group(tmp_path: Path, raw: st.DataObject) -> None:
    anat = tmp_path / "out" / "sub-01" / "anat"
    anat.mkdir(parents=True, exist_ok=True)
    (anat / "sub-01_seg-brain_morph.tsv").write_text(MORPH)
    people = tables("participant_id\tage\tsex\nsub-01\t40\tF\nsub-02\t<script>\tM\n")
    (tmp_path / "participants.tsv").write_bytes(raw.draw(people))
    (tmp_path / "participants.json").write_text(json.dumps(raw.draw(trees)))
    volumes = read_volumes(tmp_path / "out", find_task("brain"))
    found = read_people(tmp_path, volumes.sessions, taken=volumes.names)
    path = write_morphs(tmp_path / "out", volumes, found)
    header, row = path.read_text(encoding="utf-8").splitlines()
    assert len(header.split("\t")) == len(row.split("\t"))


entities = st.sampled_from(
    ["suffix", "session", "subject", "run", "datatype", "extension", "part", "acquisition", "nose",
     "return_type", "scope", "regex_search", "target", "invalid_filters", "absolute_paths"]
)  # fmt: skip
values = leaves | st.sampled_from(["*", "../../x", "/etc/passwd", "T1w", "a|(", ".*"]) | trees


@pytest.fixture(scope="module")
def bids(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of one image, beside a secret one."""
    root = tmp_path_factory.mktemp("fuzz") / "bids"
    for folder in (root, root.parent / "secret"):
        (folder / "sub-01" / "anat").mkdir(parents=True)
        (folder / "sub-01" / "anat" / "sub-01_T1w.nii.gz").write_bytes(b"x")
        text = json.dumps({"Name": "x", "BIDSVersion": "1.10.0"})
        (folder / "dataset_description.json").write_text(text)
    return root


@settings(max_examples=40, deadline=None)
@given(
    own=st.dictionaries(entities, values, max_size=3) | trees, kind=st.sampled_from(["t1w", "x"])
)
def test_no_filter_crashes_the_query_or_leads_out_of_the_data_set(
    bids: Path, own: object, kind: str
) -> None:
    sessions = []
    with suppress(DeepMRSegError):
        sessions = find_sessions(bids, filters={kind: own})
        assert [session.name for session in sessions] == ["sub-01"]
    for session in sessions:
        for image in session.images.values():
            assert bids in image.resolve().parents

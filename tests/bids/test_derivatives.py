"""OUT_DIR: whole files or none, equal bytes for equal runs, and tables that can be read back."""

import dataclasses
import errno
import json
import os
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from deepmrseg_bids.app.group import run_group
from deepmrseg_bids.bids import names, tables
from deepmrseg_bids.bids.derivatives import (
    MORPH_COLUMNS,
    MorphRow,
    SessionRow,
    Staging,
    label_maps_of,
    publish,
    read_morph,
    read_sessions,
    remove_leftovers,
    tasks_in,
    write_bytes,
    write_dataset_files,
    write_json,
    write_morph,
    write_sessions,
)
from deepmrseg_bids.bids.provenance import Provenance, Sidecar
from deepmrseg_bids.config import RunConfig
from deepmrseg_bids.errors import DatasetError, UsageError
from deepmrseg_bids.findings import Finding
from deepmrseg_bids.imaging.grid import Grid
from deepmrseg_bids.imaging.labels import Label, LabelTable
from deepmrseg_bids.imaging.nifti import LabelMap, write_labels, write_probabilities
from deepmrseg_bids.tasks.registry import find_task
from deepmrseg_bids.tasks.spec import TaskSpec

T1W = "sub-01_ses-1_T1w.nii.gz"
FLAIR = "sub-01_ses-1_FLAIR.nii.gz"
TASKS = ("brain", "deepbrain", "hippocampus", "wholebrain", "wml")
SPECS = [find_task(task) for task in TASKS]
TABLES = {task: LabelTable((Label(1, "Left-A"), Label(2, "Right-A"))) for task in TASKS}
ROWS = [
    MorphRow(1, "Left-A", 1234.5, 1200.25, 1300.0, 0.12345, 0.9876, None, None, 0.145),
    MorphRow(2, "Right-A", 0.0, None, None, None, None),
]


def content(folder: Path) -> dict[str, bytes]:
    """Every file under a folder."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def table(path: Path) -> list[list[str]]:
    """The cells of a TSV, its header first."""
    return [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines()]


def full_disk(*_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


# -- files ---------------------------------------------------------------------------------


def test_an_equal_file_is_not_touched(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file"
    write_bytes(path, b"one")
    before = path.stat()
    write_bytes(path, b"one")
    assert path.stat().st_ino == before.st_ino
    write_bytes(path, b"two")
    assert path.read_bytes() == b"two" and os.listdir(path.parent) == ["file"]


def test_json_of_an_equal_tree_has_equal_bytes(tmp_path: Path) -> None:
    write_json(tmp_path / "a", {"b": 1, "a": "é <script>"})
    write_json(tmp_path / "b", {"a": "é <script>", "b": 1})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert json.loads((tmp_path / "a").read_text("utf-8")) == {"b": 1, "a": "é <script>"}


def test_json_refuses_what_json_does_not_know(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(tmp_path / "a", {"x": float("nan")})
    assert not list(tmp_path.iterdir())


def test_a_published_file_moves(tmp_path: Path) -> None:
    staged, final = tmp_path / "staged", tmp_path / "out" / ("x" * 255)
    staged.write_bytes(b"labels")
    publish(staged, final)
    assert content(tmp_path) == {f"out/{'x' * 255}": b"labels"}


def test_a_published_file_has_the_permissions_of_any_new_file(tmp_path: Path) -> None:
    (tmp_path / "staged").write_bytes(b"")
    publish(tmp_path / "staged", tmp_path / "final")
    (tmp_path / "plain").touch()
    assert (tmp_path / "final").stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.parametrize("where", ["os.fsync", "os.replace", "shutil.copyfileobj"])
def test_a_full_disk_leaves_the_old_file_and_the_staged_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    staged, final = tmp_path / "staged", tmp_path / "final"
    staged.write_bytes(b"new")
    final.write_bytes(b"old")
    monkeypatch.setattr(where, full_disk)
    with pytest.raises(DatasetError, match=r"final: cannot be written .No space left"):
        publish(staged, final)
    assert content(tmp_path) == {"staged": b"new", "final": b"old"}


def test_a_file_where_a_folder_should_be_is_told(tmp_path: Path) -> None:
    (tmp_path / "out").touch()
    with pytest.raises(DatasetError, match="cannot be written"):
        write_bytes(tmp_path / "out" / "file", b"")


def test_a_session_is_published_whole(tmp_path: Path) -> None:
    with Staging(tmp_path / "out", tmp_path / "work") as staging:
        staging.path("a/b.nii.gz").write_bytes(b"1")
        staging.path("a/b.json").write_bytes(b"2")
        assert not (tmp_path / "out").exists()
    assert content(tmp_path) == {"out/a/b.nii.gz": b"1", "out/a/b.json": b"2"}


def test_a_failed_session_publishes_nothing(tmp_path: Path) -> None:
    def fail() -> None:
        with Staging(tmp_path / "out", tmp_path / "work") as staging:
            staging.path("a.nii.gz").write_bytes(b"1")
            raise RuntimeError("no brain")

    with pytest.raises(RuntimeError, match="no brain"):
        fail()
    assert content(tmp_path) == {}


@pytest.mark.parametrize("killed_at", range(4))
def test_a_sidecar_never_stands_beside_another_runs_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed_at: int
) -> None:
    old = {"x.json": b"old", "x.nii.gz": b"old", "x.tsv": b"old", "other.json": b"old"}
    for name, data in old.items():
        write_bytes(tmp_path / "out" / name, data)
    done: list[str] = []

    def replace(source: Path, target: Path) -> None:
        if len(done) == killed_at:
            raise KeyboardInterrupt
        done.append(target.name)
        os.rename(source, target)

    monkeypatch.setattr("os.replace", replace)
    try:
        with Staging(tmp_path / "out", tmp_path / "work") as staging:
            for name in ("x.json", "x.nii.gz", "x.tsv"):
                staging.path(name).write_bytes(b"new")
    except KeyboardInterrupt:
        pass
    found = content(tmp_path / "out")
    assert done == ["x.nii.gz", "x.tsv", "x.json"][:killed_at]
    assert found["other.json"] == b"old"
    assert set(found) <= set(old) and set(found.values()) <= {b"old", b"new"}
    assert found.get("x.json") in (None, b"new")
    assert ("x.json" in found) == (killed_at == 3)


@pytest.mark.parametrize("bad", ["../x", "/x"])
def test_staging_stays_inside_the_output(tmp_path: Path, bad: str) -> None:
    with Staging(tmp_path) as staging, pytest.raises(ValueError, match="inside OUT_DIR"):
        staging.path(bad)
    with pytest.raises(ValueError, match="inside `with"):
        staging.path("x")


def test_only_old_leftovers_are_removed(tmp_path: Path) -> None:
    old, young = tmp_path / "a" / ".deepmrseg-1.tmp", tmp_path / ".deepmrseg-2.tmp"
    old.parent.mkdir()
    old.touch()
    young.touch()
    os.utime(old, (0, time.time() - 2e5))
    assert remove_leftovers(tmp_path) == 1
    assert not old.exists() and young.exists()


# -- the files of the data set -------------------------------------------------------------


def test_dataset_files_are_written_once(tmp_path: Path) -> None:
    for _ in range(2):
        write_dataset_files(
            tmp_path / "out", tmp_path / "raw", tasks=SPECS, tables=TABLES, version="1.2"
        )
        inodes = {path.stat().st_ino for path in (tmp_path / "out").iterdir()}
    write_dataset_files(
        tmp_path / "out", tmp_path / "raw", tasks=SPECS, tables=TABLES, version="1.2"
    )
    assert inodes == {path.stat().st_ino for path in (tmp_path / "out").iterdir()}
    assert LabelTable.read(tmp_path / "out" / "seg-wml_dseg.tsv") == TABLES["wml"]
    assert {".bidsignore", "README", "CITATION.md"} <= set(content(tmp_path / "out"))


def test_the_description_links_the_input_and_tells_no_absolute_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEEPMRSEG_CONTAINER", "docker:deepmrseg-bids:1.0")
    raw, out = tmp_path / "my raw é", tmp_path / "out"
    write_json(raw / "dataset_description.json", {"DatasetDOI": "doi:10.1/x"})
    write_dataset_files(out, raw, tasks=[], tables={}, version="1.2")
    tree = json.loads((out / "dataset_description.json").read_text("utf-8"))
    assert tree["DatasetType"] == "derivative"
    assert tree["DatasetLinks"]["raw"] == "../my%20raw%20%C3%A9"
    assert set(tree["DatasetLinks"]) == {"raw", "templateflow"}
    assert tree["SourceDatasets"] == [{"URL": "../my%20raw%20%C3%A9", "DOI": "doi:10.1/x"}]
    assert tree["GeneratedBy"] == [
        {
            "Name": "deepmrseg-bids",
            "Version": "1.2",
            "Container": {"Type": "docker", "Tag": "deepmrseg-bids:1.0"},
        }
    ]
    assert all(str(tmp_path).encode() not in data for data in content(out).values())


@pytest.mark.parametrize("broken", [b"", b"[1]", b"\xff", b'{"DatasetDOI": 3}'])
def test_a_broken_description_of_the_input_does_no_harm(tmp_path: Path, broken: bytes) -> None:
    (tmp_path / "dataset_description.json").write_bytes(broken)
    out = tmp_path / "derivatives" / "x"
    write_dataset_files(out, tmp_path, tasks=[], tables={}, version="1")
    tree = json.loads((out / "dataset_description.json").read_text("utf-8"))
    assert tree["SourceDatasets"] == [{"URL": "../.."}]


def test_runs_that_write_at_once_do_not_disturb_each_other(tmp_path: Path) -> None:
    def run(_: int) -> None:
        write_dataset_files(tmp_path / "out", tmp_path, tasks=SPECS, tables=TABLES, version="1")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(run, range(24)))
    write_dataset_files(tmp_path / "alone", tmp_path, tasks=SPECS, tables=TABLES, version="1")
    assert content(tmp_path / "out") == content(tmp_path / "alone")


def a_sidecar(**more: Any) -> dict[str, Any]:
    source = names.bids_uri(f"sub-01/ses-1/anat/{T1W}", "raw")
    made = Provenance(
        inputs={source: "ab" * 32},
        software={"deepmrseg-bids": "1.0"},
        models={"wml": {"Version": "1", "SHA256": "cd" * 32}},
        parameters={"tta": False},
    )
    findings = [
        Finding("oblique", "info", "tilted"),
        Finding("single-volume-4d", "warning", "4D image with one volume: processed as 3D"),
    ]
    return Sidecar("Labels", made, findings, spatial_reference=source, **more).to_json()


def test_a_sidecar_says_where_a_file_comes_from() -> None:
    tree = a_sidecar(kind="Brain", label_map=("background", "lesion"))
    assert tree["Sources"] == [f"bids:raw:sub-01/ses-1/anat/{T1W}"] == list(tree["InputSHA256"])
    assert tree["Type"] == "Brain" and tree["LabelMap"] == ["background", "lesion"]
    assert tree["Models"]["wml"]["SHA256"] == "cd" * 32
    assert [one["Code"] for one in tree["Findings"]] == ["single-volume-4d", "oblique"]
    assert tree["Warnings"] == ["4D image with one volume: processed as 3D"]
    assert "Resolution" not in tree


# -- tables --------------------------------------------------------------------------------

volumes = st.integers(0, 10**8).map(lambda value: value / 100)


@given(
    st.lists(
        st.builds(
            MorphRow, st.integers(1, 2000), st.sampled_from(["A", "Left-B", "é <b>'\""]), volumes,
            st.none() | volumes, st.none() | volumes,
            st.none() | st.integers(0, 10**7).map(lambda value: value / 10**5),
            st.none() | st.integers(0, 10**4).map(lambda value: value / 10**4),
        ),
        max_size=4,
        unique_by=(lambda row: row.index, lambda row: row.name),  # else it is damaged
    )
)  # fmt: skip
def test_volumes_survive_the_round_trip(
    tmp_path_factory: pytest.TempPathFactory, rows: list[MorphRow]
) -> None:
    ends = [(row.volume_low_mm3, row.volume_high_mm3) for row in rows]
    assume(all(None in (low, high) or low <= high for low, high in ends))
    # without the disk's sync, which this claim does not need
    path = tmp_path_factory.getbasetemp() / "round_trip_morph.tsv"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.fsync", lambda _: None)
        write_morph(path, rows)
    assert read_morph(path) == rows


def test_the_floor_of_a_model_is_a_column_where_there_is_one(tmp_path: Path) -> None:
    rows = [MorphRow(1, "Lesion", 800.0, 0.0, 2000.0, 0.1, 0.3, 4, 1500.0)]
    write_morph(tmp_path / "x_morph.tsv", rows)
    assert table(tmp_path / "x_morph.tsv")[0][-2:] == ["lesion_count", "volume_floor_mm3"]
    assert read_morph(tmp_path / "x_morph.tsv") == rows and rows[0].below_floor
    assert not MorphRow(1, "Lesion", 800.0, None, None, None, None).below_floor


def test_volumes_have_the_columns_and_decimals_of_the_contract(tmp_path: Path) -> None:
    write_morph(tmp_path / "x_morph.tsv", ROWS, provenance=a_sidecar())
    assert table(tmp_path / "x_morph.tsv") == [
        ["index", "name", "volume_mm3", "volume_low_mm3", "volume_high_mm3",
         "volume_icv_percent", "volume_brain_percent", "confidence"],
        ["1", "Left-A", "1234.50", "1200.25", "1300.00", "0.12345", "0.14500", "0.9876"],
        ["2", "Right-A", "0.00", "n/a", "n/a", "n/a", "n/a", "n/a"],
    ]  # fmt: skip
    tree = json.loads((tmp_path / "x_morph.json").read_text("utf-8"))
    assert tree["volume_mm3"]["Units"] == "mm^3" and tree["Sources"]
    assert set(MORPH_COLUMNS) - set(tree) == {"lesion_count", "volume_floor_mm3"}


def test_lesions_are_counted(tmp_path: Path) -> None:
    rows = [dataclasses.replace(ROWS[0], lesion_count=7)]
    write_morph(tmp_path / "x_morph.tsv", rows)
    assert read_morph(tmp_path / "x_morph.tsv") == rows
    assert "lesion_count" in json.loads((tmp_path / "x_morph.json").read_text("utf-8"))


def test_what_is_not_finite_is_written_as_missing(tmp_path: Path) -> None:
    row = dataclasses.replace(ROWS[0], confidence=float("nan"), volume_mm3=-0.0)
    write_morph(tmp_path / "x_morph.tsv", [row])
    assert table(tmp_path / "x_morph.tsv")[1][2::5] == ["0.00", "n/a"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: "", "incomplete"),
        (lambda text: text[:-1], "incomplete"),
        (lambda text: text[:-20] + "\n", "8 cells were expected"),
        (lambda text: text.replace("volume_mm3", "volume", 1), "lacks volume_mm3"),
        (lambda text: "participant_id\tage\nsub-01\t3\n", "not a table of volumes"),
        (lambda text: text.replace("1234.50", "many"), "line 2"),
        (lambda text: text.replace("1234.50", "n/a"), "line 2: no volume_mm3"),
        (lambda text: "\udcff", "cannot be read"),
    ],
)
def test_a_broken_table_of_volumes_is_refused(tmp_path: Path, change: Any, message: str) -> None:
    path = tmp_path / "x_morph.tsv"
    write_morph(path, ROWS)
    path.write_bytes(change(path.read_text("utf-8")).encode("utf-8", "surrogateescape"))
    with pytest.raises(DatasetError, match=message) as caught:
        read_morph(path)
    assert str(path) in str(caught.value)


def test_a_missing_table_of_volumes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="cannot be read"):
        read_morph(tmp_path / "none.tsv")


def test_the_log_of_sessions_holds_one_line_a_task(tmp_path: Path) -> None:
    rows = [
        SessionRow(
            "sub-01",
            "ses-1",
            "wml",
            "failed",
            "no\tsignal\n  at <all>\r\n",
            1.25,
            800.4,
            "warning:oblique,info:oblique",
            "sub-01_ses-1",
        ),
        SessionRow("sub-02", "", "brain", "done"),
    ]
    write_sessions(tmp_path / "logs" / "sessions.tsv", rows)
    assert table(tmp_path / "logs" / "sessions.tsv")[1:] == [
        [
            "sub-01",
            "ses-1",
            "wml",
            "failed",
            "no signal at <all>",
            "1.2",
            "800",
            "warning:oblique,info:oblique",
            "sub-01_ses-1",
        ],
        ["sub-02", "n/a", "brain", "done", "n/a", "n/a", "n/a", "n/a", "n/a"],
    ]
    back = read_sessions(tmp_path / "logs" / "sessions.tsv")
    assert back[0].reason == "no signal at <all>" and back[1] == rows[1]


def test_a_status_is_one_of_four() -> None:
    with pytest.raises(ValueError, match="'ok'"):
        SessionRow("sub-01", "", "wml", "ok")


@pytest.mark.parametrize("text", ["a\tb\n1\t2\n", "\t".join(tables._SESSION_COLUMNS), ""])
def test_a_foreign_log_of_sessions_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.tsv").write_text(text)
    with pytest.raises(DatasetError, match=r"x\.tsv"):
        read_sessions(tmp_path / "x.tsv")


# -- tasks of which only the results are there ---------------------------------------------


def own_task(**changes: Any) -> TaskSpec:
    """A task that no package offers."""
    facts = {"name": "nuts", "title": "Nuts", "description": "Left and right nut"}
    return dataclasses.replace(find_task("deepbrain"), **facts, **changes)


@pytest.mark.parametrize("native", ["T1w", "FLAIR"])
def test_a_task_of_ones_own_is_known_again_by_what_it_left(tmp_path: Path, native: str) -> None:
    spec = own_task(native=native, required=(native,))
    write_dataset_files(
        tmp_path, tmp_path / "raw", tasks=[spec], tables={"nuts": TABLES["brain"]}, version="1"
    )
    known = tasks_in(tmp_path)
    assert list(known) == [*TASKS, "nuts"]
    found = known["nuts"]
    assert (found.title, found.native, found.label_map) == ("Nuts", native, spec.label_map)
    with pytest.raises(UsageError, match=r"'nuts': add --model nuts=PATH"):
        found.segment(None)  # type: ignore[arg-type]


@pytest.mark.parametrize("facts", ["", "[1]", "{", '{"Title": 3, "NativeImage": []}', "\xff"])
def test_a_task_whose_facts_cannot_be_read_is_known_by_its_name(tmp_path: Path, facts: str) -> None:
    (tmp_path / "seg-nuts_dseg.tsv").write_text("index\tname\n1\tNut\n")
    (tmp_path / "seg-nuts_dseg.json").write_bytes(facts.encode("latin-1"))
    (tmp_path / "seg-a.b_dseg.tsv").touch()  # no name of a task
    known = tasks_in(tmp_path)
    assert list(known) == [*TASKS, "nuts"]
    assert known["nuts"].title in ("nuts", "3") and known["nuts"].native == "T1w"


def test_the_facts_of_known_tasks_are_those_of_the_package(tmp_path: Path) -> None:
    (tmp_path / "seg-wml_dseg.tsv").touch()
    write_json(tmp_path / "seg-wml_dseg.json", {"Title": "Something else", "NativeImage": "T1w"})
    assert tasks_in(tmp_path)["wml"] is find_task("wml")


@pytest.mark.parametrize(
    ("there", "found"),
    [
        (["seg-wml_dseg", "acq-x_space-FLAIR_seg-wml_dseg"], [1, 0]),
        (["space-FLAIR_seg-wml_dseg"], [0]),
        (["seg-wml_dseg", "seg-deepbrain_dseg", "space-MNI152NLin6Asym_seg-wml_dseg"], [0]),
        ([], []),
    ],
)
def test_lesions_on_the_flair_come_before_those_on_the_t1w(
    tmp_path: Path, there: list[str], found: list[int]
) -> None:
    folder = tmp_path / names.anat_folder(T1W)
    folder.mkdir(parents=True)
    paths = [folder / f"sub-01_ses-1_{ending}.nii.gz" for ending in there]
    for path in paths:
        path.touch()
    maps = list(label_maps_of(tmp_path, find_task("wml"), "sub-01_ses-1"))
    assert maps == [paths[place] for place in found]


# -- links ---------------------------------------------------------------------------------


def test_a_link_in_the_output_does_not_lead_results_into_the_raw_data(tmp_path: Path) -> None:
    raw, out = tmp_path / "raw", tmp_path / "out"
    (raw / "sub-01" / "anat").mkdir(parents=True)
    out.mkdir()
    (out / "sub-01").symlink_to(raw / "sub-01")
    with (
        pytest.raises(DatasetError, match="a link points outside OUT_DIR"),
        Staging(out) as staging,
    ):
        write_json(staging.path("sub-01/anat/x.json"), {})
    assert not list((raw / "sub-01" / "anat").iterdir())


def test_an_output_folder_that_is_itself_a_link_is_fine(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "real")
    with Staging(tmp_path / "out") as staging:
        write_json(staging.path("sub-01/anat/x.json"), {})
    assert (tmp_path / "real" / "sub-01" / "anat" / "x.json").exists()


# -- the validator -------------------------------------------------------------------------


def fake_output(out: Path, raw: Path) -> None:
    """One of each file that the app can write."""
    write_dataset_files(out, raw, tasks=SPECS, tables=TABLES, version="1.0")
    labels = LabelMap(np.arange(27, dtype=np.uint8).reshape(3, 3, 3) % 3, Grid((3,) * 3, np.eye(4)))
    posteriors = np.full((3, 3, 3, 3), 1 / 3, np.float32)
    template = "MNI152NLin2009cAsym"
    with Staging(out) as staging:
        images = [names.native_label_map_path(find_task("wml"), {"T1w": T1W, "FLAIR": FLAIR})]
        for task, spec in zip(TASKS, SPECS, strict=True):
            images.append(names.label_map_path(T1W, spec.label_map))
            images.append(names.label_map_path(T1W, spec.label_map, space=template, res="2"))
            probabilities = names.probabilities_path(T1W, task)
            write_probabilities(staging.path(probabilities), posteriors, labels.grid, count=3)
            facts = a_sidecar(label_map=("background", "a", "b"))
            write_json(staging.path(names.sidecar_path(probabilities)), facts)
            morph = staging.path(names.morph_path(T1W, task))
            write_morph(morph, ROWS, provenance=a_sidecar())
        for image in images:
            write_labels(staging.path(image), labels)
            facts = a_sidecar(kind="Brain", resolution="2 mm isotropic")
            write_json(staging.path(names.sidecar_path(image)), facts)
        transform = names.transform_path(T1W, "T1w", template)
        figure = names.figure_path(T1W, "overlay", task="wml")
        reports = [names.report_path("01"), names.group_report_path()]
        logs = ["logs/config.toml", "logs/crash-1.txt"]
        for other in map(str, (transform, figure, *reports, *logs)):
            staging.path(other).write_text("by deepmrseg-bids")
        write_json(staging.path(names.sidecar_path(transform)), a_sidecar())
        write_sessions(
            staging.path("logs/sessions.tsv"), [SessionRow("sub-01", "ses-1", "wml", "done")]
        )
    raw.mkdir(exist_ok=True)
    assert run_group(RunConfig(raw, out, "group")) == 0


@pytest.mark.validator
def test_the_output_is_valid_bids(tmp_path: Path) -> None:
    beside = shutil.which("bids-validator-deno", path=str(Path(sys.executable).parent))
    program = beside or shutil.which("bids-validator-deno")
    if program is None:
        pytest.skip("bids-validator-deno is neither beside the Python interpreter nor on PATH")
    out, answer = tmp_path / "out", tmp_path / "answer.json"
    fake_output(out, tmp_path / "raw")
    config = Path(__file__).parents[2] / "bids_validator_config.json"
    command = [program, str(out), "--format", "json", "-o", str(answer), "-c", str(config)]
    subprocess.run(command, check=False, capture_output=True, timeout=120)
    issues = json.loads(answer.read_text("utf-8"))["issues"]["issues"]
    told = [issue for issue in issues if issue["severity"] in ("error", "warning")]
    assert told == []

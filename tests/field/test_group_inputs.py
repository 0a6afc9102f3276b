"""The group level survives its inputs: two models, damaged tables, a wrong BIDS_DIR."""

from __future__ import annotations

import hashlib
import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from deepmrseg_bids.app.group import run_group
from deepmrseg_bids.bids import names
from deepmrseg_bids.bids.derivatives import Staging, write_dataset_files
from deepmrseg_bids.bids.label_tables import label_table_of
from deepmrseg_bids.bids.tables import MorphRow, SessionRow, write_morph, write_sessions
from deepmrseg_bids.config import RunConfig
from deepmrseg_bids.errors import DatasetError
from deepmrseg_bids.group.volumes import read_volumes
from deepmrseg_bids.imaging.grid import Grid
from deepmrseg_bids.imaging.labels import Label, LabelTable
from deepmrseg_bids.imaging.nifti import LabelMap, write_labels
from deepmrseg_bids.tasks.registry import find_task

TASK = "deepbrain"
OLD = LabelTable((Label(36, "Right-Caudate"), Label(37, "Left-Caudate"), Label(55, "Right-X")))
RENAMED = LabelTable((Label(36, "Right-Caudate"), Label(37, "Left-Caudate"), Label(55, "Right-Y")))
OTHER = LabelTable((Label(1, "Left-Caudate"), Label(2, "Stem")))
GRID = Grid((8, 8, 8), np.diag([2.0, 2.0, 2.0, 1.0]))


def dataset(folder: Path, table: LabelTable) -> None:
    """What a run with a model of these labels writes first."""
    (folder / "raw").mkdir(exist_ok=True)
    write_dataset_files(
        folder / "out",
        folder / "raw",
        tasks=[find_task(TASK)],
        tables={TASK: table},
        version="1",
    )


def session(folder: Path, stem: str, table: LabelTable, volume: float = 4000.0) -> Path:
    """What a finished session leaves, and its scan."""
    t1w = f"{stem}_T1w.nii.gz"
    out, raw = folder / "out", folder / "raw" / names.anat_folder(t1w) / t1w
    raw.parent.mkdir(parents=True, exist_ok=True)
    raw.write_bytes(stem.encode())
    path = out / names.label_map_path(t1w, find_task(TASK).label_map)
    path.parent.mkdir(parents=True, exist_ok=True)
    data = np.zeros(GRID.shape, np.uint8)
    for place, index in enumerate(table.indices):
        data[2 * place : 2 * place + 2, 2:6, 2:6] = index
    write_labels(path, LabelMap(data, GRID))
    rows = [MorphRow(label.index, label.name, volume, None, None, None, 0.9) for label in table]
    uri = names.bids_uri(raw.relative_to(folder / "raw"), "raw")
    made = {"InputSHA256": {uri: hashlib.sha256(raw.read_bytes()).hexdigest()}}
    morph = out / names.morph_path(t1w, TASK)
    write_morph(morph, rows, provenance=made)
    return morph


@pytest.fixture(autouse=True)
def _no_sync(monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk's sync takes most of the time, and no claim here needs it."""
    monkeypatch.setattr("os.fsync", lambda _: None)


@pytest.fixture
def study(tmp_path: Path) -> Path:
    dataset(tmp_path, OLD)
    for number in range(1, 4):
        session(tmp_path, f"sub-{number}", OLD, 4000.0 + 10 * number)
    return tmp_path


def group(folder: Path, *, raw: Path | None = None, **options: object) -> int:
    options = {"nprocs": 1, "reports": False, **options}
    return run_group(RunConfig(raw or folder / "raw", folder / "out", "group", **options))


def rows(folder: Path, table: str = f"seg-{TASK}_morph") -> list[dict[str, str]]:
    text = (folder / "out" / f"group_{table}.tsv").read_text("utf-8")
    header, *lines = (line.split("\t") for line in text.splitlines())
    return [dict(zip(header, line, strict=True)) for line in lines]


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


# -- two models ----------------------------------------------------------------------------


@pytest.mark.parametrize("new", [RENAMED, OTHER], ids=["renamed", "other"])
def test_label_maps_of_an_earlier_model_keep_their_names(study: Path, new: LabelTable) -> None:
    dataset(study, new)
    session(study, "sub-4", new)
    out = study / "out"
    for stem, table in (("sub-1", OLD), ("sub-4", new)):
        label_map = out / names.label_map_path(f"{stem}_T1w.nii.gz", find_task(TASK).label_map)
        assert label_table_of(out, TASK, label_map).names == table.names
    assert group(study, reports=True) == 0
    found = {row["participant_id"]: row for row in rows(study)}
    only_old, only_new = set(OLD.names) - set(new.names), set(new.names) - set(OLD.names)
    assert {found["sub-1"][name] for name in only_old} == {"4010.00"}
    assert {found["sub-4"][name] for name in only_old} == {"n/a"}
    assert {found["sub-1"][name] for name in only_new} == {"n/a"}


def test_a_third_model_does_not_rename_the_first(study: Path) -> None:
    dataset(study, RENAMED)
    session(study, "sub-4", RENAMED)
    dataset(study, OTHER)
    out = study / "out"
    for stem, table in (("sub-1", OLD), ("sub-4", RENAMED)):
        label_map = out / names.label_map_path(f"{stem}_T1w.nii.gz", find_task(TASK).label_map)
        assert label_table_of(out, TASK, label_map).names == table.names


def test_agreement_reads_each_label_map_by_its_own_names(study: Path) -> None:
    shutil.copytree(study / "out", study / "manual")
    dataset(study, OTHER)
    session(study, "sub-4", OTHER)
    assert group(study, reference=(str(study / "manual"),)) == 0
    found = rows(study, f"seg-{TASK}_agreement")
    assert {(row["name"], row["f1"]) for row in found if row["participant_id"] == "sub-1"} == {
        (name, "1.00000") for name in OLD.names
    }


def test_what_breaks_on_the_way_leaves_every_table_as_it_was(
    study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert group(study) == 0
    session(study, "sub-4", OLD)
    before = content(study / "out")

    def broken(*_: object, **__: object) -> None:
        raise KeyError("Right-X")

    monkeypatch.setattr("deepmrseg_bids.app.group.write_qc", broken)
    with pytest.raises(KeyError):
        group(study)
    assert content(study / "out") == before


# -- damaged tables ------------------------------------------------------------------------

DAMAGE: dict[str, Callable[[str], str]] = {
    "cut at the end of a line": lambda text: "".join(text.splitlines(True)[:-1]),
    "only titles left": lambda text: text.splitlines(True)[0],
    "cut within a line": lambda text: text[:-5],
    "a row twice": lambda text: text + text.splitlines(True)[-1],
    "an index twice": lambda text: text.replace("55\tRight-X", "37\tRight-X"),
    "a name twice": lambda text: text.replace("Right-X", "Left-Caudate"),
    "nan": lambda text: text.replace("4010.00", "nan", 1),
    "inf": lambda text: text.replace("4010.00", "inf", 1),
    "negative": lambda text: text.replace("4010.00", "-4010.00", 1),
    "text": lambda text: text.replace("4010.00", "many", 1),
    "a decimal comma": lambda text: text.replace("4010.00", "4010,00", 1),
    "digits of Python": lambda text: text.replace("4010.00", "4_010.00", 1),
    "an empty cell": lambda text: text.replace("4010.00", "", 1),
    "confidence of 9": lambda text: text.replace("0.9000", "9.0000", 1),
    "bounds exchanged": lambda text: text.replace("n/a\tn/a", "5.00\t4.00", 1),
    "no name": lambda text: text.replace("Right-X", ""),
    "index 0": lambda text: text.replace("55\t", "0\t"),
    "a column missing": lambda text: "".join(
        "\t".join(line.split("\t")[:-1]) + "\n" for line in text.splitlines()
    ),
    "a column twice": lambda text: text.replace("volume_low_mm3", "volume_mm3", 1),
    "an index of another script": lambda text: text.replace("55\t", "\u0665\t"),
    "empty": lambda text: "",
    "binary": lambda text: "\0" * 200,
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_table_is_named_and_left_out(study: Path, kind: str) -> None:
    path = study / "out" / names.morph_path("sub-1_T1w.nii.gz", TASK)
    before = path.read_text("utf-8")
    path.write_text(DAMAGE[kind](before), encoding="utf-8")
    assert path.read_text("utf-8") != before
    volumes = read_volumes(study / "out", find_task(TASK))
    assert len(volumes.problems) == 1 and volumes.problems[0].startswith(str(path))
    assert list(volumes.sources) == [("sub-2", ""), ("sub-3", "")]


def test_a_table_that_is_not_the_one_that_was_written_is_left_out(study: Path) -> None:
    with Staging(study / "out") as staging:  # as a session does: the sidecar has its SHA-256
        write_morph(
            staging.path(names.morph_path("sub-1_T1w.nii.gz", TASK)),
            [MorphRow(label.index, label.name, 1.0, None, None, None, None) for label in OLD],
        )
    path = study / "out" / names.morph_path("sub-1_T1w.nii.gz", TASK)
    assert read_volumes(study / "out", find_task(TASK)).problems == ()
    path.write_text(path.read_text("utf-8").replace("1.00", "7.00"))
    (problem,) = read_volumes(study / "out", find_task(TASK)).problems
    assert problem.startswith(str(path)) and "is not as it was written" in problem


@pytest.mark.parametrize("log", [[], [SessionRow("sub-1", "", TASK, "resumed")]])
def test_the_session_of_a_damaged_table_is_missing_and_has_no_volumes(
    study: Path, log: list[SessionRow]
) -> None:
    path = study / "out" / names.morph_path("sub-1_T1w.nii.gz", TASK)
    path.write_text("x\n")
    write_sessions(study / "out" / "logs" / "sessions.tsv", log)
    assert group(study) == 3
    quality = rows(study, "qc")
    assert [row["deepbrain_status"] for row in quality] == ["missing", "done", "done"]
    cause = "its table of volumes is damaged or not a table of volumes, it lacks index, name"
    assert [row["reasons"].startswith(f"deepbrain: {cause}") for row in quality] == [
        True, False, False,
    ]  # fmt: skip
    assert [row["reasons"] for row in quality[1:]] == ["n/a", "n/a"]
    first, *others = rows(study)
    assert {first[name] for name in OLD.names} == {"n/a"}
    assert f"deepbrain: {first['missing_reason']}" == quality[0]["reasons"]
    assert {row["Left-Caudate"] for row in others} == {"4020.00", "4030.00"}


def test_when_every_table_is_damaged_no_group_table_of_before_is_left(study: Path) -> None:
    assert group(study) == 0
    for path in (study / "out").glob("sub-*/anat/*_morph.tsv"):
        path.write_text("x\n")
    assert group(study) == 4
    assert not (study / "out" / f"group_seg-{TASK}_morph.tsv").exists()


def test_a_table_in_the_folder_of_another_participant_is_named_and_not_used(study: Path) -> None:
    path = study / "out" / names.morph_path("sub-1_T1w.nii.gz", TASK)
    path.rename(study / "out/sub-2/anat" / path.name)
    volumes = read_volumes(study / "out", find_task(TASK))
    assert "not in the folder of its participant" in volumes.problems[0]
    assert list(volumes.sources) == [("sub-2", ""), ("sub-3", "")]


def test_a_task_of_ones_own_without_its_label_table_is_gathered_all_the_same(study: Path) -> None:
    path = study / "out" / names.morph_path("sub-1_T1w.nii.gz", "core")
    write_morph(path, [MorphRow(1, "Core", 12.0, None, None, None, None)])
    assert group(study, reports=True) == 0
    assert rows(study, "seg-core_morph")[0]["Core"] == "12.00"


# -- what is in OUT_DIR is in the tables ------------------------------------------------------


@pytest.mark.parametrize("status", ["failed", "skipped"])
def test_volumes_of_an_earlier_run_are_done_in_both_tables(study: Path, status: str) -> None:
    log = [SessionRow("sub-1", "", TASK, status, "excluded by the filter")]
    write_sessions(study / "out" / "logs" / "sessions.tsv", log)
    assert group(study) == 0
    first = rows(study, "qc")[0]
    assert first["deepbrain_status"] == "done" and rows(study)[0]["Left-Caudate"] == "4010.00"
    assert first["reasons"] == "deepbrain: result of an earlier run; excluded by the filter"


def test_that_a_result_is_of_an_earlier_run_is_said_once(study: Path) -> None:
    reason = "completed by an earlier run; not requested in this run"
    log = [SessionRow("sub-1", "", TASK, "resumed", reason)]
    write_sessions(study / "out" / "logs" / "sessions.tsv", log)
    assert group(study) == 0
    assert rows(study, "qc")[0]["reasons"] == f"deepbrain: {reason}"


def test_sessions_without_volumes_of_a_task_have_a_row_with_the_reason(study: Path) -> None:
    wml = study / "out" / names.morph_path("sub-1_T1w.nii.gz", "wml")
    write_morph(wml, [MorphRow(1, "White-Matter-Lesion", 12.0, None, None, None, None)])
    (study / "raw/sub-3/anat/sub-3_FLAIR.nii.gz").touch()
    log = [SessionRow("sub-9", "", "wml", "failed", "the file is empty")]
    write_sessions(study / "out" / "logs" / "sessions.tsv", log)
    assert group(study) == 0
    found = [(r["White-Matter-Lesion"], r["missing_reason"]) for r in rows(study, "seg-wml_morph")]
    assert found == [
        ("12.00", "n/a"),
        ("n/a", "wml requires a FLAIR, but the session has none"),
        ("n/a", "not requested"),
        ("n/a", "failed: the file is empty"),
    ]


def test_a_task_of_ones_own_has_its_status_in_the_table_of_quality(study: Path) -> None:
    path = study / "out" / names.morph_path("sub-1_T1w.nii.gz", "core")
    write_morph(path, [MorphRow(1, "Core", 12.0, None, None, None, None)])
    LabelTable((Label(1, "Core"),)).write(study / "out" / "seg-core_dseg.tsv")
    write_sessions(
        study / "out" / "logs" / "sessions.tsv",
        [SessionRow("sub-2", "", "core", "failed", "no core")],
    )
    assert group(study, reports=True) == 0
    assert [row["core_status"] for row in rows(study, "qc")] == ["done", "failed", "n/a"]
    columns = list(rows(study, "qc")[0])
    assert columns.index("core_status") == columns.index("wml_status") + 1


def test_few_sessions_have_neither_scores_nor_flags(study: Path) -> None:
    session(study, "sub-3", OLD, 9000.0)
    assert group(study) == 0
    for row in rows(study, "qc"):
        assert {row[c] for c in ("outlier", "outlier_score", "joint_deviation")} == {"n/a"}
    assert {row["deviation"] for row in rows(study, f"seg-{TASK}_structures")} == {"n/a"}
    for number in range(4, 11):
        session(study, f"sub-{number}", OLD, 4000.0 + 10 * number)
    assert group(study) == 0
    found = {row["participant_id"]: row for row in rows(study, "qc")}
    assert found["sub-3"]["outlier"] == "yes" and float(found["sub-3"]["outlier_score"]) > 3.5


# -- BIDS_DIR ------------------------------------------------------------------------------


def _nothing(folder: Path) -> Path:
    return folder / "nowhere"


def _a_file(folder: Path) -> Path:
    (folder / "file").write_text("x")
    return folder / "file"


def _another_data_set(folder: Path) -> Path:
    for number in range(1, 4):
        path = folder / f"other/sub-{number}/anat/sub-{number}_T1w.nii.gz"
        path.parent.mkdir(parents=True)
        path.write_bytes(b"somebody else")
    return folder / "other"


def _empty(folder: Path) -> Path:
    (folder / "empty").mkdir()
    return folder / "empty"


@pytest.mark.parametrize("make", [_nothing, _a_file, _another_data_set, _empty])
def test_a_wrong_bids_dir_is_an_error_before_anything_is_written(
    study: Path, make: Callable[[Path], Path]
) -> None:
    assert group(study) == 0
    before = content(study / "out")
    with pytest.raises(DatasetError, match=r"does not exist|not a folder|another data set"):
        group(study, raw=make(study))
    assert content(study / "out") == before


def test_a_data_set_that_has_moved_is_still_the_source(study: Path) -> None:
    (study / "raw").rename(study / "moved")
    assert group(study, raw=study / "moved") == 0


@pytest.mark.robustness(
    "a damaged table of volumes at the group level",
    tried="a morph.tsv that is cut, has a row twice, nan, inf, negative numbers or text",
)
def test_damaged_tables_of_all_kinds(
    study: Path, came_out: Callable[[str], None], caplog: pytest.LogCaptureFixture
) -> None:
    path = study / "out" / names.morph_path("sub-1_T1w.nii.gz", TASK)
    before = path.read_text("utf-8")
    codes = set()
    for kind in ("cut at the end of a line", "a row twice", "nan", "inf", "negative", "text"):
        path.write_text(DAMAGE[kind](before))
        codes.add(group(study, verbosity=-1))
    assert codes == {3} and caplog.text.count(path.name) == 6
    came_out("exit code 3; the file is named, its row has n/a and the reason")


@pytest.mark.robustness(
    "group with a BIDS_DIR that is not the source of OUT_DIR",
    tried="a folder that does not exist, a file, another data set with the same participants",
)
def test_other_bids_dirs(study: Path, came_out: Callable[[str], None]) -> None:
    for make in (_nothing, _a_file, _another_data_set):
        with pytest.raises(DatasetError):
            group(study, raw=make(study))
    assert not list((study / "out").glob("group*"))
    came_out("error, nothing is written")


@pytest.mark.robustness(
    "two models with other labels in one OUT_DIR",
    tried="three sessions of one model, one of another in which a label has another name",
)
def test_two_models(
    study: Path, came_out: Callable[[str], None], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    dataset(study, RENAMED)
    session(study, "sub-4", RENAMED)
    assert group(study) == 0
    found = rows(study)
    assert [row["Right-X"] for row in found] == ["4010.00", "4020.00", "4030.00", "n/a"]
    assert [row["Right-Y"] for row in found] == ["n/a", "n/a", "n/a", "4000.00"]
    came_out("exit code 0; a column for each name; label maps keep their label tables")

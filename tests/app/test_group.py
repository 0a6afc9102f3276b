"""One group run: tables beside bad input, references, and the exit code that tells."""

from __future__ import annotations

import html
import json
import logging
from pathlib import Path

import numpy as np
import pytest

from deepmrseg_bids.app.group import run_group
from deepmrseg_bids.bids import names
from deepmrseg_bids.bids.tables import MorphRow, SessionRow, write_morph, write_sessions
from deepmrseg_bids.config import RunConfig
from deepmrseg_bids.errors import DatasetError, UsageError
from deepmrseg_bids.imaging.grid import Grid
from deepmrseg_bids.imaging.labels import Label, LabelTable
from deepmrseg_bids.imaging.nifti import LabelMap, write_labels
from deepmrseg_bids.reports.group.data import read_cohort
from deepmrseg_bids.reports.subject.study import Study
from deepmrseg_bids.tasks.registry import find_task
from deepmrseg_bids.tsv import read_tsv

NAMES = ("Left-Caudate", "Right-Caudate", "Left-Putamen", "Right-Putamen")
LABELS = LabelTable(tuple(Label(36 + number, name) for number, name in enumerate(NAMES)))
WML = LabelTable((Label(1, "White-Matter-Lesions"),))
BRAIN_TABLE = LabelTable((Label(1, "Brain"),))
GRID = Grid((20, 12, 12), np.diag([2.0, 2.0, 2.0, 1.0]))
BRAIN = Grid((20, 12, 12), np.diag([8.0, 8.0, 8.0, 1.0]))  # 0.8 litres


def blocks(indices: tuple[int, ...], shift: int = 0) -> np.ndarray:
    """A block of voxels for each label, side by side."""
    data = np.zeros(GRID.shape, np.uint8)
    for place, index in enumerate(indices):
        data[4 * place + 1 : 4 * place + 5, 2 + shift : 8 + shift, 2:8] = index
    return data


def store(path: Path, data: np.ndarray, grid: Grid = GRID) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_labels(path, LabelMap(data, grid))
    return path


def add_session(out: Path, source: str, task: str, table: LabelTable, data: np.ndarray) -> None:
    """What a finished session leaves: its label map and its volumes."""
    t1w = f"{source}_T1w.nii.gz"
    grid = BRAIN if task == "brain" else GRID
    store(out / names.label_map_path(t1w, find_task(task).label_map), data, grid)
    rows = [
        MorphRow(label.index, label.name, float(np.sum(data == label.index)) * grid.voxel_volume,
                 None, None, None, 0.9)
        for label in table
    ]  # fmt: skip
    write_morph(out / names.morph_path(t1w, task), rows)
    table.write(out / names.label_table_path(task))


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """raw/ and out/ with three subjects, of which the third has two sessions."""
    (tmp_path / "raw").mkdir()
    for source in ("sub-1", "sub-2", "sub-3_ses-1", "sub-3_ses-2"):
        add_session(tmp_path / "out", source, "deepbrain", LABELS, blocks(LABELS.indices))
    return tmp_path


def reference(root: Path, *sources: str, indices: tuple[int, ...] = LABELS.indices) -> Path:
    """A reference whose blocks lie two voxels off."""
    for source in sources:
        path = root / names.anat_folder(f"{source}_T1w.nii.gz") / f"{source}_seg-muse_dseg.nii.gz"
        store(path, blocks(indices, shift=2))
    root.mkdir(exist_ok=True)
    return root


def run(study: Path, *references: object, nprocs: int = 1, **options: object) -> int:
    texts = tuple(map(str, references))
    options = {"reports": False} | options
    return run_group(
        RunConfig(study / "raw", study / "out", "group", reference=texts, nprocs=nprocs, **options)
    )


def rows(study: Path, table: str, task: str = "deepbrain") -> list[dict[str, str]]:
    text = (study / "out" / f"group_seg-{task}_{table}.tsv").read_text("utf-8")
    header, *lines = (line.split("\t") for line in text.splitlines())
    return [dict(zip(header, line, strict=True)) for line in lines]


def facts(study: Path, name: str, task: str = "deepbrain") -> dict[str, object]:
    path = study / "out" / f"group_seg-{task}_agreement.json"
    return json.loads(path.read_text("utf-8"))["References"][name]


# -- good references -----------------------------------------------------------------------


def test_every_session_of_the_reference_is_compared_structure_by_structure(study: Path) -> None:
    root = reference(study / "labels", "sub-1", "sub-3_ses-2")
    assert run(study, root) == 0
    found = rows(study, "agreement")
    assert [row["sample_id"] for row in found] == ["sub-1"] * 4 + ["sub-3_ses-2"] * 4
    assert {row["f1"] for row in found} == {"0.66667"}  # 4 of 6 slices in common
    assert found[4] | {
        "participant_id": "sub-3", "session_id": "ses-2", "reference": "labels",
        "name": "Left-Caudate", "presence": "both", "grid": "same", "volume_mm3": "1152.00",
        "reference_file": "sub-3/ses-2/anat/sub-3_ses-2_seg-muse_dseg.nii.gz",
    } == found[4]  # fmt: skip
    assert facts(study, "labels") == {
        "Sessions": 2, "SessionsWithoutReference": 2, "Resampled": 0, "LabelsMatchedBy": "number",
    }  # fmt: skip
    summary = rows(study, "agreement_summary")
    assert [(row["name"], row["n"], row["f1_mean"]) for row in summary] == [
        (name, "2", "0.66667") for name in NAMES
    ]


def test_the_columns_of_the_contract_come_first(study: Path) -> None:
    run(study, reference(study / "labels", "sub-1"))
    assert list(rows(study, "agreement")[0])[:9] == [
        "sample_id", "index", "name", "f1", "f2", "bacc", "hd95_mm", "volume_mm3",
        "reference_volume_mm3",
    ]  # fmt: skip
    assert list(rows(study, "agreement_summary")[0])[:10] == [
        "index", "name", "n", "f1_mean", "f1_sd", "f2_mean", "f2_sd", "bacc_mean", "bacc_sd", "ccc",
    ]  # fmt: skip


def test_two_references_stand_side_by_side_under_their_names(study: Path) -> None:
    one = reference(study / "labels", "sub-1", "sub-2")
    two = reference(study / "other", "sub-2")
    assert run(study, f"manual={one}", two) == 0
    assert [row["reference"] for row in rows(study, "agreement")[::4]] == [
        "manual", "manual", "other",
    ]  # fmt: skip
    text = (study / "out" / "group_seg-deepbrain_agreement_table.md").read_text("utf-8")
    assert text.splitlines()[0].startswith("| structure | n manual | n other | F1 manual |")
    assert text.splitlines()[-1].startswith("| mean |")
    assert len(text.splitlines()) == 2 + len(NAMES) + 1


def test_several_processes_find_the_same_as_one(study: Path) -> None:
    root = reference(study / "labels", "sub-1", "sub-2", "sub-3_ses-1")
    run(study, root)
    alone = rows(study, "agreement")
    assert run(study, root, nprocs=2) == 0
    assert rows(study, "agreement") == alone


@pytest.mark.parametrize("place", ["dseg.tsv", "sub-1/anat/sub-1_seg-muse_dseg.tsv"])
def test_other_numbers_are_matched_by_name_through_the_label_table(study: Path, place: str) -> None:
    root = reference(study / "labels", "sub-1", indices=(4, 3, 9, 8))
    LabelTable(
        tuple(Label(i, name.lower()) for i, name in zip((4, 3, 9, 8), NAMES, strict=True))
    ).write(root / place)
    assert run(study, root) == 0
    assert {row["f1"] for row in rows(study, "agreement")} == {"0.66667"}
    assert facts(study, "labels")["LabelsMatchedBy"] == "name"


def test_another_grid_is_told_in_the_table_the_sidecar_and_the_log(
    study: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = study / "labels"
    data = blocks(LABELS.indices).repeat(2, 0).repeat(2, 1).repeat(2, 2)
    affine = np.eye(4)
    affine[:3, 3] = -0.5
    store(root / "sub-1" / "anat" / "sub-1_seg-deepbrain_dseg.nii.gz", data,
          Grid((40, 24, 24), affine))  # fmt: skip
    assert run(study, root) == 0
    assert {(row["grid"], row["f1"]) for row in rows(study, "agreement")} == {
        ("resampled", "1.00000")
    }
    assert facts(study, "labels")["Resampled"] == 1
    assert "were resampled" in caplog.text


def test_a_brain_is_compared_with_the_mask_or_else_with_all_labels(study: Path) -> None:
    table, ours = BRAIN_TABLE, np.zeros(BRAIN.shape, np.uint8)
    ours[2:18, 1:11, 1:11] = 1
    for source in ("sub-1", "sub-2"):
        add_session(study / "out", source, "brain", table, ours)
    theirs = np.where(ours, 7, 0).astype(np.uint8)
    theirs[8, 5, 5] = 0
    for source in ("sub-1", "sub-2"):
        store(study / f"labels/{source}/anat/{source}_seg-aparc_dseg.nii.gz", theirs, BRAIN)
    smaller = ours.copy()
    smaller[2:4] = 0
    store(study / "labels/sub-2/anat/sub-2_desc-brain_mask.nii.gz", smaller, BRAIN)
    assert run(study, study / "labels", tasks=("brain",)) == 0
    one, two = rows(study, "agreement", "brain")
    assert (one["f1"], two["f1"]) == ("1.00000", "0.93333")
    assert two["reference_file"].endswith("mask.nii.gz")


def test_lesions_are_compared_where_the_reference_has_them_and_counted(study: Path) -> None:
    out, root = study / "out", study / "labels"
    add_session(out, "sub-1", "wml", WML, blocks((1, 1, 1)))
    flair = blocks((1, 0, 1), shift=1)
    store(out / "sub-1/anat/sub-1_space-FLAIR_seg-wml_dseg.nii.gz", flair)
    store(root / "sub-1/anat/sub-1_space-FLAIR_seg-wml_dseg.nii.gz", blocks((1,), shift=1))
    assert run(study, root, tasks=("wml",)) == 0
    (row,) = rows(study, "agreement", "wml")
    assert (row["lesions"], row["reference_lesions"]) == ("2", "1")
    assert (row["lesion_recall"], row["lesion_precision"]) == ("1.00000", "0.50000")
    assert "space-FLAIR" in row["reference_file"]
    assert rows(study, "agreement_summary", "wml")[0]["lesion_f1_mean"] == "0.66667"


# -- bad references: each a clear message, and all the rest is done ------------------------


def told(study: Path, caplog: pytest.LogCaptureFixture, *references: object) -> str:
    """What is said of references that give no agreement; the other tables are there."""
    assert run(study, *references) == 3
    assert len(rows(study, "morph")) == 4
    assert (study / "out" / "group_qc.tsv").exists()
    return "\n".join(r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING)


def test_an_empty_reference_is_told(study: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert "contains no label maps; expected sub-*" in told(
        study, caplog, reference(study / "none")
    )


def test_a_reference_of_other_sessions_is_told(
    study: Path, caplog: pytest.LogCaptureFixture
) -> None:
    text = told(study, caplog, reference(study / "labels", "sub-77", "sub-3_ses-9"))
    assert "it contains sub-3 ses-9, sub-77; OUT_DIR contains sub-1, sub-2, sub-3 ses-1" in text


def test_a_reference_with_other_labels_is_told(
    study: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = reference(study / "labels", "sub-1", "sub-2")
    LabelTable((Label(36, "Stem"), Label(37, "Vermis"))).write(root / "dseg.tsv")
    assert "none of the structures of deepbrain" in told(study, caplog, root)


def test_what_a_reference_lacks_is_said_once_and_done(
    study: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Four labels are known by their numbers; one alone may be anything, so it is not compared."""
    caplog.set_level(logging.INFO, "deepmrseg-bids")
    sources = ("sub-1", "sub-2", "sub-3_ses-1", "sub-3_ses-2")
    for source in sources:
        add_session(study / "out", source, "wml", WML, blocks((1,)))
    assert run(study, reference(study / "labels", *sources)) == 0
    assert caplog.text.count("has no label table, so the meaning") == 1
    assert "it is not compared with wml; add a _dseg.tsv" in caplog.text
    assert "(and 3 more like this)" in caplog.text
    assert not list((study / "out").glob("group_seg-wml_agreement*"))
    assert caplog.text.count("label values are assumed to match ours") == 1
    assert len(rows(study, "agreement")) == 16


def test_a_reference_without_a_table_and_with_other_numbers_is_told(
    study: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = reference(study / "labels", "sub-1", indices=(1, 2, 3, 4))
    assert "has no label table, and it does not contain all our label values" in told(
        study, caplog, root
    )


def test_a_reference_in_another_place_is_told(
    study: Path, caplog: pytest.LogCaptureFixture
) -> None:
    affine = GRID.affine.copy()
    affine[:3, 3] = 900
    path = study / "labels/sub-1/anat/sub-1_seg-deepbrain_dseg.nii.gz"
    store(path, blocks(LABELS.indices), Grid(GRID.shape, affine))
    assert "do not overlap in space" in told(study, caplog, study / "labels")


def test_a_broken_image_of_the_reference_costs_only_its_session(
    study: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = reference(study / "labels", "sub-1", "sub-2")
    (root / "sub-1/anat/sub-1_seg-muse_dseg.nii.gz").write_bytes(b"\x1f\x8b broken")
    assert "sub-1_seg-muse_dseg.nii.gz" in told(study, caplog, root)
    assert {row["sample_id"] for row in rows(study, "agreement")} == {"sub-2"}


def test_two_label_maps_that_fit_equally_well_are_told(
    study: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = reference(study / "labels", "sub-1")
    store(root / "sub-1/anat/sub-1_seg-other_dseg.nii.gz", blocks(LABELS.indices))
    assert "fit sub-1_seg-deepbrain_dseg.nii.gz equally well" in told(study, caplog, root)
    store(root / "sub-1/anat/sub-1_seg-deepbrain_dseg.nii.gz", blocks(LABELS.indices))
    assert run(study, root) == 0
    assert {row["f1"] for row in rows(study, "agreement")} == {"1.00000"}


@pytest.mark.parametrize("text", ["nowhere", "x=nowhere", "bad name=."])
def test_what_is_no_reference_is_wrong_usage(study: Path, text: str) -> None:
    with pytest.raises(UsageError, match="--reference"):
        run(study, text)


def test_two_references_of_one_name_are_wrong_usage(study: Path) -> None:
    root = reference(study / "labels", "sub-1")
    with pytest.raises(UsageError, match="give each a different name"):
        run(study, root, f"labels={root}")


def test_a_reference_is_for_the_group_level(study: Path) -> None:
    with pytest.raises(UsageError, match="group level"):
        RunConfig(study / "raw", study / "out", "participant", reference=(".",))


# -- bad results ---------------------------------------------------------------------------


def test_a_half_written_table_costs_only_its_session(
    study: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = study / "out" / names.morph_path("sub-2_T1w.nii.gz", "deepbrain")
    path.write_text(path.read_text()[:60])
    assert run(study) == 3
    assert [(row["participant_id"], row["Left-Caudate"]) for row in rows(study, "morph")] == [
        ("sub-1", "1152.00"), ("sub-2", "n/a"), ("sub-3", "1152.00"), ("sub-3", "1152.00"),
    ]  # fmt: skip
    assert rows(study, "morph")[1]["missing_reason"].startswith("its table of volumes is damaged: ")
    assert str(path) in caplog.text


def test_a_table_that_is_gone_is_told(study: Path, caplog: pytest.LogCaptureFixture) -> None:
    log = study / "out" / "logs" / "sessions.tsv"
    log.parent.mkdir()
    log.write_text(
        "participant_id\tsession_id\ttask\tstatus\treason\tseconds\tpeak_mib\tfindings\n"
        "sub-1\tn/a\tdeepbrain\tdone\tn/a\t1\t1\tn/a\n"
        "sub-9\tn/a\tdeepbrain\tdone\tn/a\t1\t1\tn/a\n"
    )
    assert run(study) == 3
    assert "sub-9: deepbrain is done according to logs/sessions.tsv, but its table" in caplog.text


def test_a_log_that_cannot_be_read_costs_only_what_it_says(study: Path) -> None:
    (study / "out" / "logs").mkdir()
    (study / "out" / "logs" / "sessions.tsv").write_text("nonsense")
    assert run(study) == 3
    assert len(rows(study, "morph")) == 4


def test_no_results_at_all_end_with_four(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    (tmp_path / "out").mkdir()
    assert run(tmp_path) == 4


def test_a_task_that_was_asked_for_and_has_no_results_is_told(study: Path) -> None:
    assert run(study, tasks=("deepbrain", "hippocampus")) == 3


def test_an_output_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no such folder"):
        run(tmp_path)


# -- an earlier run, odd names -------------------------------------------------------------


def test_agreement_of_an_earlier_run_is_told_and_goes_when_a_reference_has_none(
    study: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert run(study, reference(study / "labels", "sub-1")) == 0
    assert run(study) == 0
    assert "deepbrain_agreement.json: from an earlier run" in caplog.text
    assert len(rows(study, "agreement")) == 4
    (study / "empty").mkdir()
    assert run(study, study / "empty") == 3
    assert not list((study / "out").glob("*agreement*"))


def test_no_lesion_on_either_side_is_a_row_without_scores(study: Path) -> None:
    nothing = np.zeros(GRID.shape, np.uint8)
    add_session(study / "out", "sub-1", "wml", WML, nothing)
    store(study / "dlwmls" / "sub-1" / "anat" / "sub-1_seg-wml_dseg.nii.gz", nothing)
    assert run(study, study / "dlwmls") == 0
    (row,) = rows(study, "agreement", "wml")
    assert (row["presence"], row["f1"], row["lesions"]) == ("absent", "n/a", "0")
    assert facts(study, "dlwmls", "wml")["LabelsMatchedBy"] == "number"  # the file says seg-wml
    assert row["volume_difference_mm3"] == "0.00"


def test_markup_in_a_name_stays_text_in_the_tables_and_is_escaped_for_markdown(
    study: Path,
) -> None:
    odd = LabelTable((Label(1, "<script>alert(1)</script>|x"),))
    add_session(study / "out", "sub-1", "wml", odd, blocks((1,)))
    store(study / "ref" / "sub-1" / "anat" / "sub-1_seg-wml_dseg.nii.gz", blocks((1,)))
    assert run(study, study / "ref") == 0
    assert rows(study, "agreement", "wml")[0]["name"] == "<script>alert(1)</script>|x"
    table = (study / "out" / "group_seg-wml_agreement_table.md").read_text("utf-8")
    assert "&lt;script>" in table and "<script>" not in table and "\\|x" in table


def test_a_label_map_that_serves_one_task_is_no_mistake_for_another(
    study: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "deepmrseg-bids")
    for source in ("sub-1", "sub-2"):
        add_session(study / "out", source, "brain", BRAIN_TABLE, blocks((1, 1)))
    root = reference(study / "labels", "sub-1", "sub-2")
    assert run(study, root, nprocs=2) == 0  # what is told survives the way between processes
    assert "less than a whole brain: not compared with the brain mask" in caplog.text
    assert "(and 1 more like this)" in caplog.text
    assert not list((study / "out").glob("group_seg-brain_agreement*"))
    assert len(rows(study, "agreement")) == 8
    assert run(study, root, tasks=("brain",)) == 3  # nothing else came of it


def test_comparisons_show_how_far_they_are_unless_quiet(
    study: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "deepmrseg-bids")
    root = reference(study / "labels", "sub-1", "sub-2")
    assert run(study, root) == 0
    assert "2 of 2 comparisons done, 0 failed, 0 remaining" in caplog.text
    caplog.clear()
    assert run(study, root, verbosity=-1) == 0
    assert "comparisons done" not in caplog.text + capsys.readouterr().err


# -- the page ------------------------------------------------------------------------------


def test_the_page_and_its_mosaics_lie_beside_the_tables(study: Path) -> None:
    """No scan of these sessions is there: the page says so where the pictures would be."""
    assert run(study, reports=True) == 0
    page = (study / "out" / "group.html").read_text("utf-8")
    for words in ("group_seg-deepbrain_structures.tsv", "3</b> participants", "4</b> sessions"):
        assert words in page


def test_the_page_names_a_result_that_could_not_be_read(study: Path) -> None:
    morph = study / "out" / names.morph_path("sub-2_T1w.nii.gz", "deepbrain")
    morph.write_text(morph.read_text()[:-20])
    assert run(study, reports=True) == 3
    page = (study / "out" / "group.html").read_text("utf-8")
    assert str(morph) in html.unescape(page)


def test_without_reports_there_is_no_page(study: Path) -> None:
    assert run(study, reports=False) == 0
    assert not (study / "out" / "group.html").exists()
    assert not (study / "out" / "figures").exists()


def test_a_result_that_is_rated_fail_stays_in_the_tables_and_leaves_the_statistics(
    study: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(4, 16):
        add_session(
            study / "out",
            f"sub-{number:02}",
            "deepbrain",
            LABELS,
            blocks(LABELS.indices, number % 2),
        )
    add_session(study / "out", "sub-16", "deepbrain", LABELS, blocks(LABELS.indices[:1]))
    assert run(study) == 0
    plain = {row["participant_id"]: row for row in rows(study, "structures")}
    assert "rating" not in plain["sub-16"]
    file = tmp_path / "r.tsv"
    file.write_text(
        "participant_id\ttask\trating\trater\nsub-16\tdeepbrain\tfail\tA\n"
        "sub-04\tdeepbrain\tpass\tA\nsub-04\tdeepbrain\tdoubtful\tB\nsub-99\tbrain\tpass\tA\n"
    )
    caplog.set_level(logging.INFO)
    assert run(study, ratings=(file,), reports=True) == 0
    assert "1 excluded: sub-16" in caplog.text and "no results of sub-99" in caplog.text
    found = rows(study, "structures")
    mine = [row for row in found if row["participant_id"] == "sub-16"]
    assert {row["excluded"] for row in mine} == {"yes"} and {row["outlier"] for row in mine} == {
        "n/a"
    }
    assert all(float(row["volume_mm3"]) >= 0 for row in mine)  # nothing is deleted
    assert len(rows(study, "morph")) == 17
    qc = {row["participant_id"]: row for row in read_tsv(study / "out" / "group_qc.tsv").rows}
    assert (qc["sub-16"]["rating"], qc["sub-16"]["excluded"]) == ("fail", "deepbrain")
    assert (qc["sub-04"]["rating"], qc["sub-04"]["excluded"]) == ("doubtful", "no")
    table = read_tsv(study / "out" / "group_ratings.tsv")
    assert table.columns[-2:] == ("rating_A", "rating_B")
    (pair,) = read_tsv(study / "out" / "group_ratings_agreement.tsv").rows
    assert (pair["n"], pair["agreement_percent"], pair["kappa"]) == ("1", "0.00000", "0.00000")
    page = (study / "out" / "group.html").read_text(encoding="utf-8")
    assert "Agreement of raters" in page
    assert run(study) == 0 and not (study / "out" / "group_ratings.tsv").exists()


def test_a_failed_session_is_first_and_keeps_its_demographics(
    study: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (study / "raw" / "participants.tsv").write_text(
        "participant_id\tage\tsex\nsub-1\t30\tF\nsub-2\t40\tM\nsub-9\t50\tF\n"
    )
    (study / "out" / "logs").mkdir()
    write_sessions(
        study / "out" / "logs" / "sessions.tsv",
        [SessionRow("sub-9", "", "deepbrain", "failed", "no brain found")],
    )
    caplog.set_level(logging.INFO)
    run(study)
    cohort = read_cohort(study / "out", ["deepbrain"])
    place = cohort.keys.index(("sub-9", ""))
    assert cohort.people["sex"][place] == "F" and cohort.people["age"][place] == "50"
    assert cohort.qc["verdict"][place] == "problem"
    assert cohort.qc["verdict_reason"][place] == "Deep brain structures failed: no brain found."
    page = study / "out" / "sub-9.html"
    page.touch()
    (study / "out" / "sub-1.html").touch()
    assert Study(study / "out").order[0] == page.name
    assert "  problem: sub-9: Deep brain structures failed: no brain found." in caplog.messages


def add_people(study: Path, count: int) -> None:
    """Sessions of sub-a00, sub-a01, ..., each a year older than the one before."""
    lines = ["participant_id\tage\tsex"]
    for number in range(count):
        add_session(study / "out", f"sub-a{number:02}", "deepbrain", LABELS,
                    blocks(LABELS.indices, number % 3 - 1))  # fmt: skip
        lines.append(f"sub-a{number:02}\t{20 + number}\t{'FM'[number % 2]}")
    (study / "raw" / "participants.tsv").write_text("\n".join(lines) + "\n")


def test_age_sex_and_norms_have_their_columns_and_a_strange_site_is_told(
    study: Path, caplog: pytest.LogCaptureFixture
) -> None:
    add_people(study, 30)
    norms = study / "norms.tsv"
    norms.write_text("name\tsex\tage\tcentile_5\tcentile_95\n"
                     "Left-Caudate\tF\t0\t1\t9999\nLeft-Caudate\tF\t99\t1\t9999\n")  # fmt: skip
    assert run(study, norms=norms, harmonise="scanner", reports=True) == 3
    assert "--harmonise: participants.tsv has no column scanner" in caplog.text
    found = [row for row in rows(study, "structures") if row["name"] == "Left-Caudate"]
    assert {row["participant_id"] for row in found if row["norm_centile"] != "n/a"} == {
        f"sub-a{number:02}" for number in range(0, 30, 2)
    }
    assert all(row["z_adjusted"] == "n/a" for row in found if row["participant_id"] == "sub-1")
    sidecar = study / "out" / "group_seg-deepbrain_structures.json"
    model = json.loads(sidecar.read_text("utf-8"))["ExpectedVolume"]["Left-Caudate"]
    assert (model["Terms"], model["Sessions"]) == (["age", "sex M"], 30)
    kept = read_tsv(study / "out" / "group_norms.tsv").rows
    assert {(row["name"], row["sex"]) for row in kept} == {("Left-Caudate", "f")}
    assert json.loads((study / "out" / "group_norms.json").read_text("utf-8"))["SHA256"]
    assert run(study, norms=study / "out" / "group_norms.tsv") == 0  # its own, once more
    assert run(study) == 0
    assert not list((study / "out").glob("group_norms.*"))


def test_ratings_that_leave_too_few_sessions_for_the_model_are_reported(
    study: Path, caplog: pytest.LogCaptureFixture
) -> None:
    add_people(study, 15)
    caplog.set_level(logging.INFO)
    run(study)
    assert "z_adjusted" in rows(study, "structures")[0] and "z_adjusted and" not in caplog.text
    ratings = study / "ratings.tsv"
    ratings.write_text("participant_id\tseg\trating\nsub-a01\tdeepbrain\tfail\n")
    run(study, ratings=(ratings,))
    assert "z_adjusted" not in rows(study, "structures")[0]
    assert (
        "z_adjusted and volume_expected_mm3 are not given: a model of age, sex M requires 15 "
        "sessions, 14 can be used" in caplog.text
    )


def test_a_reference_that_is_of_no_use_is_told(
    study: Path, caplog: pytest.LogCaptureFixture
) -> None:
    norms = study / "norms.tsv"
    norms.write_text("name\tage\tcentile_5\tcentile_95\nHippo\t0\t1\t9\nHippo\t99\t1\t9\n")
    assert run(study, norms=norms) == 3
    assert "none of Hippo is in this study" in caplog.text
    norms.write_text(norms.read_text() + "Left-Caudate\t0\t1\t9\n")
    caplog.clear()
    assert run(study, norms=norms) == 3  # participants.tsv has no ages
    assert "--norms: no session has a centile" in caplog.text
    assert "no such structures in this study: Hippo" in caplog.text

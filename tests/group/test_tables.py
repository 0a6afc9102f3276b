"""The tables of the group level: what is in them, and that bad input costs only itself."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import NamedTuple

import pytest

from deepmrseg_bids.bids import names
from deepmrseg_bids.bids.derivatives import MorphRow, SessionRow, write_json, write_morph
from deepmrseg_bids.bids.participants import read_people
from deepmrseg_bids.bids.tables import write_lesions, write_sessions
from deepmrseg_bids.findings import Finding
from deepmrseg_bids.group.lesions import write_lesion_places
from deepmrseg_bids.group.qc import write_qc
from deepmrseg_bids.group.tables import (
    Times,
    write_asymmetry,
    write_change,
    write_morphs,
    write_retest,
    write_structures,
)
from deepmrseg_bids.group.volumes import read_log, read_volumes
from deepmrseg_bids.tasks.lesions import Lesion
from deepmrseg_bids.tasks.registry import find_task
from tests.bids.test_derivatives import ROWS, table


class Gathered(NamedTuple):
    path: Path
    sessions: int
    problems: tuple[str, ...]
    notes: tuple[str, ...]


def gathered(out: Path, raw: Path, task: str = "wml") -> Gathered:
    """The table of volumes of all sessions, and what was said about its sources."""
    volumes = read_volumes(out, find_task(task))
    people = read_people(raw, volumes.sessions, taken=volumes.names)
    path = write_morphs(out, volumes, people)
    return Gathered(path, len(volumes.sources), (*volumes.problems, *people.problems), people.notes)


def records(path: Path) -> list[dict[str, str]]:
    """The rows of a TSV by their columns."""
    header, *rows = table(path)
    return [dict(zip(header, row, strict=True)) for row in rows]


@pytest.fixture
def cohort(tmp_path: Path) -> tuple[Path, Path]:
    """OUT_DIR with three sessions, and an empty BIDS_DIR."""
    out, raw = tmp_path / "out <é>", tmp_path / "raw"
    raw.mkdir()
    for source, rows in (
        ("sub-02_ses-1_T1w.nii.gz", ROWS),
        ("sub-01_ses-2_T1w.nii.gz", ROWS[:1]),
        ("sub-03_T1w.nii.gz", [MorphRow(9, "Third", 5.0, None, None, None, None)]),
    ):
        write_morph(out / names.morph_path(source, "wml"), rows)
    return out, raw


def test_volumes_below_the_floor_of_a_model_are_marked(tmp_path: Path) -> None:
    def row(volume: float, floor: float | None) -> MorphRow:
        return MorphRow(1, "Lesion", volume, 0.0, 2 * volume, 0.1, 0.5, 3, floor)

    for label, volume, floor in (("01", 800.0, 1500.0), ("02", 1600.0, 1500.0), ("03", 9.0, None)):
        write_morph(tmp_path / names.morph_path(f"sub-{label}_T1w.nii.gz", "wml"),
                    [row(volume, floor)])  # fmt: skip
    write_structures(tmp_path, read_volumes(tmp_path, find_task("wml")))
    found = records(tmp_path / names.group_path("wml", "structures"))
    assert [one["below_floor"] for one in found] == ["yes", "no", "n/a"]
    assert [one["volume_floor_mm3"] for one in found] == ["1500.00", "1500.00", "n/a"]


def lesions_of(out: Path, source: str, *places: tuple[str | None, float]) -> Path:
    """OUT_DIR with a session that has these lesions; returns their table."""
    total = sum(volume for _, volume in places)
    row = MorphRow(1, "Lesion", total, None, None, None, None, len(places))
    write_morph(out / names.morph_path(source, "wml"), [row])
    path = out / names.lesions_path(source, "wml")
    lesions = [
        Lesion(number, volume, (0.0, 0.0, 0.0), place, 0.5)
        for number, (place, volume) in enumerate(places, 1)
    ]
    write_lesions(path, lesions)
    return path


def test_lesions_of_a_session_are_counted_by_location(tmp_path: Path) -> None:
    scan = "sub-01_ses-1_T1w.nii.gz"
    lesions_of(
        tmp_path, scan, ("deep", 20.0), ("periventricular", 100.5), ("deep", 9.0), (None, 6.0)
    )
    lesions_of(tmp_path, "sub-02_FLAIR.nii.gz")
    assert write_lesion_places(tmp_path, tmp_path, read_volumes(tmp_path, find_task("wml"))) == []
    first, second = records(tmp_path / names.group_path("wml", "lesions"))
    assert (first["session_id"], first["lesion_count"], first["lesion_volume_mm3"]) == (
        "ses-1", "4", "135.50")  # fmt: skip
    assert (first["deep_count"], first["deep_volume_mm3"]) == ("2", "29.00")
    assert (first["periventricular_count"], first["unknown_volume_mm3"]) == ("1", "6.00")
    assert (first["infratentorial_count"], first["juxtacortical_volume_mm3"]) == ("0", "0.00")
    assert (second["participant_id"], second["lesion_count"]) == ("sub-02", "0")


@pytest.mark.parametrize("how", ["cut", "lost", "foreign"])
def test_lesions_that_cannot_be_read_cost_their_own_cells_and_are_named(
    tmp_path: Path, how: str
) -> None:
    good = lesions_of(tmp_path, "sub-01_T1w.nii.gz", ("deep", 20.0))
    bad = lesions_of(tmp_path, "sub-02_T1w.nii.gz", ("deep", 30.0))
    if how == "lost":
        bad.unlink()
    else:
        bad.write_text(good.read_text()[:-30] if how == "cut" else "index\tvolume_mm3\n1\t3\n")
    (problem,) = write_lesion_places(tmp_path, tmp_path, read_volumes(tmp_path, find_task("wml")))
    assert bad.name in problem
    rows = records(tmp_path / names.group_path("wml", "lesions"))
    assert [row["deep_count"] for row in rows] == ["1", "n/a"]


def test_where_no_lesions_were_ever_listed_there_is_no_table_of_them(
    cohort: tuple[Path, Path],
) -> None:
    out, _ = cohort
    assert write_lesion_places(out, out, read_volumes(out, find_task("wml"))) == []
    assert not (out / names.group_path("wml", "lesions")).exists()


def test_the_group_table_has_one_row_a_session_and_one_column_a_structure(
    cohort: tuple[Path, Path],
) -> None:
    out, raw = cohort
    result = gathered(out, raw)
    assert table(result.path) == [
        ["participant_id", "session_id", "Left-A", "Right-A", "Third"],
        ["sub-01", "ses-2", "1234.50", "n/a", "n/a"],
        ["sub-02", "ses-1", "1234.50", "0.00", "n/a"],
        ["sub-03", "n/a", "n/a", "n/a", "5.00"],
    ]
    assert result.sessions == 3 and result.problems == ()
    assert result.path == out / "group_seg-wml_morph.tsv"
    tree = json.loads((out / "group_seg-wml_morph.json").read_text("utf-8"))
    assert set(tree) == set(table(result.path)[0])


def test_the_columns_of_participants_come_along(cohort: tuple[Path, Path]) -> None:
    out, raw = cohort
    (raw / "participants.tsv").write_bytes(
        "\ufeffage\tparticipant_id\tThird\tsite \tsession_id\r\n"
        '71\tsub-01\tx\tKöln "A\r\n'
        "\r\n"
        "n/a\t02\t\t'B'\tses-1\textra\r\n"
        "50\tsub-99\tz\tq\tr\r\n".encode()
    )
    write_json(raw / "participants.json", {"age": {"Units": "year"}, "else": 1})
    result = gathered(out, raw)
    header, *rows = table(result.path)
    assert header[:6] == [
        "participant_id", "session_id", "age", "participants_Third", "site",
        "participants_session_id",
    ]  # fmt: skip
    assert rows[0][2:6] == ["71", "x", 'Köln "A', "n/a"]
    assert rows[1][2:6] == ["n/a", "n/a", "'B'", "ses-1"]
    assert rows[2][2:6] == ["n/a"] * 4
    tree = json.loads((out / "group_seg-wml_morph.json").read_text("utf-8"))
    assert tree["age"] == {"Units": "year"} and "else" not in tree


@pytest.mark.parametrize("broken", [b"", b"\xff\xfe\x00", b"name\tage\nx\t3\n"])
def test_a_broken_participants_table_costs_only_its_columns(
    cohort: tuple[Path, Path], broken: bytes
) -> None:
    out, raw = cohort
    (raw / "participants.tsv").write_bytes(broken)
    result = gathered(out, raw)
    assert result.sessions == 3 and "participants.tsv: not used" in result.problems[0]


def test_a_broken_session_costs_only_its_own_row(cohort: tuple[Path, Path]) -> None:
    out, raw = cohort
    (out / names.morph_path("sub-02_ses-1_T1w.nii.gz", "wml")).write_text("index\tna")
    result = gathered(out, raw)
    assert [row[0] for row in table(result.path)[1:]] == ["sub-01", "sub-03"]
    assert len(result.problems) == 1 and "sub-02" in result.problems[0]


def test_a_second_table_of_one_session_is_told(cohort: tuple[Path, Path]) -> None:
    out, raw = cohort
    write_morph(out / names.morph_path("sub-01_ses-2_run-2_T1w.nii", "wml"), ROWS)
    result = gathered(out, raw)
    assert result.sessions == 3 and "another table" in result.problems[0]


def test_the_group_table_is_plain_tsv_for_other_readers(cohort: tuple[Path, Path]) -> None:
    path = gathered(*cohort).path
    with path.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream, delimiter="\t"))
    assert [row["participant_id"] for row in rows] == ["sub-01", "sub-02", "sub-03"]


def test_the_columns_of_sessions_come_along(cohort: tuple[Path, Path]) -> None:
    out, raw = cohort
    (raw / "participants.tsv").write_text("participant_id\tage\nsub-01\t70\n")
    (raw / "sub-01").mkdir()
    (raw / "sub-01" / "sub-01_sessions.tsv").write_text(
        "session_id\tage\tacq_time\nses-1\t70\tx\nses-2\t72\t2001-01-01T00:00:00\n"
    )
    write_json(raw / "sessions.json", {"age": {"Units": "year"}})
    first = records(gathered(out, raw).path)[0]
    assert (first["age"], first["sessions_age"]) == ("70", "72")
    assert first["acq_time"] == "2001-01-01T00:00:00"
    tree = json.loads((out / "group_seg-wml_morph.json").read_text("utf-8"))
    assert tree["sessions_age"] == {"Units": "year"} and "age" not in tree


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("participant_id\tage\nsub-01\t70\n", "no row for sub-02, sub-03"),
        ("participant_id\tage\nsub-01\t7\nsub-01\t8\n", "sub-01 in several rows"),
        (
            "participant_id\tage\nsub-01\t70\nsub-02\t71\nsub-03\tunknown\n",
            "column age contains numbers, but 1 other value, first 'unknown' for sub-03",
        ),
    ],
)
def test_what_is_odd_in_participants_is_said_and_costs_nothing(
    cohort: tuple[Path, Path], text: str, told: str
) -> None:
    out, raw = cohort
    (raw / "participants.tsv").write_text(text)
    result = gathered(out, raw)
    assert told in "; ".join(result.notes)
    assert result.sessions == 3 and result.problems == ()
    assert records(result.path)[0]["age"] in ("70", "8")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (
            b'"participant_id"\t"age"\n"1"\t"sub-01"\t70\n"2"\t"sub-02"\t71\n',
            "its number, is ignored",
        ),
        ("participant_id\tage\tK\xf6ln\nsub-01\t70\tx\n".encode("latin-1"), "read as Latin-1"),
        (b"participant_id\tage\r\nsub-01\t70\tx\r\n", "line 2 has more than 2 cells"),
        (b"participant_id\tage\tage\nsub-01\t7\t70\n", "column age occurs 2 times"),
    ],
)
def test_participants_of_other_programs_are_read_with_a_note(
    cohort: tuple[Path, Path], content: bytes, told: str
) -> None:
    out, raw = cohort
    (raw / "participants.tsv").write_bytes(content)
    result = gathered(out, raw)
    assert records(result.path)[0]["age"] == "70" and result.problems == ()
    assert told in "; ".join(result.notes)


def test_markup_in_participants_stays_a_value(cohort: tuple[Path, Path]) -> None:
    out, raw = cohort
    (raw / "participants.tsv").write_text(
        "participant_id\t<script>\nsub-01\t<script>alert(1)</script>\n"
    )
    assert records(gathered(out, raw).path)[0]["<script>"] == "<script>alert(1)</script>"


# -- structures, sides, time ---------------------------------------------------------------


def caudate(index: int, side: str, volume: float, percent: float | None = None) -> MorphRow:
    return MorphRow(index, f"{side}-Caudate", volume, None, None, percent, 0.9)


def crowd(out: Path, odd: float = 4000.0) -> None:
    """Twelve subjects with caudates of 4 ml in brains of 1.4 litres; in one the left differs."""
    for number in range(12):
        volume, brain = 4000.0 + 20 * (number % 5), 1_400_000.0 + 7000 * (number % 5)
        left = odd if number == 11 else volume
        write_morph(
            out / names.morph_path(f"sub-{number:02}_T1w.nii.gz", "deepbrain"),
            [
                caudate(36, "Right", volume, 100 * volume / brain),
                caudate(37, "Left", left, 100 * left / brain),
            ],
        )


def test_a_structure_far_from_the_median_is_an_outlier_with_its_reason(tmp_path: Path) -> None:
    crowd(tmp_path, odd=2000.0)
    volumes = read_volumes(tmp_path, find_task("deepbrain"))
    odd = [write_structures(tmp_path, volumes), write_asymmetry(tmp_path, volumes)]
    write_qc(tmp_path, [volumes], [], odd)
    rows = records(tmp_path / "group_seg-deepbrain_structures.tsv")
    assert {(row["participant_id"], row["name"]) for row in rows if row["outlier"] == "yes"} == {
        ("sub-11", "Left-Caudate")
    }
    last = records(tmp_path / "group_qc.tsv")[-1]
    assert last["outlier"] == "yes"
    assert "deepbrain: volume of Left-Caudate, robust z -" in last["outlier_reasons"]
    assert "deepbrain: asymmetry of Caudate, robust z -" in last["outlier_reasons"]
    assert "all volumes jointly (mainly Left-Caudate" in last["outlier_reasons"]
    assert float(last["outlier_score"]) > 3.5
    assert [row["outlier"] for row in records(tmp_path / "group_qc.tsv")[:-1]] == ["no"] * 11


def test_few_sessions_are_not_flagged(tmp_path: Path) -> None:
    crowd(tmp_path, odd=2000.0)
    for number in range(3):
        (tmp_path / names.morph_path(f"sub-{number:02}_T1w.nii.gz", "deepbrain")).unlink()
    write_structures(tmp_path, read_volumes(tmp_path, find_task("deepbrain")))
    rows = records(tmp_path / "group_seg-deepbrain_structures.tsv")
    assert {row["outlier"] for row in rows} == {"n/a"}


def test_the_residual_method_takes_brain_size_out(tmp_path: Path) -> None:
    crowd(tmp_path)
    write_structures(tmp_path, read_volumes(tmp_path, find_task("deepbrain")))
    rows = records(tmp_path / "group_seg-deepbrain_structures.tsv")
    right = [float(row["volume_residual_mm3"]) for row in rows if row["name"] == "Right-Caudate"]
    assert max(right) - min(right) < 1.0  # 80 mm3 before
    tree = json.loads((tmp_path / "group_seg-deepbrain_structures.json").read_text("utf-8"))
    slope = tree["ResidualMethod"]["Right-Caudate"]["Slope"]
    assert slope == pytest.approx(20 / 7000, rel=1e-3)


def visits(out: Path, people: int = 3) -> None:
    """Subjects with two sessions, who lose 100 mm3 in between, each a little more or less."""
    for number in range(people):
        for session, loss in (("1", 0.0), ("2", 100.0 + number)):
            path = names.morph_path(f"sub-{number}_ses-{session}_T1w.nii.gz", "deepbrain")
            write_morph(out / path, [caudate(37, "Left", 4000.0 + 500 * number - loss)])


def dated(raw: Path, table: str) -> None:
    """The second session half a year after the first, by one kind of table."""
    for number in range(3):
        folder = raw / f"sub-{number}"
        for session, date in (("1", "2001-01-01T08:00:00"), ("2", "2001-07-02T20:00:00.5Z")):
            if table == "scans.tsv":
                place = folder / f"ses-{session}"
                place.mkdir(parents=True)
                stem = f"sub-{number}_ses-{session}"
                (place / f"{stem}_scans.tsv").write_text(
                    f"filename\tacq_time\nanat/{stem}_T1w.nii.gz\t{date}\n"
                )
        folder.mkdir(parents=True, exist_ok=True)
        columns = {
            "sessions.tsv": "acq_time\nses-1\t2001-01-01\nses-2\t2001-07-02T15:00:00\n",
            "age": "age\nses-1\t70\nses-2\t70.5\n",
            "scans.tsv": "age\nses-1\t70\nses-2\t99\n",
            "none": "site\nses-1\tA\nses-2\tA\n",
        }
        path = folder / f"sub-{number}_sessions.tsv"
        path.write_text("session_id\t" + columns[table])


@pytest.mark.parametrize("source", ["scans.tsv", "sessions.tsv", "age"])
def test_change_a_year_comes_from_dates_or_ages(tmp_path: Path, source: str) -> None:
    out, raw = tmp_path / "out", tmp_path / "raw"
    visits(out)
    dated(raw, source)
    volumes = read_volumes(out, find_task("deepbrain"))
    write_change(out, volumes, Times.read(raw, [volumes]))
    first, *_ = records(out / "group_seg-deepbrain_change.tsv")
    assert (first["time_from"], first["n"]) == (source, "2")
    assert (first["first_session"], first["last_session"]) == ("ses-1", "ses-2")
    assert float(first["change_mm3_per_year"]) == pytest.approx(-200, rel=0.01)
    assert float(first["change_percent_per_year"]) == pytest.approx(-200 / 39.5, rel=0.01)


def test_without_dates_there_is_no_change_and_an_old_table_goes(tmp_path: Path) -> None:
    out, raw = tmp_path / "out", tmp_path / "raw"
    visits(out)
    dated(raw, "none")
    volumes = read_volumes(out, find_task("deepbrain"))
    (out / "group_seg-deepbrain_change.tsv").write_text("of an earlier run\n")
    assert write_change(out, volumes, Times.read(raw, [volumes])) is None
    assert not (out / "group_seg-deepbrain_change.tsv").exists()


def test_two_sessions_of_several_people_give_test_and_retest(tmp_path: Path) -> None:
    visits(tmp_path)
    write_retest(tmp_path, read_volumes(tmp_path, find_task("deepbrain")), Times())
    (row,) = records(tmp_path / "group_seg-deepbrain_retest.tsv")
    assert (row["n"], row["bias_mm3"], row["years_median"]) == ("3", "-101.00", "n/a")
    assert 0.9 < float(row["ccc"]) < 1 and 0.9 < float(row["icc"]) < 1
    assert float(row["cv_percent"]) == pytest.approx(1.6, abs=0.2)


def test_one_subject_alone_has_tables_without_comparisons(tmp_path: Path) -> None:
    visits(tmp_path, people=1)
    volumes = read_volumes(tmp_path, find_task("deepbrain"))
    write_qc(tmp_path, [volumes], [], [write_structures(tmp_path, volumes)])
    assert write_asymmetry(tmp_path, volumes) is None
    assert write_retest(tmp_path, volumes, Times()) is None
    row, _ = records(tmp_path / "group_qc.tsv")
    assert (row["deepbrain_status"], row["outlier"], row["joint_deviation"]) == (
        "done", "n/a", "n/a",
    )  # fmt: skip


# -- the table of what to look at ----------------------------------------------------------


def test_every_session_of_the_log_has_its_row_with_status_reasons_and_findings(
    tmp_path: Path,
) -> None:
    visits(tmp_path, people=1)
    write_sessions(
        tmp_path / "logs" / "sessions.tsv",
        [
            SessionRow("sub-0", "ses-1", "deepbrain", "resumed", findings="info:oblique,error:x"),
            SessionRow("sub-0", "ses-1", "wml", "skipped", "no FLAIR"),
            SessionRow("sub-5", "", "deepbrain", "done"),
            SessionRow("sub-6", "", "deepbrain", "failed", "the file is empty"),
            SessionRow("sub-6", "", "space-MNI152", "failed", "no template"),
            SessionRow("sub-7", "", "deepbrain", "skipped", "no T1w"),
            SessionRow("sub-7", "", "wml", "skipped", "no FLAIR"),
        ],
    )
    finding = Finding("oblique", "warning", "tilted").to_json()
    sidecar = names.sidecar_path(names.morph_path("sub-0_ses-2_T1w.nii.gz", "deepbrain"))
    write_json(tmp_path / sidecar, {"Findings": [finding]})
    log, problems = read_log(tmp_path)
    tasks = [read_volumes(tmp_path, find_task(task)) for task in ("deepbrain", "wml")]
    _, gone = write_qc(tmp_path, tasks, log, [])
    one, two, five, six, seven = records(tmp_path / "group_qc.tsv")
    assert (one["deepbrain_status"], one["wml_status"]) == ("done", "skipped")
    assert one["reasons"] == "wml: no FLAIR" and one["brain_status"] == "n/a"
    assert (one["severity"], one["findings"]) == ("error", "error:x,info:oblique")
    assert (two["severity"], two["findings"]) == ("warning", "warning:oblique")
    assert (two["confidence_worst"], two["confidence_worst_structure"]) == (
        "0.90000", "Left-Caudate",
    )  # fmt: skip
    assert five["deepbrain_status"] == "missing"
    assert (six["deepbrain_status"], six["reasons"]) == ("failed", "deepbrain: the file is empty")
    assert gone == [(("sub-5", ""), "deepbrain")] and problems == []
    assert "skipped" not in one["verdict_reason"]  # another task is done
    assert (seven["verdict"], seven["verdict_reason"]) == (
        "check", "Deep brain structures skipped: no T1w; White-matter lesions skipped: no FLAIR.",
    )  # fmt: skip

"""Time is not the alphabet: one order of the sessions of a participant for tables and reports."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from deepmrseg_bids.app.group import run_group
from deepmrseg_bids.bids import names
from deepmrseg_bids.bids.tables import MorphRow, write_morph
from deepmrseg_bids.bids.visits import Visits, read_visits
from deepmrseg_bids.config import RunConfig
from deepmrseg_bids.imaging.labels import Label, LabelTable
from deepmrseg_bids.reports.subject.collect import subject_page
from deepmrseg_bids.session.job import SessionOutcome, TaskOutcome

NAME = "Left-Caudate"
UNKNOWN = "the order of the sessions is unknown"


@pytest.fixture(autouse=True)
def _no_sync(monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk's sync takes most of the time, and no claim here needs it."""
    monkeypatch.setattr("os.fsync", lambda _: None)


def study(folder: Path, times: Mapping[str, str], people: int = 3, table: str = "scans") -> Path:
    """Participants who lose 100 mm3 from each session to the next, in the order given."""
    (folder / "raw").mkdir(parents=True)
    LabelTable((Label(37, NAME),)).write(_made(folder / "out") / "seg-deepbrain_dseg.tsv")
    for number in range(people):
        who = f"sub-{number}"
        for place, (session, when) in enumerate(times.items()):
            stem = f"{who}_{session}"
            volume = 4000.0 + 500 * number - 100 * place
            path = folder / "out" / names.morph_path(f"{stem}_T1w.nii.gz", "deepbrain")
            write_morph(path, [MorphRow(37, NAME, volume, 0.9 * volume, 1.1 * volume, None, 0.9)])
            if when and table == "scans":
                _made(folder / "raw" / who / session).joinpath(f"{stem}_scans.tsv").write_text(
                    f"filename\tacq_time\nanat/{stem}_T1w.nii.gz\t{when}\n"
                )
        if table != "scans":
            rows = "".join(f"{session}\t{when or 'n/a'}\n" for session, when in times.items())
            _made(folder / "raw" / who).joinpath(f"{who}_sessions.tsv").write_text(
                f"session_id\t{table}\n{rows}"
            )
    return folder


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def group(folder: Path) -> int:
    return run_group(
        RunConfig(folder / "raw", folder / "out", "group", reports=False, nprocs=1, verbosity=-1)
    )


def rows(folder: Path, table: str) -> list[dict[str, str]]:
    path = folder / "out" / f"group_{table}.tsv"
    if not path.exists():
        return []
    header, *lines = (line.split("\t") for line in path.read_text("utf-8").splitlines())
    return [dict(zip(header, line, strict=True)) for line in lines]


def page(folder: Path) -> str:
    """The report of the first participant."""
    sessions = sorted(path.name for path in (folder / "out" / "sub-0").glob("ses-*"))
    outcomes = [
        SessionOutcome(
            "0",
            session.removeprefix("ses-"),
            {"T1w": str(folder / f"raw/sub-0/{session}/anat/sub-0_{session}_T1w.nii.gz")},
            (TaskOutcome("deepbrain", "done"),),
        )
        for session in sessions
    ]
    return subject_page(outcomes, folder / "out", command="x").read_text("utf-8")


def shown(text: str) -> list[str]:
    """The sessions of a page in its order."""
    return re.findall(r'<h2 id="[^"]*-title">Session (\w+)</h2>', text)


ORDERS = {
    "pre and post, dated": {"ses-pre": "2020-03-01T09:00:00", "ses-post": "2020-09-01T09:00:00"},
    "2 and 10, no dates": {"ses-2": "", "ses-10": ""},
    "months": {"ses-M00": "", "ses-M06": "", "ses-M12": ""},
    "months of mixed case": {"ses-m0": "n/a", "ses-M6": "", "ses-m12": "n/a"},
    "units behind": {"ses-6mo": "", "ses-12mo": ""},
    "days as labels": {"ses-20191231": "", "ses-20200102": ""},
    "shifted dates": {"ses-b": "1899-12-31T08:00:00", "ses-a": "1900-01-02T08:00:00"},
    "dates without times": {"ses-b": "2020-01-31", "ses-a": "2020-02-01"},
    "one day, two hours": {"ses-b": "2020-01-31T09:00:00", "ses-a": "2020-01-31T15:30:00.250000"},
    "zones": {"ses-b": "2020-01-31T23:30:00+05:00", "ses-a": "2020-01-31T20:00:00Z"},
    "dates against labels": {"ses-2": "2020-01-01", "ses-1": "2021-01-01"},
    "some dated, numbers": {"ses-2": "2020-01-01", "ses-9": "", "ses-10": "2020-06-01"},
    "the same day, numbers": {"ses-2": "2020-01-01", "ses-10": "2020-01-01T08:00:00"},
}


@pytest.mark.parametrize("kind", ORDERS)
def test_sessions_stand_in_the_order_of_time_in_every_table(tmp_path: Path, kind: str) -> None:
    folder, expected = study(tmp_path, ORDERS[kind]), list(ORDERS[kind])
    assert group(folder) == 0
    for table in ("qc", "seg-deepbrain_morph", "seg-deepbrain_structures"):
        assert [row["session_id"] for row in rows(folder, table)] == 3 * expected, table
    (retest,) = rows(folder, "seg-deepbrain_retest")
    assert (retest["bias_mm3"], retest["n_ordered"]) == ("-100.00", "3")
    for row in rows(folder, "seg-deepbrain_change"):
        ends = [session for session, when in ORDERS[kind].items() if when not in ("", "n/a")]
        assert [row["first_session"], row["last_session"]] == [ends[0], ends[-1]]
        assert row["change_mm3_per_year"] == "n/a" or float(row["change_mm3_per_year"]) < 0


@pytest.mark.parametrize("kind", ["pre and post, dated", "2 and 10, no dates"])
def test_the_report_of_a_subject_agrees_with_the_tables(tmp_path: Path, kind: str) -> None:
    text = page(study(tmp_path, ORDERS[kind], people=1))
    assert shown(text) == [session.removeprefix("ses-") for session in ORDERS[kind]]
    assert '<td class="number">-2.5</td>' in text and UNKNOWN not in text


NO_ORDERS = {
    "pre and post": {"ses-pre": "", "ses-post": ""},
    "a number and a word": {"ses-baseline": "", "ses-m12": ""},
    "two numbers in a label": {"ses-v1d2": "", "ses-v2d1": ""},
    "ids": {"ses-148233": "", "ses-99120": ""},
    "days first": {"ses-31012020": "", "ses-01022020": ""},
    "one number twice": {"ses-1": "", "ses-01": ""},
    "unreadable": {"ses-pre": "01/03/2020", "ses-post": "01/09/2020"},
    "the same time": {"ses-pre": "2020-01-01", "ses-post": "2020-01-01"},
    "one dated": {"ses-pre": "2020-01-01", "ses-post": ""},
    "a day and an hour of it": {"ses-pre": "2020-01-01", "ses-post": "2020-01-01T08:00:00"},
    "zones of some": {"ses-pre": "2020-01-01T23:00:00Z", "ses-post": "2020-01-01T08:00:00"},
}


@pytest.mark.parametrize("kind", NO_ORDERS)
def test_without_an_order_nothing_is_first_or_last_and_no_change_has_a_sign(
    tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    folder = study(tmp_path, NO_ORDERS[kind])
    assert group(folder) == 0
    assert rows(folder, "seg-deepbrain_change") == []
    (retest,) = rows(folder, "seg-deepbrain_retest")
    assert (retest["n"], retest["n_ordered"]) == ("3", "0")
    assert [retest[column] for column in ("bias_mm3", "limit_low_mm3", "limit_high_mm3")] == [
        "n/a", "n/a", "n/a",
    ]  # fmt: skip
    assert float(retest["ccc"]) > 0.9 and float(retest["cv_percent"]) > 0  # these have no sign
    assert f"sub-0, sub-1, sub-2: {UNKNOWN}" in caplog.text
    text = page(folder)
    assert f"no change is given, because {UNKNOWN}" in text
    assert '<td class="number">-2.5</td>' not in text and "2.6</td>" not in text
    assert "first to the last session" not in text


def test_two_dated_sessions_of_three_still_have_a_change(tmp_path: Path) -> None:
    times = {"ses-pre": "2020-01-01", "ses-post": "2020-07-01", "ses-extra": ""}
    folder = study(tmp_path, times)
    assert group(folder) == 0
    first, *_ = rows(folder, "seg-deepbrain_change")
    assert (first["first_session"], first["last_session"], first["n"]) == (
        "ses-pre", "ses-post", "2",
    )  # fmt: skip
    row = rows(folder, "seg-deepbrain_retest")[0]
    assert (row["n_ordered"], row["bias_mm3"]) == ("3", "-100.00")
    text = page(folder)
    assert f"no change is given, because {UNKNOWN}: ses-extra has no time" in text


def test_three_sessions_of_which_two_share_the_first_day_name_no_first(tmp_path: Path) -> None:
    times = {"ses-b": "2020-01-01", "ses-a": "2020-01-01", "ses-c": "2020-12-01"}
    folder = study(tmp_path, times)
    group(folder)
    row = rows(folder, "seg-deepbrain_change")[0]
    assert (row["first_session"], row["first_volume_mm3"], row["last_session"]) == (
        "n/a", "n/a", "ses-c",
    )  # fmt: skip


def test_a_time_that_cannot_be_read_is_named_and_the_numbers_serve(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    folder = study(tmp_path, {"ses-2": "2020-13-45T00:00:00", "ses-10": "2020-01-01"})
    assert group(folder) == 0
    assert (
        "sub-0: acq_time '2020-13-45T00:00:00' of ses-2 in scans.tsv is not a date" in caplog.text
    )
    assert rows(folder, "seg-deepbrain_retest")[0]["bias_mm3"] == "-100.00"
    assert "is not a date, and is not used" in page(folder)


@pytest.mark.parametrize(
    ("column", "times"),
    [
        ("acq_time", {"ses-pre": "2020-01-01", "ses-post": "2021-01-01"}),
        ("age", {"ses-pre": "70.5", "ses-post": "71.5"}),
        ("age", {"ses-pre": "70,5", "ses-post": "71,5"}),
    ],
)
def test_dates_and_ages_of_sessions_tsv_give_the_order_too(
    tmp_path: Path, column: str, times: Mapping[str, str]
) -> None:
    folder = study(tmp_path, times, table=column)
    assert group(folder) == 0
    row = rows(folder, "seg-deepbrain_change")[0]
    assert (row["first_session"], row["last_session"]) == ("ses-pre", "ses-post")
    assert float(row["change_mm3_per_year"]) == pytest.approx(-100, rel=0.01)


SCANS = {
    "another scan of the session": ["anat/sub-0_{0}_FLAIR.nii.gz\t{1}"],
    "several scans": [
        "func/sub-0_{0}_task-x_bold.nii.gz\t1990-01-01",
        "anat/sub-0_{0}_T1w.nii.gz\t{1}",
    ],
    "n/a for the T1w": [
        "anat/sub-0_{0}_T1w.nii.gz\tn/a",
        "anat/sub-0_{0}_FLAIR.nii.gz\t{1}",
        "func/sub-0_{0}_task-x_bold.nii.gz\t2025-01-01",
    ],
}


@pytest.mark.parametrize("place", ["session", "subject"])
@pytest.mark.parametrize("kind", SCANS)
def test_the_time_is_that_of_the_segmented_scan_or_the_first_of_its_session(
    tmp_path: Path, kind: str, place: str
) -> None:
    dates = {"ses-b": "2020-01-01T08:00:00", "ses-a": "2020-01-02T08:00:00"}
    for session, date in dates.items():
        folder = _made(tmp_path / "sub-0" / (session if place == "session" else ""))
        lines = "".join(f"{line}\n" for line in SCANS[kind]).format(session, date)
        (folder / f"{session}_scans.tsv").write_text("filename\tacq_time\n" + lines)
    visits = read_visits(tmp_path, "sub-0", {one: f"sub-0_{one}" for one in dates})
    assert (visits.sessions, visits.source, visits.notes) == (tuple(dates), "scans.tsv", ())
    assert visits.years["ses-a"] - visits.years["ses-b"] == pytest.approx(1 / 365.25, rel=0.01)


def sessions_with(folder: Path, dates: tuple[str, str, str], ages: tuple[str, str, str]) -> Visits:
    """What is known of three sessions of one participant."""
    labels = ("ses-c", "ses-b", "ses-a")
    for session, date in zip(labels, dates, strict=True):
        (_made(folder / "sub-0" / session) / "x_scans.tsv").write_text(
            f"filename\tacq_time\nanat/sub-0_{session}_T1w.nii.gz\t{date}\n"
        )
    rows = "".join(f"{who}\t{age}\n" for who, age in zip(labels, ages, strict=True))
    (folder / "sub-0" / "sub-0_sessions.tsv").write_text(f"session_id\tage\n{rows}")
    return read_visits(folder, "sub-0", {one: f"sub-0_{one}" for one in labels})


@pytest.mark.parametrize(
    ("dates", "ages", "source"),
    [
        (("1900-01-01",) * 3, ("70", "71", "72"), "age"),  # dates that were blanked out
        (("2000-01-01", "2000-02-01", "2000-03-01"), ("70", "70", "70"), "scans.tsv"),
        (("2000-01-01", "2000-02-01", "n/a"), ("70", "71", "72"), "age"),
    ],
)
def test_the_source_that_tells_most_sessions_apart_is_used(
    tmp_path: Path, dates: tuple[str, str, str], ages: tuple[str, str, str], source: str
) -> None:
    visits = sessions_with(tmp_path, dates, ages)
    assert (visits.sessions, visits.source) == (("ses-c", "ses-b", "ses-a"), source)


def test_dates_and_ages_that_disagree_are_named(tmp_path: Path) -> None:
    visits = sessions_with(tmp_path, ("2000-01-01", "2000-02-01", "2000-03-01"), ("72", "71", "70"))
    assert visits.sessions == ("ses-c", "ses-b", "ses-a")
    assert "scans.tsv and age disagree on the order" in visits.notes[0]


def test_two_times_of_one_scan_are_named_and_not_used(tmp_path: Path) -> None:
    for session in ("ses-1", "ses-2"):
        line = f"sub-0_{session}_T1w.nii.gz\t20{{}}0-01-01\n"
        _made(tmp_path / "sub-0" / session).joinpath(f"{session}_scans.tsv").write_text(
            "filename\tacq_time\n" + line.format(1) + line.format(2)
        )
    visits = read_visits(tmp_path, "sub-0", {"ses-1": "sub-0_ses-1", "ses-2": "sub-0_ses-2"})
    assert "ses-1 has several times in scans.tsv" in visits.notes[0]
    assert visits.years == {} and visits.known  # by their numbers


def test_dates_of_which_only_some_were_shifted_are_named_and_not_used(tmp_path: Path) -> None:
    visits = sessions_with(tmp_path, ("1800-01-01", "2001-01-01", "2002-01-01"), ("n/a",) * 3)
    assert not visits.years
    assert any("spans more than 120 years" in note for note in visits.notes)


def test_the_order_is_a_strict_one_whatever_is_known() -> None:
    labels = ["ses-1", "ses-2", "ses-10", "ses-pre"]
    for years in ({}, {"ses-1": 1.0}, {"ses-10": 0.0, "ses-2": 1.0}, {"ses-pre": 3.0}):
        visits = Visits.of(labels, years)
        for one in labels:
            assert visits.before(one, one) is None
            for other in labels:
                answers = (visits.before(one, other), visits.before(other, one))
                assert answers in ((True, False), (False, True), (None, None))


@pytest.mark.robustness(
    "sessions whose labels are not in the order of time",
    tried="ses-pre and ses-post of three participants, with and without acq_time",
)
def test_labels_that_are_not_in_the_order_of_time(
    tmp_path: Path, came_out: Callable[[str], None]
) -> None:
    bias = []
    for kind in ("pre and post, dated", "pre and post"):
        folder = study(tmp_path / kind, {**ORDERS, **NO_ORDERS}[kind])
        assert group(folder) == 0
        bias.append(rows(folder, "seg-deepbrain_retest")[0]["bias_mm3"])
    assert bias == ["-100.00", "n/a"]
    came_out(f"dated: bias {bias[0]} mm3; without dates: bias {bias[1]}, with a warning")

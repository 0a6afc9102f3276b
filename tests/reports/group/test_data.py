"""What the page of a study shows: tables brought into columns, and the page as text."""

from __future__ import annotations

import base64
import gzip
import html
import json
import re
from pathlib import Path

import pytest

from deepmrseg_bids.bids import names
from deepmrseg_bids.reports.group.data import payload, read_cohort
from deepmrseg_bids.reports.group.mosaic import Tile
from deepmrseg_bids.reports.group.page import write_group_report
from tests.reports.made_up_study import STRUCTURE_NAMES, write_study

TASKS = ("brain", "deepbrain", "hippocampus", "wml")
ROOT = Path(__file__).parents[3]

TOO_FEW = "Outlier detection needs at least 10 sessions"


def page_of(out: Path, **options: object) -> str:
    write_group_report(out / "group.html", read_cohort(out, TASKS), command="x", **options)
    return (out / "group.html").read_text(encoding="utf-8")


def data_of(page: str) -> dict[str, object]:
    (packed,) = re.findall(r'id="cohort">(.+?)<', page)
    return json.loads(gzip.decompress(base64.b64decode(packed)))


def test_every_column_has_one_value_for_each_session_in_the_order_of_the_checks(
    tmp_path: Path,
) -> None:
    write_study(tmp_path, 5, reference="manual")
    cohort = read_cohort(tmp_path, TASKS)
    assert [key[0] for key in cohort.keys] == [f"sub-000{number}" for number in range(5)]
    (task,) = cohort.tasks
    measures = {measure.key: measure for measure in task.measures}
    assert set(measures) == {
        "volume_mm3", "volume_icv_percent", "confidence", "deviation", "asymmetry_percent",
    }  # fmt: skip
    assert measures["volume_mm3"].names == STRUCTURE_NAMES
    assert all(len(row) == 5 for one in measures.values() for row in one.values)
    assert 2000 <= (measures["volume_mm3"].values[1][4] or 0) <= 2100
    assert cohort.people == {"age": ("20", "21", "22", "23", "24"), "sex": tuple("FMFMF"),
                             "site": ("<b>A</b>",) * 5}  # fmt: skip
    (agreement,) = task.agreements
    assert agreement.summary["Left-Caudate"]["bias_mm3"] == -10
    assert {score.key for score in agreement.scores} == {
        "f1", "volume_mm3", "reference_volume_mm3",
    }  # fmt: skip
    json.dumps(payload(cohort), allow_nan=False)


def test_a_half_written_table_is_named_and_costs_itself_alone(tmp_path: Path) -> None:
    write_study(tmp_path, 3)
    broken = tmp_path / names.group_path("deepbrain", "asymmetry")
    broken.write_text(broken.read_text()[:-9])
    cohort = read_cohort(tmp_path, TASKS)
    assert len(cohort.problems) == 1 and str(broken) in cohort.problems[0]
    assert cohort.tasks[0].measures[0].key == "volume_mm3"
    assert str(broken) in html.unescape(page_of(tmp_path))


def test_reasons_and_findings_are_counted_with_who_they_are_about(tmp_path: Path) -> None:
    skipped = {"deepbrain_status": "failed", "wml_status": "skipped",
               "reasons": "deepbrain: no memory; give it more; wml: no FLAIR", "severity": "error",
               "findings": "error:no-brain,info:oblique"}  # fmt: skip
    write_study(tmp_path, 8, qc=dict.fromkeys(range(7), skipped))
    cohort = read_cohort(tmp_path, TASKS)
    reasons = {(one.kind, one.text): one for one in cohort.reasons()}
    assert set(reasons) == {("deepbrain", "no memory; give it more"), ("wml", "no FLAIR")}
    assert reasons["wml", "no FLAIR"].count == 7
    assert reasons["wml", "no FLAIR"].examples == tuple(f"sub-000{k}" for k in range(5))
    assert [(one.kind, one.text, one.count) for one in cohort.findings()] == [
        ("error", "no-brain", 7), ("info", "oblique", 7),
    ]  # fmt: skip
    assert cohort.statuses()["wml"] == {"skipped": 7, "not requested": 1}
    page = page_of(tmp_path)
    assert "no FLAIR" in page and "and 2 more" in page


@pytest.mark.parametrize(
    ("study", "words"),
    [
        ({"sessions": 1}, "The study has one session"),
        ({"sessions": 3, "people": False}, "No participants.tsv"),
        ({"sessions": 3, "confidence": False}, "No confidence values"),
        ({"sessions": 3}, "No reference was given"),
        ({"sessions": 2, "qc": {0: {"outlier": None}, 1: {"outlier": None}}}, TOO_FEW),
    ],
)
def test_the_page_says_what_there_is_not(
    tmp_path: Path, study: dict[str, object], words: str
) -> None:
    write_study(tmp_path, **study)  # type: ignore[arg-type]
    assert words in page_of(tmp_path)


def test_what_the_study_has_is_not_said_to_be_missing(tmp_path: Path) -> None:
    write_study(tmp_path, 3, reference="manual")
    page = page_of(tmp_path)
    for words in (
        "one session",
        "No participants.tsv",
        "No confidence",
        "No reference",
        "Outlier detection needs at least 10 sessions",
    ):
        assert words not in page


def test_no_string_of_the_tables_becomes_markup(tmp_path: Path) -> None:
    evil = "</script><script>alert(1)</script>"
    bad = {"reasons": f"deepbrain: {evil}", "findings": f"error:{evil}", "severity": "error"}
    write_study(tmp_path, 2, structures=(f"Left-{evil}", f"Right-{evil}"), reference=evil,
                qc={0: bad})  # fmt: skip
    page = page_of(tmp_path, mosaics={"deepbrain": [Tile(0, 1, 0, evil)]})
    assert "<script>alert" not in page and "</script><script>a" not in page
    assert "<b>A</b>" not in page
    assert evil in json.dumps(data_of(page))


def test_equal_tables_give_equal_pages(tmp_path: Path) -> None:
    write_study(tmp_path, 3)
    assert page_of(tmp_path) == page_of(tmp_path)


def test_only_subjects_with_a_page_are_linked(tmp_path: Path) -> None:
    write_study(tmp_path, 2)
    (tmp_path / "sub-0001.html").touch()
    assert read_cohort(tmp_path, TASKS).pages == ("", "sub-0001.html")


def test_mosaics_are_known_by_their_file_and_place(tmp_path: Path) -> None:
    write_study(tmp_path, 2)
    tiles = [Tile(1, 1, 0), Tile(0, 1, 1, "no such file")]
    mosaic = data_of(page_of(tmp_path, mosaics={"deepbrain": tiles}))["mosaics"]["deepbrain"]  # type: ignore[index]
    assert mosaic["tiles"] == [[1, 1, 0, ""], [0, 1, 1, "no such file"]]
    assert mosaic["sheets"] == {"1": "figures/group_seg-deepbrain_mosaic-001.webp"}


def test_the_licences_of_the_plotting_library_are_in_the_package() -> None:
    assets = ROOT / "deepmrseg_bids" / "reports" / "assets"
    text = (assets / "echarts.LICENSE").read_text()
    for words in ("Apache License", "LICENSE-d3", "Redistributions in binary form"):
        assert words in text
    for name in ("echarts.LICENSE", "echarts.NOTICE"):
        assert f"reports/assets/{name}" in (ROOT / "pyproject.toml").read_text()

"""What the group level says of a subject, and pages that are brought up to date."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from deepmrseg_bids.reports.subject.study import Study, refresh


def write(folder: Path, count: int) -> None:
    rows = [f"sub-{k}\tn/a\t{100 * k}" for k in range(1, count + 1)]
    table = folder / "group_seg-deepbrain_morph.tsv"
    table.write_text("\n".join(["participant_id\tsession_id\tStem", *rows]) + "\n")


def test_the_percentile_is_the_share_of_other_sessions_below(tmp_path: Path) -> None:
    write(tmp_path, 11)
    place = Study(tmp_path).standing("deepbrain", "sub-4", "")["Stem"]
    assert place.percentile == pytest.approx(30) and place.of == 11 and place.deviation is None


def test_the_deviation_comes_from_the_table_of_structures(tmp_path: Path) -> None:
    write(tmp_path, 6)
    (tmp_path / "group_seg-deepbrain_structures.tsv").write_text(
        "participant_id\tsession_id\tname\tdeviation\nsub-2\tn/a\tStem\t-1.5\n"
    )
    assert Study(tmp_path).standing("deepbrain", "sub-2", "")["Stem"].deviation == -1.5


def test_numbers_about_people_are_no_volumes(tmp_path: Path) -> None:
    write(tmp_path, 6)
    table = tmp_path / "group_seg-deepbrain_morph.tsv"
    lines = table.read_text().splitlines()
    aged = [f"{line}\t{'age' if n == 0 else 20 + n}" for n, line in enumerate(lines)]
    more = "sub-7\tn/a\tn/a\t30"  # without volumes: not among the sessions of a rank
    table.write_text("\n".join([*aged, more]) + "\n")
    (tmp_path / "group_seg-deepbrain_structures.tsv").write_text(
        "participant_id\tsession_id\tname\tdeviation\nsub-2\tn/a\tStem\t-1.5\n"
    )
    places = Study(tmp_path).standing("deepbrain", "sub-2", "")
    assert list(places) == ["Stem"] and places["Stem"].of == 6


def test_few_sessions_other_people_and_damaged_tables_say_nothing(tmp_path: Path) -> None:
    assert Study(tmp_path).standing("deepbrain", "sub-1", "") == {}
    write(tmp_path, 4)
    assert Study(tmp_path).standing("deepbrain", "sub-1", "") == {}
    write(tmp_path, 9)
    assert Study(tmp_path).standing("deepbrain", "sub-77", "") == {}
    (tmp_path / "group_seg-deepbrain_morph.tsv").write_bytes(b"\xff\x00\tx\n\n")
    assert Study(tmp_path).standing("deepbrain", "sub-1", "") == {}


def qc(folder: Path, *rows: str) -> None:
    head = "participant_id\tsession_id\tverdict\tverdict_reason\toutlier_score\toutlier_reasons"
    (folder / "group_qc.tsv").write_text("\n".join([head, *rows]) + "\n")


def test_pages_are_in_the_order_of_verdict_outlier_and_confidence(tmp_path: Path) -> None:
    qc(tmp_path, "sub-1\tn/a\tok\tn/a\t1\tn/a", "sub-2\tn/a\tcheck\tn/a\t2\tn/a",
       "sub-3\tn/a\tcheck\tn/a\t9\tn/a", "sub-4\tn/a\tproblem\tn/a\tn/a\tn/a",
       "sub-5\tn/a\tproblem\tn/a\tn/a\tn/a")  # fmt: skip
    for number in (1, 2, 3, 4):
        (tmp_path / f"sub-{number}.html").touch()
    assert Study(tmp_path).order == [f"sub-{number}.html" for number in (4, 3, 2, 1)]


def test_a_page_is_brought_up_to_date_without_its_pictures_being_drawn(tmp_path: Path) -> None:
    page = tmp_path / "sub-2.html"
    page.write_text('<p>x</p><script type="application/json" id="study">{}</script></html>')
    assert Study(tmp_path).facts("sub-2", [""], ["deepbrain"]) == {}
    write(tmp_path, 6)
    qc(tmp_path, "sub-2\tn/a\tcheck\tWhy </script> & so\t4\tvolume of Stem: +4.0")
    facts = Study(tmp_path).facts("sub-2", [""], ["deepbrain"])
    assert refresh(page, facts) and refresh(page, facts)
    text = page.read_text()
    start, _, rest = text.partition('id="study">')
    told, _, end = rest.partition("</script>")
    assert json.loads(told) == facts and start.startswith("<p>x</p>") and end == "</html>"
    assert facts["sessions"][""]["standing"] == {"deepbrain": {"Stem": [20, 6, None, None, None]}}
    assert facts["sessions"][""]["verdict_reason"] == "Why </script> & so"
    assert not refresh(page, {**facts, "norms": {}})  # it has no place for them
    assert page.read_text() == text
    page.write_text("<p>of an older version</p>")
    assert not refresh(page, facts)


def norms_study(folder: Path) -> None:
    lines = ["participant_id\tsession_id\tage\tsex\tStem"]
    more = ["participant_id\tsession_id\tname\tvolume_mm3\tvolume_low_mm3\tnorm_centile"]
    for number in range(1, 4):
        lines.append(f"sub-1\tses-{number}\t{50 + number}\tF\t{1000 * number}")
        more.append(f"sub-1\tses-{number}\tStem\t{1000 * number}\t900\t{10 * number}")
    lines.append("sub-2\tn/a\tn/a\tn/a\t2000")
    more.append("sub-2\tn/a\tStem\t2000\tn/a\tn/a")
    (folder / "group_seg-deepbrain_morph.tsv").write_text("\n".join(lines) + "\n")
    (folder / "group_seg-deepbrain_structures.tsv").write_text("\n".join(more) + "\n")
    qc(folder, "sub-1\tses-1\tok\tn/a\t1\tn/a", "sub-2\tn/a\tok\tn/a\t1\tn/a")


def test_a_page_has_the_reference_of_its_own_sex_and_its_points_at_their_ages(
    tmp_path: Path,
) -> None:
    norms_study(tmp_path)
    sessions = ["ses-1", "ses-2", "ses-3"]
    assert "norms" not in Study(tmp_path).facts("sub-1", sessions, ["deepbrain"])
    rows = ["name\tsex\tage\tcentile_5\tcentile_95"]
    rows += [f"Stem\t{s}\t{age}\t{100 + age}\t{9000 + f}" for age in range(20, 91)
             for s, f in (("f", 0), ("m", 500))]  # fmt: skip
    (tmp_path / "group_norms.tsv").write_text("\n".join(rows) + "\n")
    found = Study(tmp_path).facts("sub-1", sessions, ["deepbrain"])["norms"]
    (panel,) = found["tasks"]["deepbrain"]
    assert found["centiles"] == [5, 95] and panel["name"] == "Stem"
    assert len(panel["ages"]) == 25 and (panel["ages"][0], panel["ages"][-1]) == (20, 90)
    assert set(panel["volumes"][1]) == {9000} and panel["volumes"][0][-1] == 190
    assert panel["points"][1] == ["ses-2", 52, 2000, 900, None, 20]
    # one whose sex is not known has no curve of one sex
    assert Study(tmp_path).facts("sub-2", [""], ["deepbrain"])["norms"]["tasks"] == {}
    (tmp_path / "group_norms.tsv").write_text("name\tage\nStem\t1\n")  # damaged
    assert "norms" not in Study(tmp_path).facts("sub-1", sessions, ["deepbrain"])


def test_regions_have_their_percentiles_too(tmp_path: Path) -> None:
    write(tmp_path, 11)
    regions = tmp_path / "group_seg-deepbrain_desc-regions_morph.tsv"
    text = (tmp_path / "group_seg-deepbrain_morph.tsv").read_text()
    regions.write_text(text.replace("Stem", "All-of-it"))
    place = Study(tmp_path).standing("deepbrain", "sub-4", "")
    assert place["All-of-it"] == place["Stem"]

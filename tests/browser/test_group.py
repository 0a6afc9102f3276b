"""The page of a study in a real browser."""

from __future__ import annotations

import io
import itertools
import json
import statistics
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Locator, Page

from deepmrseg_bids.app.group import run_group
from deepmrseg_bids.bids.names import mosaic_path
from deepmrseg_bids.bids.ratings import Rating
from deepmrseg_bids.config import RunConfig
from deepmrseg_bids.reports.group.data import Matrix, Table, read_cohort
from deepmrseg_bids.reports.group.mosaic import COLUMNS, EDGE, Tile
from deepmrseg_bids.reports.group.page import write_group_report
from deepmrseg_bids.reports.guide import GROUP
from deepmrseg_bids.reports.subject.study import Study
from deepmrseg_bids.tsv import number_in, read_tsv
from tests.app.test_group import LABELS, add_session, blocks
from tests.browser.conftest import Watched, until
from tests.reports.made_up_study import write_study

pytestmark = pytest.mark.browser

EVIL = "<script>document.title='run'</script><img src=x onerror=document.title='run'>"
RED = (220, 30, 30)
CHANGES = ("change_percent", "change_low_percent", "change_high_percent")
QC = {
    3: {"outlier": "yes", "outlier_score": 7.5, "outlier_reasons": f"deepbrain: {EVIL}"},
    5: {"outlier": "yes", "outlier_score": 9.5, "outlier_reasons": "brain: volume of Brain: +9.5"},
    7: {"wml_status": "skipped", "reasons": f"wml: no FLAIR {EVIL}", "severity": "warning",
        "findings": "warning:thick-slices"},
}  # fmt: skip


def write_page(out: Path, sessions: int, **options: object) -> Path:
    """A study whose first session has a page, and a red tile first in the mosaic."""
    write_study(out, sessions, **options)  # type: ignore[arg-type]
    (out / "sub-0000.html").write_text("<title>sub-0000</title>")
    sheet = Image.new("RGB", (COLUMNS * EDGE, COLUMNS * EDGE))
    sheet.paste(RED, (0, 0, EDGE, EDGE))
    path = out / mosaic_path("deepbrain", 1)
    path.parent.mkdir(exist_ok=True)
    sheet.save(path)
    full = COLUMNS * COLUMNS
    tiles = [Tile(k, 1, k) for k in range(min(sessions, full) - 1)]
    tiles += [Tile(k, 1, 0, "no such file") for k in range(full - 1, sessions)]
    page = out / "group.html"
    write_group_report(
        page, read_cohort(out, ["deepbrain"]), command="x", mosaics={"deepbrain": tiles}
    )
    return page


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    names = ("Left-Caudate", "Right-Caudate", f"Left-{EVIL}", f"Right-{EVIL}")
    return write_page(
        tmp_path_factory.mktemp("study"), 30, structures=names, reference=f"manual {EVIL}", qc=QC
    )


def opened(watched: Watched, path: Path) -> Page:
    page = watched.open(path)
    page.wait_for_selector("body[data-ready=yes]")
    return page


def plots(page: Page, section: str, count: int = 1) -> None:
    """Scroll to a section and wait for its plots."""
    page.locator(f"#{section}").scroll_into_view_if_needed()
    page.locator(f"#{section} .plot canvas").nth(count - 1).wait_for()


def see_it_all(page: Page) -> None:
    for _ in range(12):
        page.mouse.wheel(0, 800)
        page.wait_for_timeout(60)


def is_red(place: Locator) -> bool:
    """Whether most of what is drawn there is red."""
    drawn = np.asarray(Image.open(io.BytesIO(place.screenshot())).convert("RGB")).reshape(-1, 3)
    red, green, _ = np.median(drawn, axis=0)
    return bool(red > 150 and green < 80)


def rows(page: Page, table: str) -> list[str]:
    return page.locator(f"#{table} tbody tr td:first-child").all_inner_texts()


def test_the_page_opens_from_disk_without_an_error_and_asks_for_its_pictures_alone(
    watched: Watched, report: Path
) -> None:
    page = opened(watched, report)
    see_it_all(page)
    page.locator(".tile .cut").first.scroll_into_view_if_needed()
    until(page, lambda: bool(watched.from_elsewhere))
    assert page.title() == "Group report · deepmrseg-bids"
    assert not watched.errors
    pictures = (report.parent / mosaic_path("deepbrain", 1)).as_uri()
    assert set(watched.from_elsewhere) == {pictures}


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(watched: Watched, report: Path, scheme: str) -> None:
    page = opened(watched, report)
    plots(page, "distributions")
    assert watched.violations(scheme=scheme) == []


def test_strings_of_the_tables_stay_strings(watched: Watched, report: Path) -> None:
    page = opened(watched, report)
    see_it_all(page)
    assert page.title() == "Group report · deepmrseg-bids"
    assert "document.title" in page.inner_text("#outliers-table")
    assert "<b>A</b>" in page.inner_text("#sessions-table")
    assert page.locator("main img:not(#guide img), main script, main b:text-is('A')").count() == 0
    page.locator("#d-panels .plot").nth(1).focus()
    page.keyboard.press("ArrowRight")
    assert "document.title" in page.locator("#d-panels .said").nth(1).inner_text()
    assert page.locator("#d-panels script, #d-panels img").count() == 0


def test_search_and_filters_leave_the_sessions_that_fit(watched: Watched, report: Path) -> None:
    page = opened(watched, report)
    shown = page.locator("#shown")
    assert shown.inner_text() == "30 of 30 sessions"
    page.fill("#search", "thick no flair")
    shown.filter(has_text="1 of 30 sessions").wait_for()
    assert rows(page, "sessions-table") == ["sub-0007"]
    page.click("#reset")
    page.select_option("#by-status", "skipped")
    assert rows(page, "sessions-table") == ["sub-0007"]
    page.select_option("#by-status", "")
    page.select_option("#by-people select[data-column=sex]", "M")
    assert shown.inner_text() == "15 of 30 sessions"
    page.check("#by-outlier")
    assert rows(page, "outliers-table") == ["sub-0005", "sub-0003"]
    page.select_option("#by-severity", "warning")
    assert shown.inner_text() == "0 of 30 sessions"
    assert "No session matches" in page.inner_text("#sessions-table")
    page.click("#reset")
    page.get_by_role("button", name="thick slices").click()
    assert shown.inner_text() == "1 of 30 sessions"


def test_tables_are_sorted_by_a_click_and_turned_by_pages(watched: Watched, report: Path) -> None:
    page = opened(watched, report)
    assert rows(page, "sessions-table")[0] == "sub-0029"  # the worst confidence
    page.locator("#sessions-table").get_by_role("button", name="Participant").click()
    assert rows(page, "sessions-table")[0] == "sub-0000"
    page.locator("#sessions-table").get_by_role("button", name="Next").click()
    assert rows(page, "sessions-table")[0] == "sub-0015"
    assert page.locator("#sessions-table th[aria-sort=ascending]").inner_text() == "Participant"


def test_tables_have_room_at_a_thousand_pixels_and_say_no_more_than_can_be_read(
    watched: Watched, tmp_path: Path
) -> None:
    reasons = "; ".join(f"wholebrain regions: volume of Left-Part-{k}: +9.{k}" for k in range(9))
    qc = {
        3: {"outlier": "yes", "outlier_score": 9.5, "outlier_reasons": reasons,
            "verdict": "problem",
            "verdict_reason": "All tasks failed: the file cannot be read, copy it again.",
            "deepbrain_status": "failed", "wml_status": "failed", "severity": "error",
            "confidence_worst_structure": "Left-Hippocampus-Posterior",
            "findings": "error:flat-regions,warning:thick-slices,warning:few-intensities"},
        4: {"findings": "warning:thick-slices,info:oblique", "verdict": "check"},
    }  # fmt: skip
    page = opened(watched, write_page(tmp_path, 12, qc=qc))
    page.set_viewport_size({"width": 1000, "height": 900})
    clipped = page.locator("#summary .scroll, #outliers .scroll, #sessions .scroll").evaluate_all(
        "all => all.filter((one) => one.scrollWidth > one.clientWidth)"
        ".map((one) => `${one.ariaLabel}: ${one.scrollWidth} of ${one.clientWidth}`)"
    )
    assert clipped == []
    assert "Left-Part-3: +9.3; and 5 more" in page.inner_text("#outliers-table")
    assert "2 failed" in page.locator("#sessions-table tbody tr").first.inner_text()
    assert page.locator("#guide h3").count() == len(GROUP)
    assert page.locator("#guide img").count() == sum(bool(part.picture) for part in GROUP) > 4


def test_figures_come_as_svg_and_points_and_tables_as_tsv(watched: Watched, report: Path) -> None:
    page = opened(watched, report)
    page.select_option("#by-people select[data-column=sex]", "M")
    plots(page, "distributions")
    for button, start in (("SVG", "<svg"), ("TSV", "participant_id\tsession_id\tname\tvolume_mm3")):
        with page.expect_download() as download:
            page.locator("#d-panels .panel").first.get_by_role("button", name=button).click()
        text = download.value.path().read_text(encoding="utf-8")
        assert text.startswith(start)
        assert download.value.suggested_filename == f"Caudate_Volume.{button.lower()}"
    assert text.count("\n") == 1 + 2 * 15
    with page.expect_download() as download:
        page.locator("#sessions-table .save").click()
    header, *lines = download.value.path().read_text(encoding="utf-8").splitlines()
    assert header.startswith("participant_id\tdeepbrain_status") and len(lines) == 15
    with page.expect_download() as download:
        page.locator("#agreement a.download").click()
    assert download.value.suggested_filename == "group_seg-deepbrain_agreement_summary.tsv"
    beside = page.locator("#tables a").evaluate_all("all => all.map((a) => a.getAttribute('href'))")
    assert beside and all((report.parent / name).is_file() for name in beside)


def test_a_click_on_a_point_opens_the_page_of_its_subject(watched: Watched, report: Path) -> None:
    page = opened(watched, report)
    page.fill("#search", "sub-0000")  # no other point lies on top of it
    page.locator("#shown").filter(has_text="1 of 30").wait_for()
    plots(page, "distributions")
    panel = page.locator("#d-panels .panel").first
    x, y = panel.evaluate(
        """(box) => {
          const { chart, made } = box.panel;
          const point = made.points.find((one) => one.k === 0);
          return chart.convertToPixel({ xAxisIndex: 1, yAxisIndex: 0 }, [point.x, point.y]);
        }"""
    )
    plot = panel.locator(".plot")
    plot.hover(position={"x": x, "y": y})
    page.get_by_text("Left Caudate: ").first.wait_for()
    plot.click(position={"x": x, "y": y})
    page.wait_for_url("**/sub-0000.html")


def test_keys_go_from_point_to_point_and_enter_opens_the_page(
    watched: Watched, report: Path
) -> None:
    page = opened(watched, report)
    page.fill("#search", "sub-0000")
    page.locator("#shown").filter(has_text="1 of 30").wait_for()
    plots(page, "distributions")
    page.locator("#d-panels .plot").first.focus()
    page.keyboard.press("ArrowRight")
    assert (
        page.locator("#d-panels .said").first.inner_text().startswith("sub-0000, Left Caudate: 1")
    )
    page.keyboard.press("Enter")
    page.wait_for_url("**/sub-0000.html")


def test_agreement_and_age_have_their_plots(watched: Watched, report: Path) -> None:
    page = opened(watched, report)
    plots(page, "age")
    assert "Age is the column age, sex the column sex" in page.inner_text("#age-note")
    curves = page.evaluate(
        """async () => {
          const { panel } = document.querySelector("#a-panels .panel");
          await panel.draw();
          return panel.made.option.series.filter((one) => one.type === "line").length;
        }"""
    )
    assert curves == 2  # F and M
    plots(page, "agreement")
    titles = page.locator("#g-panels h3").all_inner_texts()
    assert [title.split(":")[0] for title in titles[:2]] == ["Dice", "Left Caudate"]
    assert "Bland-Altman" in titles[2]
    assert "CCC 0.75" in page.inner_text("#g-note")
    page.select_option("#g-structure", "Right-Caudate")
    assert "Right Caudate, 30 sessions" in page.inner_text("#g-note")
    table = page.locator("#agreement table.static").first
    assert "Bias (mm³)" in table.locator("thead").inner_text()
    table.get_by_role("button", name="Structure").click()
    table.get_by_role("button", name="Structure").click()
    names = table.locator("tbody td:nth-child(2)").all_inner_texts()
    assert names == sorted(names, reverse=True) and len(names) == 4
    levels = page.locator("h1, h2, h3, h4").evaluate_all(
        "all => all.map((h) => Number(h.tagName[1]))"
    )
    assert all(b - a <= 1 for a, b in itertools.pairwise(levels))


def test_the_mosaic_shows_the_worst_first_and_says_what_has_no_picture(
    watched: Watched, report: Path
) -> None:
    page = opened(watched, report)
    tiles = page.locator(".tile")
    tiles.last.scroll_into_view_if_needed()
    assert tiles.first.inner_text().startswith("no such file\nsub-0029")
    red = tiles.last.locator(".cut")  # the first session has the best confidence
    red.scroll_into_view_if_needed()
    page.wait_for_function(
        "getComputedStyle([...document.querySelectorAll('.cut')].at(-1)).backgroundImage !== 'none'"
    )
    until(page, lambda: is_red(red))
    assert tiles.last.locator("a.open").get_attribute("href") == "sub-0000.html"


def test_on_paper_are_all_plots_tables_with_titles_and_mosaics_and_nothing_is_clipped(
    watched: Watched, report: Path
) -> None:
    page = opened(watched, report)
    page.emulate_media(media="print", color_scheme="dark")
    page.set_viewport_size({"width": 703, "height": 1000})  # A4 without its margins
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    panels = page.locator(".panel")
    drawn = panels.evaluate_all(
        "all => all.map((p) => p.querySelectorAll('.printed svg path').length)"
    )
    assert len(drawn) > 8 and min(drawn) > 20
    for place in (0, panels.count() - 1):
        pixels = np.asarray(Image.open(io.BytesIO(panels.nth(place).screenshot())).convert("RGB"))
        assert np.median(pixels) > 240  # the paper is white
        assert (np.ptp(pixels.astype(int), axis=2) > 60).sum() > 50  # points are coloured
    assert page.locator("#m-title").locator("visible=true").inner_text() == "Deep brain structures"
    assert len(rows(page, "sessions-table")) == 30
    assert page.locator("#sessions-table thead").inner_text().startswith("Participant")
    tile = page.locator(".tile .cut").last
    until(page, lambda: is_red(tile))
    too_wide = page.locator("main table, main svg, main p").evaluate_all(
        "all => all.filter((one) => one.getBoundingClientRect().right > innerWidth + 1)"
        ".map((one) => one.outerHTML.slice(0, 300))"
    )
    assert not too_wide
    assert not page.locator("#filters, #ratings-bar, .pager").locator("visible=true").count()
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert len(rows(page, "sessions-table")) == 15 and not watched.errors


def test_people_with_several_sessions_have_lines_over_time_and_changes_with_intervals(
    watched: Watched, tmp_path: Path
) -> None:
    write_study(tmp_path, 12)
    cohort = read_cohort(tmp_path, ["deepbrain"])
    (task,) = cohort.tasks
    values = tuple(float(k) if k % 2 else None for k in range(12))
    change = tuple(
        Matrix(key, "Change", "%", ("Left-Caudate",), (tuple(v and v + off for v in values),))
        for key, off in zip(CHANGES, (0, -2, 2), strict=True)
    )
    cohort = replace(
        cohort,
        keys=tuple((f"sub-{k // 2}", f"ses-{1 + k % 2}") for k in range(12)),
        tasks=(replace(task, change=change),),
        visits=(*(1 + k % 2 for k in range(10)), None, None),
        years=(*(1.5 * (k % 2) for k in range(10)), None, None),
    )
    write_group_report(tmp_path / "group.html", cohort, command="x")
    page = opened(watched, tmp_path / "group.html")
    note = page.inner_text("#time-note")
    for words in ("one of 5 participants", "over years", "1 participant without"):
        assert words in note
    made = """async () => {
      const { panel } = document.querySelector("#t-panels .panel");
      await panel.draw();
      return panel.made;
    }"""
    plot = page.evaluate(made)
    lines = [one for one in plot["option"]["series"] if one["type"] == "line"]
    (line,) = lines  # of five people, with gaps between them
    drawn = [list(of) for gap, of in itertools.groupby(line["data"], lambda one: one[0] is None)
             if not gap]  # fmt: skip
    assert len(drawn) == 5 and [x for x, _ in drawn[0]] == [0, 1.5]
    page.select_option("#t-measure", "change")
    plot = page.evaluate(made)
    assert plot["points"][0]["cells"][1:] == [1, -1, 3]
    assert not watched.errors


def test_ten_sessions_are_rated_by_keys_exported_imported_and_excluded_by_the_group_level(
    watched: Watched, tmp_path: Path
) -> None:
    study = tmp_path / "study"
    for number in range(11):
        add_session(
            study, f"sub-{number:04}", "deepbrain", LABELS, blocks(LABELS.indices, number % 2)
        )
    shown = {number: {"participant_id": f"sub-{number:04}"} for number in range(11)}
    page = opened(watched, write_page(tmp_path / "page", 11, qc=shown))
    page.fill("#rater", "AB")
    page.locator(".tile").first.focus()
    for key in "1112111113":
        page.keyboard.press(key)
    page.keyboard.press("c")
    page.keyboard.type("motion")
    page.keyboard.press("Enter")
    assert page.inner_text("#rated") == "10 rated"
    assert page.locator("#ratings-rows td").all_inner_texts()[:4] == ["8", "1", "1", "1"]
    page.select_option("#by-rating", "fail")
    assert page.inner_text("#shown") == "1 of 11 sessions"
    page.select_option("#by-rating", "")
    files = {}
    page.on("download", lambda one: files.update({one.suggested_filename: one.path()}))
    page.click("#export")
    until(page, lambda: len(files) == 2)
    assert json.loads(files["ratings.json"].read_text())["rating"]["Levels"].keys() == {
        "pass", "doubtful", "fail",
    }  # fmt: skip
    table = tmp_path / "ratings.tsv"
    table.write_text(files["ratings.tsv"].read_text(encoding="utf-8"), encoding="utf-8")
    assert "sub-0000\tn/a\tdeepbrain\tfail\tmotion\tAB\t20" in table.read_text(encoding="utf-8")
    page.evaluate("localStorage.clear()")
    page.reload()
    page.wait_for_selector("body[data-ready=yes]")
    assert page.inner_text("#rated") == "0 rated"
    page.fill("#rater", "AB")
    page.set_input_files("#import", table)
    page.locator("#imported").filter(has_text="10 rows read").wait_for()
    assert page.locator(".tile [aria-pressed=true]").count() == 10
    saved = tmp_path / "saved by a spreadsheet.tsv"
    quoted = table.read_text(encoding="utf-8").replace("motion", '"motion; twice ""bad"""')
    later = quoted.replace("\t20", "\t21").replace("\t", ";").replace("\n", "\r\n")
    for encoding in ("utf-8-sig", "utf-16"):
        saved.write_bytes(later.encode(encoding))
        page.set_input_files("#import", saved)
        page.locator("#imported").filter(has_text="spreadsheet.tsv: 10 rows read").wait_for()
        comments = page.locator(".tile .comment").evaluate_all("all => all.map((c) => c.value)")
        assert 'motion; twice "bad"' in comments
        later = later.replace(";21", ";22")
    assert not watched.errors
    raw = tmp_path / "raw"
    raw.mkdir()
    config = RunConfig(raw, study, "group", ratings=(table,), nprocs=1, reports=False)
    assert run_group(config) == 0
    rows = read_tsv(study / "group_seg-deepbrain_morph.tsv").rows
    assert [row["participant_id"] for row in rows if row["excluded"] == "yes"] == ["sub-0000"]


def test_the_ratings_of_the_study_are_shown_until_a_rater_is_named(
    watched: Watched, tmp_path: Path
) -> None:
    write_study(tmp_path, 3)
    given = [("sub-0000", "A", "pass"), ("sub-0000", "B", "fail"), ("sub-0001", "A", "pass"),
             ("sub-0002", "B", "doubtful")]  # fmt: skip
    ratings = tuple(Rating((who, ""), "deepbrain", word, rater=by) for who, by, word in given)
    agreement = Table("group_ratings_agreement.tsv", ("task", "rater_1"), (("deepbrain", "A"),))
    cohort = replace(read_cohort(tmp_path, ["deepbrain"]), ratings=ratings, raters=agreement)
    path = tmp_path / "group.html"
    tiles = {"deepbrain": [Tile(k, 1, 0, "no such file") for k in range(3)]}
    write_group_report(path, cohort, command="x", mosaics=tiles)
    page = opened(watched, path)
    counts = page.locator("#ratings-rows td")
    words = page.locator("#sessions-table td .rated")
    assert counts.all_inner_texts()[:4] == ["1", "1", "1", "0"]
    assert sorted(words.all_inner_texts()) == ["doubtful", "fail", "pass"]
    assert "--ratings" in page.inner_text("#ratings-caption")
    assert page.locator(".tile [aria-pressed=true]").count() == 0  # whoever rates sees none
    assert "Deep brain structures" in page.locator("#ratings table.static td").first.inner_text()
    page.select_option("#by-rating", "fail")
    assert page.inner_text("#shown") == "1 of 3 sessions"
    page.select_option("#by-rating", "")
    page.fill("#rater", "A")
    assert page.inner_text("#rated") == "2 rated, 2 by other raters"
    assert counts.all_inner_texts()[:4] == ["2", "0", "0", "1"]
    page.fill("#rater", "")
    page.locator(".tile").first.focus()
    page.keyboard.press("1")
    assert "enter your name as rater" in page.inner_text("#rated")
    assert not watched.errors


def test_the_sessions_are_in_the_order_of_the_links_between_subject_reports(
    watched: Watched, tmp_path: Path
) -> None:
    qc = {
        0: {"verdict": "check", "outlier_score": 3.6, "confidence_worst": 0.9},
        1: {"verdict": "check", "outlier_score": 9.1, "confidence_worst": 0.95},
        2: {"verdict": "ok", "outlier_score": 0.52, "confidence_worst": 0.9},
        3: {"verdict": "problem", "outlier_score": None, "confidence_worst": None},
        4: {"verdict": "ok", "outlier_score": 0.52, "confidence_worst": 0.8},
        5: {"verdict": "ok", "outlier_score": 0.53, "confidence_worst": 0.99},
        6: {"verdict": "problem", "outlier_score": 100.0, "confidence_worst": 0.02},
    }  # fmt: skip
    path = write_page(tmp_path, 7, qc=qc)
    for number in range(7):
        (tmp_path / f"sub-{number:04}.html").touch()
    page = opened(watched, path)
    shown = rows(page, "sessions-table")
    assert shown[:2] == ["sub-0003", "sub-0006"]  # what failed is on top
    assert [f"{name}.html" for name in shown] == Study(tmp_path).order


def test_ages_with_a_decimal_comma_are_those_of_the_tables(
    watched: Watched, tmp_path: Path
) -> None:
    write_study(tmp_path, 12)
    cohort = read_cohort(tmp_path, ["deepbrain"])
    cells = ("9,5", "89+", "1,234", *(f"{60 + k},5" for k in range(9)))
    assert [number_in(cell) for cell in cells[:4]] == [9.5, None, None, 60.5]
    cohort = replace(cohort, people={**cohort.people, "age": cells})
    write_group_report(tmp_path / "group.html", cohort, command="x")
    page = opened(watched, tmp_path / "group.html")
    assert page.evaluate("ages.years") == [number_in(cell) for cell in cells]
    assert "2 of 12 sessions have no numeric age" in page.inner_text("#age-note")
    assert not watched.errors


def test_three_hundred_sessions_are_rated_without_waiting_for_the_page(
    watched: Watched, tmp_path: Path
) -> None:
    page = opened(watched, write_page(tmp_path, 300))
    page.fill("#rater", "AB")
    page.locator(".tile").first.focus()
    # processor time of the page's thread, which other programs do not lengthen
    watch = page.context.new_cdp_session(page)
    watch.send("Performance.enable", {"timeDomain": "threadTicks"})
    drawn = "() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"
    ends = []
    for number in range(300):
        page.keyboard.press("123"[number % 3])
        if number % 10 == 0:
            page.evaluate(drawn)
            metrics = watch.send("Performance.getMetrics")["metrics"]
            ends += [one["value"] for one in metrics if one["name"] == "TaskDuration"]
    taken = [(b - a) / 10 for a, b in itertools.pairwise(ends)]
    assert page.inner_text("#rated") == "300 rated"
    assert page.locator(".tile [aria-pressed=true]").count() == 300
    assert len(taken) == 29 and statistics.median(taken) < 0.1
    table = tmp_path / "ratings.tsv"
    with page.expect_download(lambda one: one.suggested_filename == table.name) as download:
        page.click("#export")
    download.value.save_as(table)
    assert len(read_tsv(table).rows) == 300
    page.evaluate("localStorage.clear()")
    page.reload()
    page.wait_for_selector("body[data-ready=yes]")
    page.set_input_files("#import", table)
    page.locator("#imported").filter(has_text="300 rows read").wait_for()
    assert not watched.errors


def test_one_session_without_confidence_people_or_reference_has_a_page(
    watched: Watched, tmp_path: Path
) -> None:
    page = opened(
        watched, write_page(tmp_path, 1, people=False, confidence=False)
    )  # fmt: skip
    see_it_all(page)
    text = page.inner_text("main")
    for words in ("one session", "No participants.tsv", "No confidence", "No column with ages"):
        assert words in text
    assert "No outliers among" in text
    assert not watched.errors


def test_two_thousand_sessions_stay_small_and_searchable(watched: Watched, tmp_path: Path) -> None:
    names = [f"{side}-Structure{k}" for k in range(11) for side in ("Left", "Right")]
    path = write_page(tmp_path, 2000, structures=names)
    assert path.stat().st_size < 25e6
    page = opened(watched, path)
    plots(page, "distributions")
    assert page.locator("body *").count() < 2500  # rows and tiles are made when they are shown
    page.fill("#search", "sub-199")
    page.locator("#shown").filter(has_text="10 of 2000 sessions").wait_for()
    assert len(rows(page, "sessions-table")) == 10
    assert page.locator("#d-panels .panel").count() == 11
    page.fill("#d-find", "right structure10")
    assert page.locator("#d-panels h3").all_inner_texts() == ["Structure10: Volume"]
    page.fill("#d-find", "nothing")
    assert page.inner_text("#d-panels") == "No structure has these words."
    page.fill("#d-find", "")
    assert page.locator("#d-panels .panel").count() == 11
    page.fill("#a-find", "left structure1")
    assert page.locator("#a-panels .panel").count() == 2
    assert not watched.errors

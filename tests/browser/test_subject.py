"""The page of a subject in a real browser."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Page

from deepmrseg_bids.bids.tables import MorphRow
from deepmrseg_bids.imaging.grid import Grid
from deepmrseg_bids.imaging.labels import Label, LabelTable
from deepmrseg_bids.imaging.nifti import LabelMap, write_labels
from deepmrseg_bids.reports.guide import SUBJECT
from deepmrseg_bids.reports.subject.page import SessionResult, TaskResult, write_subject_report
from deepmrseg_bids.reports.subject.study import refresh
from deepmrseg_bids.tasks.registry import find_task
from tests.browser.conftest import Watched, until

pytestmark = pytest.mark.browser

EVIL = "Right-<script>document.title='run'</script>"
TABLE = LabelTable((Label(1, "Left-Thing", "", "#ff0000"), Label(2, EVIL, "", "#0000ff")))

GREEN = LabelTable((Label(1, "Lesion", "", "#00ff00"),))


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of a small scan with a label on the left (red) and one on the right (blue).

    A second, larger scan has one label (green) in its middle.
    """
    folder = tmp_path_factory.mktemp("report")
    grid = Grid((30, 32, 28), np.diag([-3.0, 3.0, 3.0, 1.0]))
    scan, dseg = folder / "sub-01_T1w.nii.gz", folder / "sub-01_dseg.nii.gz"
    grey = np.indices(grid.shape).sum(axis=0).astype(np.uint8) + 100
    write_labels(scan, LabelMap(grey, grid))
    labels = np.zeros(grid.shape, np.uint8)
    labels[18:26, 10:20, 10:20] = 1
    labels[4:12, 10:20, 10:20] = 2
    write_labels(dseg, LabelMap(labels, grid))
    rows = [MorphRow(k.index, k.name, 4000.0, 3900.0, 4100.0, 0.2, 0.9) for k in TABLE]
    done = TaskResult(find_task("deepbrain"), "done", "", scan, dseg, TABLE, rows, 1.0)
    failed = TaskResult(find_task("wml"), "failed", f"no FLAIR {EVIL}", None, None, None, ())
    flair, marked = folder / "sub-01_FLAIR.nii.gz", folder / "sub-01_space-FLAIR_dseg.nii.gz"
    wide = Grid((44, 40, 12), np.diag([3.0, 3.0, 9.0, 1.0]))
    write_labels(flair, LabelMap(np.indices(wide.shape)[1].astype(np.uint8) + 100, wide))
    lesion = np.zeros(wide.shape, np.uint8)
    lesion[15:30, 15:25, 4:8] = 1
    write_labels(marked, LabelMap(lesion, wide))
    rows = [MorphRow(1, "Lesion", 4000.0, 3900.0, 4100.0, 0.2, 0.9)]
    lesions = replace(find_task("wml"), name="lesions", title="lesions")
    other = TaskResult(lesions, "done", "", flair, marked, GREEN, rows, 1.0)
    path = folder / "sub-01.html"
    session = SessionResult("01", None, (done, failed, other))
    write_subject_report(path, [session], version="1", command="x", models={})
    return path


def shot(page: Page, selector: str) -> np.ndarray:
    data = page.locator(selector).first.screenshot()
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)


def settled(page: Page, selector: str) -> np.ndarray:
    """What is drawn there, once it is the same in two shots one after the other."""
    last = [shot(page, selector)]

    def same() -> bool:
        last.append(shot(page, selector))
        return np.array_equal(last[-1], last[-2])

    page.wait_for_timeout(100)
    until(page, same)
    return last[-1]


def coloured(pixels: np.ndarray) -> int:
    """How many pixels are no grey."""
    return int((np.ptp(pixels, axis=2) > 60).sum())


def test_the_page_opens_from_disk_without_an_error_or_a_request(
    watched: Watched, report: Path
) -> None:
    page = watched.open(report)
    assert page.title() == "sub-01 · deepmrseg-bids"
    assert "document.title" in page.inner_text("main")
    assert not watched.errors and not watched.from_elsewhere


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(watched: Watched, report: Path, scheme: str) -> None:
    watched.open(report)
    assert watched.violations(scheme=scheme) == []


def test_every_link_within_the_page_leads_somewhere(watched: Watched, report: Path) -> None:
    page = watched.open(report)
    links = page.locator("a[href^='#']").evaluate_all("all => all.map(a => a.hash.slice(1))")
    ids = page.locator("[id]").evaluate_all("all => all.map(one => one.id)")
    assert links and set(links) <= set(ids)


def test_slices_are_large_and_their_contours_can_be_filled_faded_and_hidden(
    watched: Watched, report: Path
) -> None:
    page = watched.open(report)
    figure = page.locator(".slices").first
    width = figure.locator(".slice:visible").first.bounding_box()["width"]  # type: ignore[index]
    assert width > 380  # of 1280: a border can be seen
    before = shot(page, ".slices .plane")
    assert coloured(before) > 100
    figure.locator(".fill").check()
    assert coloured(shot(page, ".slices .plane")) > 3 * coloured(before)
    figure.locator(".lines").uncheck()
    figure.locator(".fill").uncheck()
    assert coloured(shot(page, ".slices .plane")) == 0
    figure.locator(".lines").check()
    page.locator(".fade input").first.fill("0")
    after = shot(page, ".slices .plane")
    assert coloured(after) == 0 and after.max() > 100
    page.locator(".fade input").first.fill("100")
    shown = figure.locator(".slice:visible").count()
    figure.locator(".all").check()
    assert figure.locator(".slice:visible").count() > 2 * shown
    figure.locator(".slice:visible g path[data-index='1']").first.hover()
    assert figure.locator(".pointed").inner_text() == "Left Thing"
    assert not watched.errors


def test_a_row_opens_the_viewer_goes_to_its_structure_and_the_overlay_fades(
    watched: Watched, report: Path
) -> None:
    page = watched.open(report)
    page.locator("tr[data-index='1'] button").first.click()
    page.locator(".where").filter(has_text="Left Thing").wait_for(timeout=60_000)
    drawn = settled(page, ".stage canvas")
    assert drawn.max() > 60 and coloured(drawn) > 100
    page.locator("tr[data-index='2'] button").click()
    page.locator(".where").filter(has_text="Right <script>").wait_for()
    areas = coloured(settled(page, ".stage canvas"))
    assert areas > 100
    page.locator(".viewer .outline").check()
    until(page, lambda: 0.1 * areas < coloured(shot(page, ".stage canvas")) < 0.8 * areas)
    page.locator(".viewer .opacity").fill("0")
    until(page, lambda: coloured(shot(page, ".stage canvas")) < coloured(drawn) / 4)
    bare = shot(page, ".stage canvas").mean()
    page.locator(".viewer .level").fill("80")
    until(page, lambda: shot(page, ".stage canvas").mean() > bare + 5)
    page.locator(".viewer select").select_option(label="lesions")
    page.locator(".where").filter(has_not_text="Right <script>").wait_for()
    page.locator(".viewer .whole").click()
    page.wait_for_function("document.fullscreenElement?.classList.contains('stage')")
    assert not watched.errors and not watched.from_elsewhere


def test_a_label_map_is_shown_on_its_own_scan_and_back(watched: Watched, report: Path) -> None:
    page = watched.open(report)

    def is_drawn(lesions: bool) -> bool:
        drawn = shot(page, ".stage canvas")
        greens = int((drawn[..., 1] - drawn[..., [0, 2]].max(axis=2) > 40).sum())
        right = greens > 100 if lesions else greens == 0
        return right and drawn.max() > 60 and coloured(drawn) > 100

    for name in ("Left Thing", "Lesion", "Right <script>"):
        page.locator("button.go", has_text=name).click()
        page.locator(".where").filter(has_text=name).wait_for(timeout=60_000)
        until(page, partial(is_drawn, name == "Lesion"))
    assert not watched.errors and not watched.from_elsewhere


def test_without_webgl_the_page_says_so_and_keeps_its_pictures(
    watched: Watched, report: Path
) -> None:
    watched.page.add_init_script("HTMLCanvasElement.prototype.getContext = () => null")
    page = watched.open(report)
    page.locator(".viewer .open").click()
    assert "WebGL 2" in page.locator(".viewer .problem").inner_text()
    assert page.locator(".slice img:visible").count() > 0


def test_a_script_that_is_not_of_the_page_does_not_run(watched: Watched, report: Path) -> None:
    text = report.read_text(encoding="utf-8")
    spoiled = report.with_name("spoiled.html")
    spoiled.write_text(text.replace("</main>", "<script>document.title = 'run'</script></main>"))
    page = watched.open(spoiled)
    assert page.title() == "sub-01 · deepmrseg-bids"
    assert any("Content Security Policy" in error for error in watched.errors)


def test_a_page_shows_what_the_group_level_says_and_leads_on_with_arrow_keys(
    watched: Watched, report: Path
) -> None:
    facts = {
        "group": "group.html",
        "order": ["sub-09.html", "sub-01.html", "sub-02.html"],
        "sessions": {"": {"verdict": "problem", "verdict_reason": "x", "outlier_reasons": EVIL,
                          "standing": {"deepbrain": {"Left-Thing": [84, 20, 4.25]}}}},
    }  # fmt: skip
    page_of_study = report.with_name("sub-01.html").rename(report.parent / "kept.html")
    try:
        path = report.parent / "sub-01.html"
        path.write_bytes(page_of_study.read_bytes())
        assert refresh(path, facts)
        for name in ("sub-02", "sub-09", "group"):
            (report.parent / f"{name}.html").write_text(f"<title>{name}</title>")
        page = watched.open(path)
        assert page.locator(".verdict.problem").inner_text().startswith("PROBLEM")
        assert "Outlier in the cohort: Right-<script>" in page.inner_text(".verdict")
        row = page.locator("tr[data-name='Left-Thing'] .standing")
        assert row.is_visible() and row.inner_text() == "84 (z\u00a0+4.3)"
        assert "among 20 sessions" in page.inner_text("table[data-task=deepbrain] caption")
        assert page.locator("#pages a").all_inner_texts() == [
            "Group report", "\u2190 Previous: sub-09", "Next: sub-02 \u2192",
        ]  # fmt: skip
        assert not watched.errors
        page.keyboard.press("ArrowRight")
        page.wait_for_url("**/sub-02.html")
        key = "deepmrseg-bids order file:" + path.parent.as_posix() + "/"
        page.evaluate(
            "([k, v]) => localStorage.setItem(k, v)", [key, '["sub-01.html", "sub-09.html"]']
        )
        page = watched.open(path)
        page.keyboard.press("ArrowRight")
        page.wait_for_url("**/sub-09.html")
    finally:
        page_of_study.rename(report)


def test_reference_centiles_are_bands_behind_the_points_of_the_person(
    watched: Watched, report: Path, tmp_path: Path
) -> None:
    ages, low = [20, 50, 90], [3000, 3500, 3000]
    panel = {"name": "Left-Thing", "ages": ages, "volumes": [low, [4000, 4200, 3900], [5000] * 3]}
    points = [["ses-1", 40, 4000, 3900, 4100, 48.2], ["ses-2", 95, 5500, None, None, None],
              ["ses-3", None, 1, None, None, None]]  # fmt: skip
    odd = {**panel, "name": EVIL, "points": [["ses-1", 20.5, 9000, 8000, 9900, 95]]}
    facts = {
        "group": "group.html", "order": [],
        "sessions": {"": {"standing": {"deepbrain": {"Left-Thing": [84, 20, 4.25, 0.5, 48.2]}}}},
        "norms": {"centiles": [5, 50, 95],
                  "tasks": {"deepbrain": [{**panel, "points": points}, odd]}},
    }  # fmt: skip
    path = tmp_path / report.name
    path.write_bytes(report.read_bytes())
    assert not watched.open(path).locator("#norms").is_visible()
    assert refresh(path, facts)
    page = watched.open(path)
    standing = page.inner_text("tr[data-name='Left-Thing'] .standing")
    assert standing == "84 (z\u00a0+4.3; adj.\u00a0+0.5; ref.\u00a048)"
    first, second = page.locator("#norms figure").all()
    for words in ("ses-1: 4,000 mm³ at age 40, centile 48", "outside the ages", "age not known"):
        assert words in first.inner_text()
    assert "at or above centile 95" in second.inner_text() and "<script>" in second.inner_text()
    band, dots = first.locator(".band").bounding_box(), first.locator("circle")
    assert band and dots.count() == 2 and first.locator("path.centile").count() == 3
    inside, outside = (dots.nth(k).bounding_box() for k in (0, 1))
    assert inside and outside
    assert band["x"] < inside["x"] < band["x"] + band["width"] < outside["x"]
    assert band["y"] < inside["y"] < band["y"] + band["height"]
    assert outside["y"] < band["y"]
    assert coloured(shot(page, "#norms .norm")) > 100
    page.emulate_media(media="print")
    assert first.locator("circle").first.is_visible()
    assert watched.violations(scheme="dark") == [] and not watched.errors


def test_a_page_prints_on_two_to_four_sheets_without_its_controls(
    watched: Watched, report: Path, tmp_path: Path
) -> None:
    page = watched.open(report)
    data = page.pdf(format="A4", prefer_css_page_size=True)
    assert 2 <= len(re.findall(rb"/Type\s*/Page\b", data)) <= 4
    page.emulate_media(media="print")
    for controls in ("#ratings-bar", ".look", ".rating", ".viewer", "nav"):
        assert not page.locator(controls).first.is_visible()
    assert coloured(shot(page, ".slices")) > 100


def test_a_page_says_which_results_were_rated_fail(
    watched: Watched, report: Path, tmp_path: Path
) -> None:
    path = tmp_path / report.name
    path.write_bytes(report.read_bytes())
    reasons = "; ".join(f"volume of Part-{k}: +9.{k}" for k in range(7))
    facts = {
        "group": "group.html", "order": [],
        "sessions": {"": {"verdict": "problem", "verdict_reason": "x", "standing": {},
                          "excluded": "deepbrain,lesions", "outlier_reasons": reasons}},
    }  # fmt: skip
    assert refresh(path, facts)
    page = watched.open(path)
    why = page.inner_text(".verdict .why")
    assert "Rated fail: Deep brain structures, lesions." in why
    assert "Part-3: +9.3; and 3 more." in why and "Part-4" not in why
    assert not watched.errors


def test_the_guide_has_a_picture_of_three_kinds_for_each_section_with_pictures(
    watched: Watched, report: Path
) -> None:
    page = watched.open(report)
    page.locator("#guide summary").click()
    shown = page.locator("#guide img")
    assert shown.count() == sum(bool(part.picture) for part in SUBJECT) > 4
    for number in range(shown.count()):
        shown.nth(number).scroll_into_view_if_needed()
        page.wait_for_function("(one) => one.complete", arg=shown.nth(number).element_handle())
        assert shown.nth(number).evaluate("(one) => one.naturalWidth") > 1000
    assert page.locator("#guide dt").all_inner_texts()[:3] == ["Good", "Borderline", "Bad"]
    assert watched.violations(scheme="dark") == [] and not watched.errors


def test_more_structures_than_can_be_read_are_not_printed_where_regions_are(
    watched: Watched, tmp_path: Path
) -> None:
    rows = [MorphRow(k, f"Left-Part-{k}", 1000.0, 900.0, 1100.0, 0.2, 0.9) for k in range(1, 140)]
    done = TaskResult(find_task("deepbrain"), "done", "", None, None, TABLE, rows)
    task = replace(done, regions=rows[:43], tsv=("sub-01_morph.tsv", "x"))
    path = tmp_path / "sub-01.html"
    sessions = [SessionResult("01", f"ses-{k}", (task,)) for k in (1, 2)]
    write_subject_report(path, sessions, version="1", command="x", models={})
    page = watched.open(path)
    assert page.locator("#change .many tbody tr").count() == 139
    assert (
        len(re.findall(rb"/Type\s*/Page\b", page.pdf(format="A4", prefer_css_page_size=True))) <= 4
    )
    page.emulate_media(media="print")
    page.set_viewport_size({"width": 725, "height": 1000})  # A4 without its margins
    assert page.locator(".many").locator("visible=true").count() == 0
    assert page.get_by_text("All 139 structures: sub-01_morph.tsv").first.is_visible()
    regions = page.locator(".regions table")
    assert regions.count() == 3 and regions.first.is_visible()
    wide = regions.evaluate_all(
        "all => all.map((t) => [t.scrollWidth, (t.parentElement.clientWidth - 15) / 2])"
    )
    assert all(own <= room + 1 for own, room in wide), wide
    assert not watched.errors


def test_structures_of_a_long_table_are_searched(watched: Watched, tmp_path: Path) -> None:
    rows = [MorphRow(k, f"Left-Part-{k}", 1000.0, None, None, None, 0.9) for k in range(1, 45)]
    task = TaskResult(find_task("deepbrain"), "done", "", None, None, TABLE, rows, regions=rows[:2])
    path = tmp_path / "sub-01.html"
    write_subject_report(path, [SessionResult("01", None, (task,))], version="1", command="x",
                         models={})  # fmt: skip
    page = watched.open(path)
    assert page.locator("[data-kind=regions] tbody tr:visible").count() == 2
    assert not page.locator(".many table").is_visible()
    page.locator(".many summary").click()
    assert page.locator(".many tbody tr:visible").count() == 44
    page.fill(".find-rows", "part 17")
    assert page.locator(".many tbody tr:visible").all_inner_texts()[0].startswith("Left Part 17")
    assert page.locator(".many tbody tr:visible").count() == 1
    assert not watched.errors

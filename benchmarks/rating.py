"""How fast results are rated with the keyboard, in a real browser.

``python benchmarks/rating.py [--sessions 300]`` makes up a study and its mosaic, opens the group
report in the installed Chromium, presses a key for each session, some with a comment, exports the
ratings and imports them again. It says how long the page takes to answer a key: until the rating
is kept, the next tile has the focus, and the screen is drawn. The time to look is not in it.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
import time
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

from deepmrseg_bids.bids import names, tables
from deepmrseg_bids.group.columns import QC, STRUCTURES
from deepmrseg_bids.reports.group.data import read_cohort
from deepmrseg_bids.reports.group.mosaic import COLUMNS, EDGE, Tile
from deepmrseg_bids.reports.group.page import write_group_report

_DRAWN = "() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"


def made_up(out: Path, sessions: int) -> Path:
    """A group report of so many sessions, with a mosaic of grey tiles."""
    import pandas as pd

    who = [f"sub-{number:04}" for number in range(sessions)]
    structures = [("Left-Caudate", 37), ("Right-Caudate", 36)]
    rows = [{"participant_id": one, "index": index, "name": name, "volume_mm3": 3500.0 + index,
             "confidence": 0.95 - number / 10000}
            for number, one in enumerate(who) for name, index in structures]  # fmt: skip
    tables.write_table(out / names.group_path("deepbrain", "structures"), STRUCTURES,
                       pd.DataFrame(rows))  # fmt: skip
    morph = pd.DataFrame({"participant_id": who, "session_id": None, "Left-Caudate": 3500.0})
    tables.write_table(out / names.group_path("deepbrain"), dict.fromkeys(morph.columns), morph)
    status = {"participant_id": who, "deepbrain_status": "done", "verdict": "ok"}
    tables.write_table(out / names.group_qc_path(), QC, pd.DataFrame(status))
    full = COLUMNS * COLUMNS
    for sheet in range(-(-sessions // full)):
        path = out / names.mosaic_path("deepbrain", sheet)
        path.parent.mkdir(exist_ok=True)
        Image.effect_noise((COLUMNS * EDGE, COLUMNS * EDGE), 60).save(path)
    tiles = [Tile(number, number // full, number % full) for number in range(sessions)]
    page = out / names.group_report_path()
    write_group_report(page, read_cohort(out, ["deepbrain"]), command="benchmark",
                       mosaics={"deepbrain": tiles})  # fmt: skip
    return page


def rate(page: Page, sessions: int) -> list[float]:
    """Rate all sessions, each tenth with a comment; seconds from each key to the drawn answer."""
    page.fill("#rater", "AB")
    page.locator(".tile").first.focus()
    taken = []
    for number in range(sessions):
        comment = number % 10 == 9
        if comment:
            page.keyboard.press("c")
            page.keyboard.type("motion")
            page.keyboard.press("Enter")
        began = time.perf_counter()
        page.keyboard.press("3" if comment else "12"[number % 7 == 6])
        page.evaluate(_DRAWN)
        taken.append(time.perf_counter() - began)
    assert page.inner_text("#rated") == f"{sessions} rated"
    return taken


def exported(page: Page, folder: Path) -> tuple[Path, float]:
    """The table of ratings as a download, and how long it took."""
    found = []
    page.on("download", lambda one: found.append(one))
    began = time.perf_counter()
    page.click("#export")
    while not any(one.suggested_filename == "ratings.tsv" for one in found):
        page.wait_for_timeout(5)
    seconds = time.perf_counter() - began
    path = folder / "ratings.tsv"
    next(one for one in found if one.suggested_filename == "ratings.tsv").save_as(path)
    return path, seconds


def imported(page: Page, path: Path, sessions: int) -> float:
    """How long a page without ratings takes to read the table."""
    page.evaluate("localStorage.clear()")
    page.reload()
    page.wait_for_selector("body[data-ready=yes]")
    page.fill("#rater", "AB")
    began = time.perf_counter()
    page.set_input_files("#import", path)
    page.locator("#imported").filter(has_text=f"{sessions} rows read").wait_for()
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sessions", type=int, default=300)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, sync_playwright() as playwright:
        path = made_up(Path(name), args.sessions)
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        page = browser.new_context(viewport={"width": 1400, "height": 900}).new_page()
        page.goto(path.as_uri())
        page.wait_for_selector("body[data-ready=yes]")
        began, used = time.perf_counter(), time.process_time()
        taken = sorted(rate(page, args.sessions))
        whole = time.perf_counter() - began
        table, export = exported(page, Path(name))
        read = imported(page, table, args.sessions)
        print(
            f"{args.sessions} sessions rated in {whole:.1f} s ({time.process_time() - used:.1f} s "
            f"of this script); a key: median {1000 * statistics.median(taken):.0f} ms, 95 % "
            f"{1000 * taken[int(0.95 * len(taken))]:.0f} ms, worst {1000 * taken[-1]:.0f} ms; "
            f"export {1000 * export:.0f} ms, import {1000 * read:.0f} ms"
        )
        browser.close()


if __name__ == "__main__":
    main()

"""Draw the pictures of docs/reading_reports.md: registration, lesions, the group report.

``python benchmarks/guide_pictures.py OUT`` writes ``report_registration.png``,
``report_lesions.png`` and ``report_group.png``. Nothing in them is a scan of a person: the FLAIR is
made of the average of 152 heads (MNI152, from nilearn), the lesions and their contours are drawn,
and the studies are random numbers. So they show what to look for, not what the models do.
"""

from __future__ import annotations

import argparse
import io
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
from nilearn.datasets import load_mni152_brain_mask, load_mni152_gm_template, load_mni152_template
from PIL import Image, ImageDraw, ImageFont
from playwright.sync_api import sync_playwright
from scipy import ndimage

from deepmrseg_bids.bids import names, tables
from deepmrseg_bids.group.columns import QC, STRUCTURES
from deepmrseg_bids.imaging.grid import Grid, resample
from deepmrseg_bids.imaging.labels import Label, LabelTable
from deepmrseg_bids.imaging.nifti import LabelMap, Volume
from deepmrseg_bids.reports.figures import contour_figure
from deepmrseg_bids.reports.group.data import read_cohort
from deepmrseg_bids.reports.group.page import write_group_report
from deepmrseg_bids.reports.subject.alignment import alignment_figure
from deepmrseg_bids.tasks.registry import find_task

KINDS = ("Good", "Borderline", "Bad")
WIDTH = 1500
TABLE = LabelTable((Label(1, "Lesion", "", "#ffb000"),))
# centres and radii in mm, and how bright: three in white matter, caps at the horns, one confluent
LESIONS = ((-26, -18, 30, 5.0), (28, 4, 28, 4.0), (24, -38, 26, 6.0), (-24, 14, 26, 4.0))
CAPS = ((-17, 32, 8, 3.5), (18, 32, 8, 3.5))
WRONG = ((-46, -4, 40, 6.0), (44, 22, 30, 5.0))  # cortex


def head() -> tuple[Volume, Volume]:
    """T1w and a FLAIR of one head: white matter grey, cortex brighter, fluid dark."""
    scan = load_mni152_template(resolution=1)
    grid = Grid(scan.shape, np.asarray(scan.affine, dtype=np.float64))
    t1w = np.asarray(scan.dataobj, dtype=np.float32)
    brain = np.asarray(load_mni152_brain_mask(resolution=1).dataobj) > 0
    grey = np.asarray(load_mni152_gm_template(resolution=1).dataobj, dtype=np.float32)
    grey = np.clip(grey / grey.max(), 0, 1)
    bright = np.clip((t1w - 0.35 * t1w.max()) / (0.35 * t1w.max()), 0, 1)  # no fluid
    flair = np.where(brain, bright * (0.5 + 0.25 * grey) + 0.06, 0.5 * t1w / t1w.max())
    noise = np.random.default_rng(1).normal(0, 0.02, grid.shape)
    return Volume(t1w, grid), Volume((flair + noise).astype(np.float32), grid)


def blobs(grid: Grid, places: tuple[tuple[float, ...], ...]) -> np.ndarray:
    """Round spots with uneven borders, 0 to 1."""
    points = np.moveaxis(np.indices(grid.shape), 0, -1) @ grid.affine[:3, :3].T + grid.affine[:3, 3]
    uneven = ndimage.gaussian_filter(np.random.default_rng(2).normal(0, 1, grid.shape), 3)
    uneven *= 1.2 / uneven.std()
    found = np.zeros(grid.shape, np.float32)
    for *centre, radius in places:
        away = np.linalg.norm(points - centre, axis=-1) + uneven
        found = np.maximum(found, np.clip(radius + 1 - away, 0, 1))
    return found


def opened(data: bytes, box: tuple[float, float, float, float] = (0, 0, 1, 1)) -> Image.Image:
    """A picture, or the part of it between these shares of its width and height."""
    picture = Image.open(io.BytesIO(data)).convert("RGB")
    width, height = picture.size
    return picture.crop((int(box[0] * width), int(box[1] * height),
                         int(box[2] * width), int(box[3] * height)))  # fmt: skip


def side_by_side(pictures: list[Image.Image], out: Path) -> None:
    """The good, the borderline and the bad one, with their names above."""
    width = WIDTH // len(pictures)
    scaled = [one.resize((width - 8, round(one.height * (width - 8) / one.width)))
              for one in pictures]  # fmt: skip
    sheet = Image.new("RGB", (WIDTH, max(one.height for one in scaled) + 34), "white")
    draw = ImageDraw.Draw(sheet)
    for number, (kind, one) in enumerate(zip(KINDS, scaled, strict=True)):
        draw.text((number * width + 4, 4), kind, fill="black", font=ImageFont.load_default(22))
        sheet.paste(one, (number * width + 4, 34))
    sheet.convert("P", palette=Image.Palette.ADAPTIVE).save(out, optimize=True)


def registration(t1w: Volume, flair: Volume, out: Path) -> None:
    """The lower row of the checkerboard: registered, 3 mm off, 10 mm and 8 degrees off."""
    thick = Grid((182, 218, 46), flair.grid.affine @ np.diag([1, 1, 4, 1]))
    fixed = Volume(resample(flair.data, flair.grid, thick), thick)
    pictures = []
    for shift, degrees in ((0, 0), (3, 0), (10, 8)):
        matrix = np.eye(4)
        c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
        matrix[1:3, 1:3] = [[c, -s], [s, c]]
        matrix[:3, 3] = (shift, shift, 0)
        data = alignment_figure(fixed, t1w, matrix)
        pictures.append(opened(data, (0.36, 0.5, 1, 1)))
    side_by_side(pictures, out)


def lesions(flair: Volume, out: Path) -> None:
    """Contours as drawn: on all lesions; on caps, too; on cortex, and none on a large lesion."""
    real, caps, wrong = (blobs(flair.grid, places) for places in (LESIONS, CAPS, WRONG))
    style = find_task("wml").figure
    pictures = []
    missed = blobs(flair.grid, LESIONS[1:2] + LESIONS[3:])
    for bright, marked, top in (
        (real, real, 0.56),
        (np.maximum(real, 0.7 * caps), np.maximum(real, caps), 0.56),
        (np.maximum(real, 0.1 * wrong), np.maximum(missed, wrong), 0.68),
    ):
        scan = Volume((flair.data + 0.45 * bright).astype(np.float32), flair.grid)
        labels = LabelMap((marked > 0.5).astype(np.uint8), flair.grid)
        data = contour_figure(scan, labels, TABLE, style=style)
        pictures.append(opened(data, (0, top, 0.6, 1)))  # axial
    side_by_side(pictures, out)


def studies(out: Path) -> None:
    """One cloud, two clouds by site, and a session far outside, as the group report draws them."""
    draw = np.random.default_rng(3)
    site = np.repeat(["A", "B"], 30)
    kinds = [draw.normal(3500, 300, 60), draw.normal(3500, 220, 60) + 900 * (site == "B"),
             np.r_[draw.normal(3500, 300, 58), 900, 6900]]  # fmt: skip
    pictures = []
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as name:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        for number, volumes in enumerate(kinds):
            folder = Path(name) / str(number)
            folder.mkdir()
            who = [f"sub-{k:02}" for k in range(60)]
            rows = pd.DataFrame({"participant_id": who, "index": 17, "name": "Left-Hippocampus",
                                 "volume_mm3": volumes})  # fmt: skip
            tables.write_table(folder / names.group_path("hippocampus", "structures"), STRUCTURES,
                               rows)  # fmt: skip
            morph = pd.DataFrame({"participant_id": who, "session_id": None, "site": site,
                                  "Left-Hippocampus": volumes})  # fmt: skip
            tables.write_table(folder / names.group_path("hippocampus"),
                               dict.fromkeys(morph.columns), morph)  # fmt: skip
            far = ["yes" if abs(v - 3500) > 2000 else "no" for v in volumes]
            status = {"participant_id": who, "hippocampus_status": "done", "outlier": far}
            tables.write_table(folder / names.group_qc_path(), QC, pd.DataFrame(status))
            path = folder / "group.html"
            write_group_report(path, read_cohort(folder, ["hippocampus"]), command="")
            page = browser.new_page(viewport={"width": 700, "height": 900}, device_scale_factor=2)
            page.set_default_timeout(120_000)
            page.goto(path.as_uri())
            page.wait_for_selector("body[data-ready=yes]")
            if number == 1:
                page.select_option("#d-boxes", "site")
            page.locator("#d-panels .panel").first.scroll_into_view_if_needed()
            page.locator("#d-panels .plot canvas").first.wait_for()
            page.wait_for_timeout(500)
            shot = page.locator("#d-panels .panel").first.screenshot()
            pictures.append(opened(shot))
        browser.close()
    side_by_side(pictures, out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    t1w, flair = head()
    registration(t1w, flair, out / "report_registration.png")
    lesions(flair, out / "report_lesions.png")
    studies(out / "report_group.png")


if __name__ == "__main__":
    main()

"""Draw the pictures of "How to read this report": a good, a borderline and a bad example each.

``python benchmarks/guide_pictures.py deepmrseg_bids/reports/assets/guide`` writes one WebP for each
name in ``deepmrseg_bids/reports/guide.py``. Nothing in them is a scan of a person. ``verdict``,
``structures`` and ``numbers`` are what the command ``deepmrseg predict`` makes of the average of
152 heads (MNI152, from nilearn) and of worse copies of it; all others are drawn on that average, or
are studies of random numbers, and show what to look for, not what the models do.
"""

from __future__ import annotations

import argparse
import io
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
from nilearn.datasets import load_mni152_brain_mask, load_mni152_gm_template, load_mni152_template
from PIL import Image, ImageDraw, ImageFont
from playwright.sync_api import Browser, Page, sync_playwright
from scipy import ndimage

from deepmrseg_bids.bids import names, tables
from deepmrseg_bids.group.columns import AGREEMENT, QC, STRUCTURES, SUMMARY
from deepmrseg_bids.imaging.grid import Array, Grid, resample
from deepmrseg_bids.imaging.nifti import Volume
from deepmrseg_bids.reports.figures import outlines
from deepmrseg_bids.reports.group.data import Cohort, read_cohort
from deepmrseg_bids.reports.group.page import write_group_report
from deepmrseg_bids.reports.subject.alignment import alignment_figure

KINDS = ("Good", "Borderline", "Bad")
PANEL = 400  # pixels
GAP = 8
QUALITY = 80
LESION = "#e6194b"
BRAIN = "#3cb44b"
STRUCTURE = "Left-Hippocampus"

# centres and radii in mm, in the slice
LESIONS = ((-25, -18, 5.0), (27, 6, 4.5), (25, -38, 7.0), (-24, 16, 4.0))
CAPS = ((-18, 32, 4.0), (18, 32, 4.0))
DEEP = ((-26, -30, 4.0), (28, 8, 3.5))
WRONG = ((-46, -4, 6.0), (40, 30, 5.0))  # cortex
EYE = (64.0, -36.0)
LITTLE, MUCH = -18, -12  # z in mm below which a copy is cut


def average() -> Volume:
    """The average of 152 brains, 1 mm."""
    scan = load_mni152_template(resolution=1)
    grid = Grid(scan.shape, np.asarray(scan.affine, dtype=np.float64))
    return Volume(np.asarray(scan.dataobj, dtype=np.float32), grid)


def brain_mask() -> Array:
    return np.asarray(load_mni152_brain_mask(resolution=1).dataobj) > 0


def flair_of(t1w: Volume) -> Volume:
    """White matter grey, cortex brighter, fluid dark."""
    grey = np.asarray(load_mni152_gm_template(resolution=1).dataobj, dtype=np.float32)
    grey = np.clip(grey / grey.max(), 0, 1)
    top = t1w.data.max()
    bright = np.clip((t1w.data - 0.35 * top) / (0.35 * top), 0, 1)  # no fluid
    flair = np.where(brain_mask(), bright * (0.5 + 0.25 * grey) + 0.06, 0.5 * t1w.data / top)
    return Volume(flair.astype(np.float32), t1w.grid)


@dataclass(frozen=True)
class Slice:
    """A slice, its pixels (I, J) 1 mm wide, and where its first pixel is, in mm."""

    pixels: Array
    start: tuple[float, float]

    def away(self, centre: Sequence[float]) -> Array:
        """The distance of each pixel from a point, in mm."""
        x, y = (
            first + np.arange(n) for first, n in zip(self.start, self.pixels.shape, strict=True)
        )
        return np.hypot(x[:, None] - centre[0], y[None] - centre[1])

    def spots(self, places: Sequence[Sequence[float]]) -> Array:
        """Round spots with uneven borders, 0 to 1."""
        uneven = ndimage.gaussian_filter(
            np.random.default_rng(2).normal(0, 1, self.pixels.shape), 3
        )
        uneven *= 1.2 / uneven.std()
        found = np.zeros(self.pixels.shape, np.float32)
        for *centre, radius in places:
            found = np.maximum(found, np.clip(radius + 1 - self.away(centre) - uneven, 0, 1))
        return found

    def noisy(self, sigma: float) -> Slice:
        """The same with noise where it is not empty."""
        noise = np.random.default_rng(1).normal(0, sigma, self.pixels.shape)
        return replace(self, pixels=np.where(self.pixels > 0, self.pixels + noise, 0))


def slice_at(data: Array, grid: Grid, axis: int, mm: float) -> Slice:
    """The slice of an array on a grid along RAS+ at a place in mm."""
    cut = round((mm - grid.affine[axis, 3]) / grid.affine[axis, axis])
    first, second = (k for k in range(3) if k != axis)
    start = (float(grid.affine[first, 3]), float(grid.affine[second, 3]))
    return Slice(np.asarray(data).take(cut, axis), start)


def head_of(brain: Slice, mask: Array) -> Slice:
    """A slice of the brain in a skull, a scalp and an eye that are drawn."""
    away = ndimage.distance_transform_edt(~mask)
    data = brain.pixels / brain.pixels.max()
    drawn = np.select([away == 0, away <= 3, away <= 9, away <= 16], [data, 0.18, 0.06, 0.75])
    eye = brain.away(EYE)
    drawn = np.where((eye < 19) & (away > 3), 0.65, drawn)
    drawn = np.where((eye < 12) & (away > 3), 0.15, drawn)
    return replace(brain, pixels=drawn).noisy(0.015)


def drawing(one: Slice, marked: Array, colour: str, *, width: int = PANEL) -> Image.Image:
    """A slice with the contours of a mask, as large as the head in it."""
    grey, mask = one.pixels.T, marked.T
    rows, columns = np.nonzero(grey > 0.05 * grey.max())
    part = (slice(max(rows.min() - 4, 0), rows.max() + 4),
            slice(max(columns.min() - 4, 0), columns.max() + 4))  # fmt: skip
    grey, mask = grey[part], mask[part]
    white = np.percentile(grey[grey > 0], 99.5)
    pixels = (np.clip(grey / white, 0, 1) * 255).astype(np.uint8)
    fine = 2 * width
    scale = fine / grey.shape[1]
    height = round(grey.shape[0] * scale)
    picture = Image.fromarray(pixels[::-1]).resize((fine, height), Image.Resampling.BICUBIC)
    picture = picture.convert("RGB")
    draw = ImageDraw.Draw(picture)
    for _, line in outlines(mask.astype(np.uint8)):
        points = [(x * scale, height - y * scale) for x, y in line]
        draw.line(points, fill="black", width=9, joint="curve")
        draw.line(points, fill=colour, width=5, joint="curve")
    return picture.resize((width, height // 2), Image.Resampling.LANCZOS)


def opened(data: bytes, box: tuple[float, float, float, float] = (0, 0, 1, 1)) -> Image.Image:
    """A picture, or the part of it between these shares of its width and height."""
    picture = Image.open(io.BytesIO(data)).convert("RGB")
    width, height = picture.size
    return picture.crop((int(box[0] * width), int(box[1] * height),
                         int(box[2] * width), int(box[3] * height)))  # fmt: skip


def side_by_side(pictures: Sequence[Image.Image], out: Path) -> None:
    """The good, the borderline and the bad one, with their names above."""
    scaled = [one.resize((PANEL, round(one.height * PANEL / one.width)), Image.Resampling.LANCZOS)
              for one in pictures]  # fmt: skip
    top = 26
    size = (len(scaled) * (PANEL + GAP) - GAP, max(one.height for one in scaled) + top)
    sheet = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(sheet)
    for number, (kind, one) in enumerate(zip(KINDS, scaled, strict=True)):
        left = number * (PANEL + GAP)
        draw.text((left, 0), kind, fill="black", font=ImageFont.load_default(18))
        sheet.paste(one, (left, top))
    sheet.save(out, quality=QUALITY, method=6)


def brain(t1w: Volume, out: Path) -> None:
    """The mask as it is; with meninges on top; with an eye, and without the cerebellum."""
    whole = slice_at(t1w.data, t1w.grid, 0, 32)
    mask = slice_at(brain_mask(), t1w.grid, 0, 32).pixels
    head = head_of(whole, mask)
    away = ndimage.distance_transform_edt(~mask)
    y, z = (first + np.arange(n) for first, n in zip(whole.start, mask.shape, strict=True))
    upper = z[None] > 20
    cerebellum = (z[None] < -14) & (y[:, None] < -35)
    eye = whole.away(EYE) < 17
    joined = ndimage.binary_closing(mask | eye, iterations=8) | eye
    masks = (mask, mask | ((away <= 4) & upper), joined & ~cerebellum)
    side_by_side([drawing(head, one, BRAIN) for one in masks], out)


def registration(t1w: Volume, flair: Volume, out: Path) -> None:
    """The lower row of the checkerboard: registered, 3 mm off, 10 mm and 8 degrees off."""
    thick = Grid(
        (*t1w.grid.shape[:2], t1w.grid.shape[2] // 4), t1w.grid.affine @ np.diag([1, 1, 4, 1])
    )
    fixed = Volume(resample(flair.data, flair.grid, thick), thick)
    pictures = []
    for shift, degrees in ((0, 0), (3, 0), (10, 8)):
        matrix = np.eye(4)
        c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
        matrix[1:3, 1:3] = [[c, -s], [s, c]]
        matrix[:3, 3] = (shift, shift, 0)
        data = alignment_figure(fixed, t1w, matrix)
        pictures.append(opened(data, (0.7, 0.5, 1, 1)))  # axial
    side_by_side(pictures, out)


def lesions(flair: Volume, out: Path) -> None:
    """Contours as drawn: on all lesions; on caps, too; on cortex, and none on a large lesion."""
    upper, lower = (slice_at(flair.data, flair.grid, 2, z) for z in (26, 10))
    real, few, wrong = (upper.spots(one) for one in (LESIONS, LESIONS[1:2], WRONG))
    deep, caps = (lower.spots(one) for one in (DEEP, CAPS))
    pictures = []
    for scan, bright, marked in (
        (upper, real, real),
        (lower, np.maximum(deep, 0.7 * caps), np.maximum(deep, caps)),
        (upper, real, np.maximum(few, wrong)),
    ):
        shown = replace(scan, pixels=scan.pixels + 0.45 * bright).noisy(0.02)
        pictures.append(drawing(shown, marked > 0.5, LESION))
    side_by_side(pictures, out)


def noisy(t1w: Volume) -> Volume:
    """Blurred, and with strong noise."""
    noise = np.random.default_rng(4).normal(0, 0.11 * t1w.data.max(), t1w.grid.shape)
    data = ndimage.gaussian_filter(t1w.data, 1.2) + noise
    inside = np.clip(data, 0.001 * t1w.data.max(), None)
    return Volume(np.where(brain_mask(), inside, 0).astype(np.float32), t1w.grid)


def above(t1w: Volume, mm: float) -> Volume:
    """Without what is below this z."""
    affine = t1w.grid.affine.copy()
    cut = round((mm - affine[2, 3]) / affine[2, 2])
    affine[2, 3] += cut * affine[2, 2]
    return Volume(t1w.data[:, :, cut:], Grid(t1w.data[:, :, cut:].shape, affine))


def results(t1w: Volume, browser: Browser, out: Path) -> None:
    """What the pages of copies say and show; those with a cut differ in how much is missing."""
    copies = {
        "whole": t1w,
        "noisy": noisy(t1w),
        "cut": above(t1w, LITTLE),
        "half": above(t1w, MUCH),
    }
    shown = {"verdict": ("whole", "cut", "half"), "structures": ("whole", "noisy", "half"),
             "numbers": ("whole", "cut", "half")}  # fmt: skip
    shots: dict[tuple[str, str], Image.Image] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for copy, volume in copies.items():
            scan = folder / f"{copy}.nii.gz"
            data = volume.data * (1000 / t1w.data.max())
            nib.Nifti1Image(data, volume.grid.affine).to_filename(scan)
            predict = ["-m", "deepmrseg_bids.cli.deepmrseg", "predict", "--task", "deepbrain"]
            subprocess.run(
                [sys.executable, *predict, str(scan), "-o", name, "--report"], check=True
            )
            page = browser.new_page(viewport={"width": 560, "height": 900}, device_scale_factor=2)
            page.goto((folder / f"{copy}.html").as_uri())
            shots["verdict", copy] = opened(page.locator(".verdict").first.screenshot())
            page.set_viewport_size({"width": 1400, "height": 900})
            shots["structures", copy] = coronal(page)
            shots["numbers", copy] = opened(numbers(page))
            page.close()
    for kind, three in shown.items():
        side_by_side([shots[kind, copy] for copy in three], out / f"{kind}.webp")


def coronal(page: Page) -> Image.Image:
    """The middle one of the coronal slices."""
    plane = page.locator(".slices .plane").nth(1)
    return opened(plane.locator(".slice:visible").nth(1).screenshot())


def numbers(page: Page) -> bytes:
    """Hippocampus and amygdala of the table of volumes, narrow."""
    page.evaluate(
        """() => {
          const table = document.querySelector('table.volumes');
          for (const body of table.tBodies) {
            const name = body.textContent;
            body.hidden = !/Hippocampus|Amygdala/.test(name);
          }
          table.caption.remove();
          for (const part of table.querySelectorAll('.standing')) part.remove();
          table.style.width = '520px';
          table.style.background = 'var(--paper)';
        }"""
    )
    return page.locator("table.volumes").first.screenshot()


def study(
    folder: Path, volumes: Array, people: Mapping[str, Sequence[object]], **more: Sequence[object]
) -> Cohort:
    """The tables of a study of one structure, as the group level writes them, read again."""
    folder.mkdir()
    keys = {"participant_id": [f"sub-{k:02}" for k in range(len(volumes))], "session_id": None}
    keys |= {key: list(people[key]) for key in keys if key in people}
    rows = pd.DataFrame({**keys, "index": 48, "name": STRUCTURE, "volume_mm3": volumes})
    tables.write_table(folder / names.group_path("deepbrain", "structures"), STRUCTURES, rows)
    morph = pd.DataFrame({**keys, **people, STRUCTURE: volumes})
    tables.write_table(folder / names.group_path("deepbrain"), dict.fromkeys(morph.columns), morph)
    status = {**keys, "deepbrain_status": "done", "outlier": "no", **more}
    tables.write_table(folder / names.group_qc_path(), QC, pd.DataFrame(status))
    return read_cohort(folder, ["deepbrain"])


def panel(browser: Browser, folder: Path, cohort: Cohort, holder: str, title: str = "",
          choose: Mapping[str, str] | None = None) -> Image.Image:  # fmt: skip
    """A plot of the group report of a study, without its buttons."""
    path = folder / "group.html"
    write_group_report(path, cohort, command="")
    page = browser.new_page(viewport={"width": 560, "height": 900}, device_scale_factor=2)
    page.set_default_timeout(120_000)
    page.goto(path.as_uri())
    page.wait_for_selector("body[data-ready=yes]")
    for select, value in (choose or {}).items():
        page.select_option(select, value)
    found = page.locator(f"{holder} .panel").filter(has_text=title).first
    found.scroll_into_view_if_needed()
    found.locator(".plot canvas").first.wait_for()
    page.add_style_tag(content=".panel header, .said { display: none !important; }")
    page.wait_for_timeout(500)
    picture = opened(found.screenshot())
    page.close()
    return picture


def distributions(browser: Browser, folder: Path) -> list[Image.Image]:
    """One cloud, two clouds by site, and sessions far outside."""
    draw = np.random.default_rng(3)
    site = np.repeat(["A", "B"], 30)
    kinds = [draw.normal(3500, 300, 60), draw.normal(3500, 220, 60) + 900 * (site == "B"),
             np.r_[draw.normal(3500, 300, 58), 900, 6900]]  # fmt: skip
    pictures = []
    for number, volumes in enumerate(kinds):
        far = ["yes" if abs(v - 3500) > 2000 else "no" for v in volumes]
        place = folder / str(number)
        cohort = study(place, volumes, {"site": site}, outlier=far)
        choose = {"#d-boxes": "site"} if number == 1 else {}
        pictures.append(panel(browser, place, cohort, "#d-panels", choose=choose))
    return pictures


def ages(browser: Browser, folder: Path) -> list[Image.Image]:
    """A plausible decline; few old people; old people of another scanner."""
    draw = np.random.default_rng(5)
    sex = np.tile(["F", "M"], 40)
    wide = draw.uniform(20, 85, 80).round()
    young = np.r_[draw.uniform(20, 40, 76), 71, 84, 74, 79].round()
    noise = draw.normal(0, 180, 80) + 250 * (sex == "M")
    few = np.where(young > 60, draw.normal(4300, 500, 80), 3900.0)
    kinds = [(wide, 4100 - 0.25 * (wide - 20) ** 2), (young, few), (wide, 3000 + 20 * (wide - 20))]
    pictures = []
    for number, (age, volume) in enumerate(kinds):
        place = folder / str(number)
        cohort = study(place, volume + noise, {"age": age, "sex": sex})
        pictures.append(panel(browser, place, cohort, "#a-panels"))
    return pictures


def times(browser: Browser, folder: Path) -> list[Image.Image]:
    """Parallel lines; lines that cross; a jump of all at one session."""
    draw = np.random.default_rng(6)
    people, visits = 12, 4
    who = np.repeat([f"sub-{k:02}" for k in range(people)], visits)
    visit = np.tile(np.arange(visits), people)
    size = np.repeat(draw.normal(3600, 300, people), visits)
    kinds = [size - 35 * visit + draw.normal(0, 12, who.size),
             np.repeat(draw.normal(3600, 60, people), visits) + draw.normal(0, 70, who.size),
             size - 35 * visit + 420 * (visit == 2) + draw.normal(0, 20, who.size)]  # fmt: skip
    pictures = []
    for number, volumes in enumerate(kinds):
        place = folder / str(number)
        keys = {"participant_id": who, "session_id": [f"ses-{k + 1}" for k in visit]}
        cohort = study(place, volumes, keys)
        order = [(key, int(key[1].removeprefix("ses-"))) for key in cohort.keys]
        cohort = replace(cohort, years=tuple(float(k - 1) for _, k in order),
                         visits=tuple(k for _, k in order))  # fmt: skip
        pictures.append(panel(browser, place, cohort, "#t-panels"))
    return pictures


def agreement(browser: Browser, folder: Path) -> list[Image.Image]:
    """Differences around zero; a bias with narrow limits; wide limits."""
    draw = np.random.default_rng(7)
    theirs = draw.normal(3500, 300, 60)
    kinds = [draw.normal(0, 45, 60), draw.normal(380, 45, 60), draw.normal(60, 420, 60)]
    pictures = []
    for number, difference in enumerate(kinds):
        place = folder / str(number)
        who = [f"sub-{k:02}" for k in range(60)]
        study(place, theirs + difference, {})
        about = {"index": 48, "name": STRUCTURE, "reference": "manual"}
        rows = {"sample_id": who, "participant_id": who, "session_id": None, "f1": 0.9, **about,
                "volume_mm3": theirs + difference, "reference_volume_mm3": theirs}  # fmt: skip
        tables.write_table(place / names.group_path("deepbrain", "agreement"), AGREEMENT,
                           pd.DataFrame(rows))  # fmt: skip
        bias, reach = difference.mean(), 1.96 * difference.std()
        limits = {"n_volumes": [60], "bias_mm3": bias, "limit_low_mm3": bias - reach,
                  "limit_high_mm3": bias + reach}  # fmt: skip
        tables.write_table(place / names.group_path("deepbrain", "agreement_summary"), SUMMARY,
                           pd.DataFrame({**limits, **about}))  # fmt: skip
        cohort = read_cohort(place, ["deepbrain"])
        pictures.append(panel(browser, place, cohort, "#g-panels", "Bland-Altman"))
    level_axes(pictures)
    return pictures


def level_axes(pictures: list[Image.Image]) -> None:
    """All of one height."""
    lowest = min(one.height for one in pictures)
    pictures[:] = [one.crop((0, 0, one.width, lowest)) for one in pictures]


def mosaics(t1w: Volume, out: Path) -> None:
    """Six small images with the brain contour each: all alike, one odd, many odd."""
    pictures = []
    for odd in ("", "...l..", "wl.s.l"):
        sheet = Image.new("RGB", (PANEL, 2 * PANEL // 3), "black")
        for number, kind in enumerate(odd.ljust(6, ".")):
            edge = PANEL // 3 - 6
            one = slice_at(t1w.data / t1w.data.max(), t1w.grid, 0, 6 + 4 * number).noisy(0.03)
            mask = slice_at(brain_mask(), t1w.grid, 0, 6 + 4 * number).pixels
            z = one.start[1] + np.arange(mask.shape[1])
            if kind == "l":
                mask = mask & (z[None] > -16)
            elif kind in "ws":
                grow = ndimage.binary_dilation if kind == "w" else ndimage.binary_erosion
                mask = grow(mask, iterations=9)
            tile = drawing(one, mask, BRAIN, width=edge)
            sheet.paste(tile, (number % 3 * (edge + 9), number // 3 * PANEL // 3))
        pictures.append(sheet)
    side_by_side(pictures, out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--only", nargs="+", default=[])
    options = parser.parse_args()
    out: Path = options.out
    out.mkdir(parents=True, exist_ok=True)
    t1w = average()
    flair = flair_of(t1w)
    drawn: dict[str, Callable[[Path], None]] = {
        "brain": lambda path: brain(t1w, path),
        "registration": lambda path: registration(t1w, flair, path),
        "lesions": lambda path: lesions(flair, path),
        "mosaics": lambda path: mosaics(t1w, path),
    }
    plots = {"distributions": distributions, "age": ages, "time": times, "agreement": agreement}

    def wanted(name: str) -> bool:
        return not options.only or name in options.only

    for name, make in drawn.items():
        if wanted(name):
            make(out / f"{name}.webp")
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as scratch:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        for name, plot in plots.items():
            if wanted(name):
                (Path(scratch) / name).mkdir()
                side_by_side(plot(browser, Path(scratch) / name), out / f"{name}.webp")
        if wanted("results"):
            results(t1w, browser, out)
        browser.close()


if __name__ == "__main__":
    main()

"""The page of web/dist, driven in headless Chromium, for the benchmarks of it."""

from __future__ import annotations

import importlib.util
import shutil
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from playwright.sync_api import Locator, Page, sync_playwright

from deepmrseg_bids.tsv import read_foreign_tsv

WEB = Path(__file__).parents[1] / "web"
_LONGEST_MS = 60 * 60 * 1000


@dataclass(frozen=True)
class Run:
    """One scan on the page.

    Attributes:
        seconds: from the click to the table.
        summary: the line above the result, with the seconds of the computation and the threads.
        peak_mib: of all processes of the browser together.
        files: label maps, by task.
        regions: volumes of composite regions, mm3, by task and name.
    """

    seconds: float
    summary: str
    peak_mib: float
    files: dict[str, Path]
    regions: dict[str, dict[str, float]]


_DRAWN = ("--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader")


@contextmanager
def opened(dist: Path, *, viewer: bool = True) -> Iterator[Page]:
    """The page in headless Chromium, ready for a scan.

    Args:
        viewer: whether results are drawn, which takes long without a graphics card.
    """
    spec = importlib.util.spec_from_file_location("serve", WEB / "serve.py")
    assert spec is not None and spec.loader is not None
    serve: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(serve)
    with serve.server_of(dist) as server, sync_playwright() as playwright:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"),
            args=["--no-sandbox", "--disable-background-networking", "--disable-gpu-watchdog",
                  *(_DRAWN if viewer else ["--disable-3d-apis"])],
        )  # fmt: skip
        page = browser.new_page(viewport={"width": 1280, "height": 1000})
        page.set_default_timeout(_LONGEST_MS)  # a large scan is drawn without a graphics card
        page.on("pageerror", lambda error: print(f"page error: {error}"))
        page.goto(f"http://127.0.0.1:{server.server_port}/")
        page.locator("#tasks input").first.wait_for()
        yield page
        browser.close()
        server.shutdown()


def segment(page: Page, scan: Path, tasks: Sequence[str], out: Path, flair: Path | None) -> Run:
    """Segment a scan, and download its label maps."""
    for box in page.locator("#tasks input").all():
        box.set_checked(box.get_attribute("value") in tasks)
    page.set_input_files("#t1w", scan)
    if flair is not None:
        page.set_input_files("#flair", flair)
    watch = Watch()
    watch.start()
    start = time.perf_counter()
    page.get_by_role("button", name="Segment").click()
    page.locator("#result, #problem").locator("visible=true").first.wait_for(timeout=_LONGEST_MS)
    seconds = time.perf_counter() - start
    watch.stop()
    if said := page.locator("#problem:visible").all_inner_texts():
        print(f"{scan.name}: {said[0]}", flush=True)
    files, regions = {}, {}
    for task in tasks:
        part = page.locator(f"section[data-task={task}]")
        for name, kept in (("Label map", files), ("Regions", regions)):
            button = part.get_by_role("button", name=name)
            if button.count():
                kept[task] = download(page, button, out)
    volumes = {
        task: {row["name"]: float(row["volume_mm3"]) for row in read_foreign_tsv(path).rows}
        for task, path in regions.items()
    }
    summary = page.locator("#summary").inner_text()
    return Run(seconds, summary, watch.peak_mib, files, volumes)


def download(page: Page, button: Locator, out: Path) -> Path:
    """Press a button and save what it gives."""
    with page.expect_download() as waiting:
        button.click()
    path = out / waiting.value.suggested_filename
    waiting.value.save_as(path)
    return path


class Watch(threading.Thread):
    """Looks at the memory of the browser, twice a second; shared pages count once."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peak_mib = 0.0
        self._ended = threading.Event()

    def run(self) -> None:
        """Until stop is called."""
        while not self._ended.wait(0.5):
            used = 0.0
            for child in psutil.Process().children(recursive=True):
                try:
                    used += child.memory_full_info().pss / 2**20
                except (psutil.Error, OSError):
                    continue
            self.peak_mib = max(self.peak_mib, used)

    def stop(self) -> None:
        """End, and wait for it."""
        self._ended.set()
        self.join()

"""A real browser that opens pages of reports from disk."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from tests.support import need

SOFTWARE_3D = ("--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader")
"""WebGL 2 without a graphics card."""


def until(page: Page, holds: Callable[[], bool], seconds: float = 60) -> None:
    """Wait until something holds, however slow the machine is: what is drawn, say.

    Raises:
        AssertionError: it does not hold after ``seconds``.
    """
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, f"it does not hold after {seconds:g} s"
        page.wait_for_timeout(50)


@dataclass
class Watched:
    """A page in the browser, and what happened on it that should not."""

    page: Page
    errors: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.on("console", self._console)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))

    def _console(self, message: object) -> None:
        if message.type in ("error", "warning"):  # type: ignore[attr-defined]
            self.errors.append(message.text)  # type: ignore[attr-defined]

    def open(self, path: Path) -> Page:
        """Open a file as a double click does."""
        self.page.goto(path.as_uri())
        return self.page

    @property
    def from_elsewhere(self) -> list[str]:
        """What was asked for, apart from the file itself and what lies in it."""
        own = ("data:", "blob:", self.page.url.partition("#")[0])
        return [url for url in self.requests if not url.startswith(own)]

    def violations(self, *, scheme: str) -> list[str]:
        """What axe finds serious or critical, in light or dark colours."""
        from axe_playwright_python.sync_playwright import Axe

        self.page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
        found = Axe().run(self.page).response["violations"]
        return [
            f"{one['id']}: {node['html'][:200]}"
            for one in found
            if one["impact"] in ("serious", "critical")
            for node in one["nodes"]
        ]


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """The installed Chromium, headless, that draws 3D in software."""
    need("chromium", package="chromium (Debian)")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"),
            args=["--no-sandbox", "--disable-background-networking", *SOFTWARE_3D],
        )
        yield browser
        browser.close()


@pytest.fixture
def watched(browser: Browser) -> Iterator[Watched]:
    """A page that has not been opened yet: 1280 x 900, light colours, no network."""
    context = browser.new_context(
        viewport={"width": 1280, "height": 900}, offline=True, color_scheme="light"
    )
    yield Watched(context.new_page())
    context.close()

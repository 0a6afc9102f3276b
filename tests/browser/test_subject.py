"""The page of a subject in a real browser."""

from __future__ import annotations

from pathlib import Path

import pytest

from deepmrseg_bids.reports.subject import SessionResult, TaskResult, write_subject_report
from tests.browser.conftest import Watched

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "sub-01.html"
    failed = TaskResult("wml", "failed", "no FLAIR", None, None, None, ())
    write_subject_report(
        path, [SessionResult("01", None, (failed,))], version="1", command="x", models={}
    )
    return path


def test_the_page_opens_from_disk_without_an_error_or_a_request(
    watched: Watched, report: Path
) -> None:
    page = watched.open(report)
    assert page.title() == "sub-01 · deepmrseg-bids"
    assert not watched.errors and not watched.from_elsewhere


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(watched: Watched, report: Path, scheme: str) -> None:
    watched.open(report)
    assert watched.violations(scheme=scheme) == []


def test_a_script_that_is_not_of_the_page_does_not_run(watched: Watched, report: Path) -> None:
    text = report.read_text(encoding="utf-8")
    spoiled = report.with_name("spoiled.html")
    spoiled.write_text(text.replace("</main>", "<script>document.title = 'run'</script></main>"))
    page = watched.open(spoiled)
    assert page.title() == "sub-01 · deepmrseg-bids"
    assert any("Content Security Policy" in error for error in watched.errors)

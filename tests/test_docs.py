"""The documentation: its links hold, its example runs, its site needs no other host."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import pytest

from tests.integration.conftest import coarse

ROOT = Path(__file__).parents[1]
FRONT = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "singularity/README.md"]


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as they are made on code hosts and by MyST."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    plain = [re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings]
    return {heading.replace(" ", "-") for heading in plain}


def example(page: str) -> str:
    """The Python code on a page."""
    (code,) = re.findall(r"```python\n(.+?)```", (ROOT / page).read_text(), flags=re.DOTALL)
    return code


@pytest.mark.parametrize("name", FRONT)
def test_links_from_the_front_pages_lead_somewhere(name: str) -> None:
    page = ROOT / name
    for target in re.findall(r"\]\(([^)]+)\)", page.read_text(encoding="utf-8")):
        if target.startswith("http"):
            continue
        path, _, anchor = target.partition("#")
        linked = page.parent / path if path else page
        assert linked.exists(), target
        assert not anchor or anchor in anchors(linked), target


def test_the_library_example_segments_a_head(tmp_path: Path) -> None:
    nib.save(coarse(), tmp_path / "head.nii.gz")
    ended = subprocess.run(
        [sys.executable, "-c", example("docs/library.md")],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert {"brain.nii.gz", "deepbrain.nii.gz"} < {path.name for path in tmp_path.iterdir()}
    assert re.search(r"^Left-Hippocampus \d", ended.stdout, flags=re.MULTILINE)


def test_the_readme_shows_the_same_example() -> None:
    assert example("README.md") == example("docs/library.md")


def test_the_library_example_has_at_most_ten_lines_of_code() -> None:
    lines = [line for line in example("docs/library.md").splitlines() if line.strip()]
    assert sum(not line.startswith("from ") for line in lines) <= 10


def test_the_site_is_built_without_a_warning_and_loads_nothing_from_elsewhere(
    tmp_path: Path,
) -> None:
    strict = ["--quiet", "--fail-on-warning", "--keep-going", "--nitpicky"]
    made = (ROOT / "Makefile").read_text(encoding="utf-8").partition("\ndocs:")[2]
    assert made.partition("sphinx-build")[2].replace("\\\n", " ").split()[:4] == strict
    places = ["-d", tmp_path / "trees", ROOT / "docs", tmp_path / "site"]
    ended = subprocess.run(
        [sys.executable, "-m", "sphinx.cmd.build", *strict, *places],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    for page in (tmp_path / "site").glob("*.html"):
        loaded = re.findall(
            r'<(?:script|img|link|iframe)[^>]+(?:src|href)="(\w*:?//[^"]+)', page.read_text()
        )
        assert loaded == [], page.name


def test_how_to_read_a_report_is_the_same_in_the_report_and_in_the_docs() -> None:
    template = ROOT / "deepmrseg_bids" / "reports" / "templates" / "guide.html.j2"
    docs = (ROOT / "docs" / "reading_reports.md").read_text(encoding="utf-8")
    cells = re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", template.read_text(encoding="utf-8"))
    assert len(cells) > 40
    assert [cell for cell in cells[5:] if cell not in docs] == []

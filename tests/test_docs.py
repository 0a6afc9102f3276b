"""The documentation: its links hold, its example runs, its site needs no other host."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import pytest

from deepmrseg_bids.bids.names import entities_text
from deepmrseg_bids.inference.bundle import shipped_bundles
from deepmrseg_bids.reports import guide
from deepmrseg_bids.tasks.registry import find_task, task_names
from deepmrseg_bids.train.config import preset_names
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


def rows_under(page: str, heading: str) -> set[str]:
    """What stands in backticks in the first column of the tables below a heading."""
    section = (ROOT / page).read_text(encoding="utf-8").split(f"\n{heading}\n")[1].split("\n## ")[0]
    cells = re.findall(r"^\| (`.+?) \|", section, flags=re.MULTILINE)
    return {name for cell in cells for name in re.findall(r"`([\w-]+)`", cell)}


def test_the_front_page_lists_every_task_and_the_terms_of_every_model() -> None:
    assert rows_under("README.md", "## Tasks") == set(task_names())
    assert rows_under("README.md", "## Limits and terms") == set(shipped_bundles())
    outputs = (ROOT / "README.md").read_text(encoding="utf-8").split("\n## Outputs\n")[1]
    for task in map(find_task, task_names()):
        assert entities_text(task.label_map) in outputs.split("\n## ")[0], task.name


def test_the_page_of_models_has_a_section_for_every_model() -> None:
    page = (ROOT / "docs" / "models.md").read_text(encoding="utf-8")
    headings = " ".join(re.findall(r"^## (.+)$", page, flags=re.MULTILINE))
    assert set(shipped_bundles()) <= set(re.findall(r"\w+", headings))


def test_the_page_of_options_names_every_task_and_every_preset() -> None:
    page = (ROOT / "docs" / "usage.md").read_text(encoding="utf-8")
    lines = page.splitlines()
    of_tasks = [line for line in lines if re.match(r"\| `--tasks? T[ `].*`brain`", line)]
    assert len(of_tasks) == 2  # of both commands
    for line in of_tasks:
        assert set(task_names()) <= set(re.findall(r"`(\w+)`", line)), line
    (line,) = (
        line for line in lines if line.startswith("| `--config CONFIG` | a TOML file, or a preset:")
    )
    assert set(preset_names()) <= set(re.findall(r"`([\w-]+)`", line))


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


def test_how_to_read_a_report_is_the_same_in_the_reports_and_in_the_docs() -> None:
    docs = (ROOT / "docs" / "reading_reports.md").read_text(encoding="utf-8")
    parts = [*guide.SUBJECT, *guide.GROUP]
    assert len(parts) > 12
    for part in parts:
        texts = (part.title, part.good, part.borderline, part.bad, part.advice)
        assert [text for text in texts if text not in docs] == []
    shown = set(re.findall(r"assets/guide/(\w+)\.webp", docs))
    kept = ROOT / "deepmrseg_bids" / "reports" / "assets" / "guide"
    assert shown == {part.picture for part in parts} - {""}
    assert shown == {path.stem for path in kept.iterdir()}

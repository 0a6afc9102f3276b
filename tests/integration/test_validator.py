"""What comes out is BIDS, as the standard's own validator sees it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.integration.conftest import Run, app
from tests.support import unavailable

pytestmark = pytest.mark.validator

CONFIG = Path(__file__).parents[2] / "bids_validator_config.json"
ENTRIES: list[dict[str, str]] = json.loads(CONFIG.read_text())["ignore"]


@pytest.fixture(scope="module")
def out(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An output folder after both levels."""
    folder = tmp_path_factory.mktemp("validator")
    shutil.copytree(run.out, folder / "out")
    assert app(run.raw, folder / "out", "group", home=folder / "h").code == 0
    return folder / "out"


def issues(out: Path, config: dict[str, Any], folder: Path) -> list[dict[str, Any]]:
    """What the validator notices, less what ``config`` asks it to ignore."""
    name = "bids-validator-deno"
    executable = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    if executable is None:
        unavailable(f"{name} not found: install it with pip")
    (folder / "config.json").write_text(json.dumps(config))
    report = folder / "report.json"
    ended = subprocess.run(
        [executable, out, "--format", "json", "-o", report, "-c", folder / "config.json"],
        capture_output=True,
        text=True,
        check=False,
    )
    found = json.loads(report.read_text())["issues"]["issues"]
    errors = [issue for issue in found if issue["severity"] == "error"]
    assert (ended.returncode == 0) == (not errors), ended.stderr
    return [issue for issue in found if issue["severity"] != "ignore"]


def test_the_output_passes_the_bids_validator_without_a_warning(out: Path, tmp_path: Path) -> None:
    assert issues(out, json.loads(CONFIG.read_text()), tmp_path) == []


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry["code"])
def test_each_entry_of_the_configuration_hides_a_warning_that_is_there(
    entry: dict[str, str], out: Path, tmp_path: Path
) -> None:
    fewer = {"ignore": [other for other in ENTRIES if other != entry], "warning": [], "error": []}
    found = {(issue["code"], issue["severity"]) for issue in issues(out, fewer, tmp_path)}
    assert found == {(entry["code"], "warning")}


def test_the_configuration_has_the_keys_that_the_validator_reads() -> None:
    config = json.loads(CONFIG.read_text())
    assert set(config) == {"ignore", "warning", "error"}  # others would be passed over in silence
    assert all(set(entry) == {"code", "location"} for entry in ENTRIES)


def test_the_documentation_gives_a_reason_for_each_entry() -> None:
    text = (CONFIG.parent / "docs" / "outputs.md").read_text(encoding="utf-8")
    assert [entry["code"] for entry in ENTRIES if f"| `{entry['code']}` |" not in text] == []

"""Importing is quick and without side effects."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import deepmrseg_bids

ROOT = Path(deepmrseg_bids.__file__).parents[1]


def _imported(statement: str) -> set[str]:
    code = f"{statement}\nimport sys\nprint(*{{name.split('.')[0] for name in sys.modules}})"
    return set(_python(code).split())


def _python(code: str) -> str:
    """What a fresh interpreter prints."""
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout


def test_importing_the_package_imports_no_heavy_library() -> None:
    heavy = {"torch", "nipype", "ants", "nibabel", "bids", "templateflow", "pandas", "numpy"}
    assert not _imported("import deepmrseg_bids") & heavy


def test_the_image_layers_work_without_torch() -> None:
    found = _imported(
        "import deepmrseg_bids.imaging.nifti, deepmrseg_bids.metrics.overlap\n"
        "import deepmrseg_bids.inference.bundle"
    )
    assert not found & {"torch", "nipype", "ants", "bids"}


def test_what_finds_the_work_of_a_run_leaves_torch_to_the_workers() -> None:
    found = _imported("import deepmrseg_bids.app.participant, deepmrseg_bids.workflows")
    assert "nipype" in found and "torch" not in found


def test_importing_changes_no_environment_variable() -> None:
    code = (
        "import os; before = dict(os.environ); import deepmrseg_bids.network; "
        "assert dict(os.environ) == before, 'changed'"
    )
    _python(code)


def test_the_version_is_a_version() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+([a-z.+-]\S*)?", deepmrseg_bids.__version__)


def test_the_package_exports_its_version_alone() -> None:
    assert deepmrseg_bids.__all__ == ["__version__"]

"""Importing is quick and without side effects."""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from pathlib import Path

import pytest

import deepmrseg_bids
from deepmrseg_bids.cli.deepmrseg import build_parser
from deepmrseg_bids.execution.runner import PRELOAD
from deepmrseg_bids.tasks.registry import task_names

ROOT = Path(deepmrseg_bids.__file__).parents[1]
COMMANDS = [
    name
    for action in build_parser()._actions
    if isinstance(action, argparse._SubParsersAction)
    for name in action.choices
]


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


HEAVY = frozenset({
    "torch", "nipype", "pandas", "nibabel", "bids", "scipy", "matplotlib", "ants", "numpy", "PIL",
    "templateflow", "statsmodels", "safetensors", "contourpy", "jinja2",
})  # fmt: skip
SELDOM = frozenset({
    "nipype", "pandas", "bids", "matplotlib", "ants", "templateflow", "statsmodels", "scipy.stats",
    "scipy.signal", "scipy.optimize", "scipy.spatial",
})  # fmt: skip
"""What takes long to import, and what most sessions never need."""


def _loaded(code: str) -> set[str]:
    """What a fresh interpreter has imported when it has run this."""
    said = _python(f"{code}\nimport sys; print('loaded', *sys.modules)")
    return set(said.rpartition("loaded")[2].split())


@pytest.mark.parametrize(
    "words",
    ["deepmrseg_bids --help", "deepmrseg_bids --version", "deepmrseg --help", "deepmrseg --version",
     *(f"deepmrseg {name} --help" for name in COMMANDS)],
)  # fmt: skip
def test_help_is_told_before_anything_is_imported_that_takes_long(words: str) -> None:
    command, *flags = words.split()
    found = _loaded(
        f"from deepmrseg_bids.cli.{command} import main\n"
        f"try:\n    main({flags!r})\nexcept SystemExit as end:\n    assert not end.code"
    )
    assert not found & HEAVY


def test_predict_reads_its_image_before_anything_is_imported_that_few_need(tmp_path: Path) -> None:
    tasks = [word for task in task_names() for word in ("--task", task)]
    found = _loaded(
        "from deepmrseg_bids.cli import deepmrseg\n"
        "deepmrseg._predict_one = lambda *_: 0\n"
        f"words = ['predict', 'x.nii', '-o', {str(tmp_path)!r}, '--flair', 'y.nii', *{tasks!r}]\n"
        "assert deepmrseg.main(words) == 0"
    )
    assert "torch" in found and not found & SELDOM


def test_what_workers_come_from_has_what_every_session_needs_and_no_more() -> None:
    found = _loaded(f"import {', '.join(PRELOAD)}")
    assert {"torch", "nibabel", "nipype"} <= found and not found & (SELDOM - {"nipype"})


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

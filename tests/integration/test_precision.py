"""One run decides what ``auto`` means, for itself and for its workers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from deepmrseg_bids.cli.deepmrseg_bids import main
from tests.integration.conftest import add_scan, make_dataset, read_tsv
from tests.tiny import tiny_head


@pytest.fixture(scope="module")
def one_head(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = make_dataset(tmp_path_factory.mktemp("one") / "bids")
    add_scan(root, "sub-01_T1w", tiny_head(1))
    return root


def test_what_a_run_makes_in_auto_is_finished_for_the_next_whatever_the_cpu(
    one_head: Path, tiny_model: Path, tmp_path: Path, fastest: str
) -> None:
    """A worker is a process of its own, which would answer for the real processor."""
    words = [one_head, tmp_path, "participant", "--tasks", "brain", "--device", "cpu",
             "--model", f"brain={tiny_model}", "--no-reports"]  # fmt: skip
    assert main([str(word) for word in words]) == 0
    sidecar = tmp_path / "sub-01/anat/sub-01_desc-brain_mask.json"
    assert json.loads(sidecar.read_text())["Parameters"]["Precision"] == fastest
    (row,) = read_tsv(tmp_path / "logs/sessions.tsv")
    assert row["status"] == "done"
    assert main([str(word) for word in words]) == 0
    (row,) = read_tsv(tmp_path / "logs/sessions.tsv")
    assert row["status"] == "resumed"
    assert main([str(word) for word in (*words, "--precision", fastest)]) == 0
    (row,) = read_tsv(tmp_path / "logs/sessions.tsv")
    assert row["status"] == "resumed"

"""What a second run takes for finished, told from the outputs of the first."""

from dataclasses import replace

import pytest

from deepmrseg_bids.session import publish
from tests.session.conftest import BUNDLES, STEM


def test_what_was_done_is_finished_and_the_rest_is_not(again):
    found = again()
    assert [(t.task, t.status) for t in found] == [("brain", "resumed"), ("deepbrain", "resumed")]
    for now, before in zip(found, again.outcome.tasks, strict=True):
        assert now.files == before.files
        assert now.model == before.model
        assert now.findings == before.findings


def test_another_input_is_not_finished(again):
    again.job.t1w.write_bytes(again.job.t1w.read_bytes() + b"\0")
    assert again() == ()
    again.job.t1w.unlink()
    assert again() == ()


@pytest.mark.parametrize(
    "changes",
    [{"flips": True}, {"precision": "bfloat16"}, {"probabilities": True}, {"images": {}}],
)
def test_other_parameters_are_not_finished(again, changes):
    assert again(**changes) == ()


def test_a_new_model_undoes_what_it_is_used_for(again):
    new = {name: replace(one, version="2", sha256="new") for name, one in BUNDLES.items()}
    assert [t.task for t in again({**BUNDLES, "deepbrain": new["deepbrain"]})] == ["brain"]
    assert again({**BUNDLES, "brain": new["brain"]}) == ()


def test_another_version_of_the_software_makes_it_again(again, monkeypatch):
    monkeypatch.setattr(publish, "__version__", "0.0.other")
    assert again() == ()


def test_a_table_that_is_gone_is_made_again(again, tmp_path):
    (tmp_path / "out" / f"{STEM}_seg-brain_morph.tsv").unlink()
    assert [t.task for t in again()] == ["deepbrain"]

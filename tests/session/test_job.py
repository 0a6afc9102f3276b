"""What is asked of a session and what became of it, as processes tell each other."""

from pathlib import Path

import pytest

from deepmrseg_bids.bids.provenance import FileDigest
from deepmrseg_bids.session.job import SessionJob, SessionOutcome, TaskOutcome, outcome_from_json
from tests.session.conftest import DARK
from tests.support import images_of


def test_an_outcome_comes_back_from_its_text():
    outcome = SessionOutcome(
        "01",
        None,
        {"T1w": "/d/sub-01_T1w.nii.gz", "FLAIR": "/d/sub-01_FLAIR.nii.gz"},
        (
            TaskOutcome("brain", "done", "", 1.5, 300.0, ("a", "b"), (DARK,), "1 abc"),
            TaskOutcome("wml", "skipped", 'no "FLAIR"'),
        ),
        findings=(DARK,),
        notes=("n", "m"),
        inputs=(FileDigest("/d/sub-01_T1w.nii.gz", 12, 34, "abc"),),
    )
    assert outcome_from_json(outcome.to_json()) == outcome
    nothing = SessionOutcome("01", "2", {}, ())
    assert outcome_from_json(nothing.to_json()) == nothing


@pytest.mark.parametrize(("label", "name"), [("2", "sub-01_ses-2"), (None, "sub-01")])
def test_a_job_has_the_name_of_its_session(label, name):
    assert SessionJob("01", label, Path("/d"), {}, ()).name == name


T1W, FLAIR = Path("/d/sub-01_T1w.nii.gz"), Path("/d/sub-01_FLAIR.nii.gz")


@pytest.mark.parametrize(
    ("task", "t1w", "flair", "made_from"),
    [
        ("brain", T1W, FLAIR, (T1W,)),
        ("brain", None, FLAIR, ()),
        ("wml", T1W, FLAIR, (T1W, FLAIR)),
        ("wml", None, FLAIR, (FLAIR,)),
        ("wml", T1W, None, ()),
    ],
)
def test_a_task_is_made_from_the_images_it_looks_at(task, t1w, flair, made_from):
    job = SessionJob("01", None, Path("/d"), images_of(t1w, flair), (task,))
    assert job.inputs(task) == made_from
    assert job.t1w == t1w

"""The walk of ``anat`` folders finds what pybids finds, in whatever data set."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deepmrseg_bids.bids import index
from deepmrseg_bids.bids.query import Session, find_sessions

SUBJECTS = ("sub-01", "sub-02", "sub-a+b", "Sub-03", "sub-", "sub-0_4", "sub-01x", "pheno")
SESSIONS = ("", "", "ses-1", "ses-02", "SES-1", "ses-", "ses-1/ses-1")
FOLDERS = ("anat", "anat", "Anat", "func", "anat/extra", "pet", "")
ABOVE = ("", "", "", "derivatives/x/", "sourcedata/", ".git/", "code/")
ENTITIES = (
    "acq-hi", "run-1", "run-01", "run-x", "ce-gd", "rec-norm", "part-mag", "part-phase",
    "part-real", "part-imag", "part-magnitude", "part-phased", "part-other", "echo-2",
    "desc-preproc", "foo-1", "space-T1w", "mod-T1w", "acq-a.b", "acq-", "acq-hi", "task-rest",
)  # fmt: skip
ENDINGS = (
    "T1w.nii.gz", "T1w.nii.gz", "T1w.nii", "FLAIR.nii.gz", "FLAIR.nii", "T1w.json", "T1W.nii.gz",
    "t1w.nii.gz", "T1w.NII.GZ", "T1w.nii.gz.bak", "T1w", "T1w_old.nii.gz", "T2w.nii.gz",
    "xT1w.nii.gz", "T1w.nii.gz~", "T1w..nii.gz", "UNIT1.nii.gz", "bold.nii.gz",
)  # fmt: skip
KINDS = ("file", "file", "file", "file", "folder", "broken link", "link to a file", "loop")
IGNORED = ("sub-02/", "*_run-1_*", "sub-*/ses-1/", "**/*FLAIR*", "!sub-01/**", "# nothing", "anat")
BESIDE = ("T1w.json", "participants.tsv", "sub-01/sub-01_T1w.json", "layout_config.json.bak")


@st.composite
def _files(draw: st.DrawFn) -> tuple[str, str]:
    """A path in a data set, mostly one that is nearly right, and what lies there."""
    subject = draw(st.sampled_from(SUBJECTS))
    session = draw(st.sampled_from(SESSIONS))
    folder = draw(st.sampled_from(FOLDERS))
    entities = draw(st.lists(st.sampled_from(ENTITIES), max_size=2))
    own = [subject, *([session.rpartition("/")[2]] if session else [])]
    if draw(st.integers(0, 9)) == 0:  # another's name, or none
        own = [*draw(st.sampled_from([["sub-02"], ["sub-01", "ses-2"], ["._sub-01"], []]))]
    name = "_".join([*own, *entities, draw(st.sampled_from(ENDINGS))])
    places = [part for part in (subject, session, folder) if part]
    return draw(st.sampled_from(ABOVE)) + "/".join([*places, name]), draw(st.sampled_from(KINDS))


def _make(root: Path, files: Sequence[tuple[str, str]], ignored: Sequence[str]) -> None:
    root.mkdir(parents=True)
    text = json.dumps({"Name": "x", "BIDSVersion": "1.10.0"})
    (root / "dataset_description.json").write_text(text, encoding="utf-8")
    (root / "sub-01").mkdir()
    if ignored:
        (root / ".bidsignore").write_text("\n".join(ignored), encoding="utf-8")
    for beside in BESIDE:
        (root / beside).write_text("{}", encoding="utf-8")
    for place, kind in files:
        path = root / place
        path.parent.mkdir(parents=True, exist_ok=True)
        if os.path.lexists(path):
            continue
        if kind == "folder":
            path.mkdir()
        elif kind == "file":
            path.touch()
        else:
            target = {"broken link": "nowhere/key", "loop": path.name}
            path.symlink_to(target.get(kind, root / "dataset_description.json"))


def _by_pybids(root: Path, *labels: str) -> list[Session]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(index, "_is_plain", lambda query: False)
        return find_sessions(root, participant_labels=labels)


_NUMBERS = itertools.count()


@settings(max_examples=20, deadline=None, derandomize=True,
          suppress_health_check=[HealthCheck.function_scoped_fixture])  # fmt: skip
@given(
    files=st.lists(_files(), min_size=10, max_size=40),
    ignored=st.lists(st.sampled_from(IGNORED), max_size=1),
)
def test_the_walk_finds_what_pybids_finds(
    tmp_path: Path, files: list[tuple[str, str]], ignored: list[str]
) -> None:
    root = tmp_path / str(next(_NUMBERS))
    _make(root, files, ignored)
    found = find_sessions(root)
    assert found == _by_pybids(root)
    if "01" in {one.subject for one in found}:
        assert find_sessions(root, participant_labels=["01"]) == _by_pybids(root, "01")


def test_linked_folders_are_walked_as_pybids_walks_them(tmp_path: Path) -> None:
    root, store = tmp_path / "raw", tmp_path / "store"
    good = [("sub-01/ses-1/anat/sub-01_ses-1_T1w.nii.gz", "file")]
    _make(store, good, [])
    _make(root, [("sub-02/anat/sub-02_T1w.nii", "file")], [])
    (root / "sub-01/ses-1").symlink_to(store / "sub-01/ses-1")
    (root / "sub-03").symlink_to(store / "nowhere")
    (root / "sub-02/ses-1").symlink_to(root / "sub-02")  # round and round, with another name
    found = find_sessions(root)
    assert [list(one.images) for one in found if one.images] == [["T1w"], ["T1w"]]
    assert found == _by_pybids(root)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may look into every folder")
def test_a_closed_folder_costs_its_own_images_alone(tmp_path: Path) -> None:
    root = tmp_path / "raw"
    files = [f"sub-{label}/anat/sub-{label}_T1w.nii" for label in ("01", "02")]
    _make(root, [(file, "file") for file in files], [])
    (root / "sub-01/anat").chmod(0)
    try:
        found = find_sessions(root)
        assert [list(one.images) for one in found] == [[], ["T1w"]]
        assert found == _by_pybids(root)
    finally:
        (root / "sub-01/anat").chmod(0o700)


@pytest.mark.parametrize(
    ("query", "plain"),
    [
        ({}, True),
        ({"session": "*", "subject": ["01"]}, True),
        ({"suffix": "UNIT1"}, True),
        ({"suffix": "*"}, False),
        ({"suffix": ["T1w", "UNIT1"]}, False),
        ({"run": 1}, False),
        ({"run": None}, False),
        ({"part": "phase"}, False),
        ({"datatype": "pet"}, False),
        ({"extension": ".nii"}, False),
    ],
)
def test_a_filter_of_more_than_names_is_asked_of_pybids(
    query: dict[str, object], plain: bool
) -> None:
    assert index._is_plain({"suffix": "T1w", **index.PLAIN, **query}) is plain


def test_a_data_set_below_a_folder_with_a_misleading_name_is_found(tmp_path: Path) -> None:
    root = tmp_path / "x_part-phase" / "sub-9" / "func"
    _make(root, [("sub-01/anat/sub-01_T1w.nii", "file")], [])
    assert "T1w" in find_sessions(root)[0].images

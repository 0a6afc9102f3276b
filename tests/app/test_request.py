"""What a run was asked for: the tasks of a session, and what is refused before any work."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from deepmrseg_bids.app import request as module
from deepmrseg_bids.app.request import Request, validate
from deepmrseg_bids.bids.query import Session
from deepmrseg_bids.config import RunConfig
from deepmrseg_bids.errors import UsageError
from deepmrseg_bids.imaging.grid import Grid
from tests.support import images_of

BUNDLES = dict.fromkeys(
    ("brain", "icv", "outline", "deepbrain", "hippocampus", "sides", "wholebrain", "wml")
)


def config(**changes):
    return RunConfig(Path("/d"), Path("/o"), "participant", **changes)


def tasks(session, bundles=BUNDLES, **changes):
    return Request(config(**changes), bundles).tasks(session)


@pytest.mark.parametrize(
    ("flair", "expected"),
    [
        (None, ("brain", "deepbrain", "hippocampus", "wholebrain")),
        (
            Path("/f.nii.gz"),
            ("brain", "deepbrain", "hippocampus", "wholebrain", "wml"),
        ),
    ],
)
def test_by_default_lesions_are_looked_for_where_there_is_a_flair(flair, expected):
    assert tasks(Session("01", None, images_of("/t.nii.gz", flair))) == expected


def test_by_default_a_task_without_a_model_is_left_out():
    session = Session("01", None, images_of("/t.nii.gz", "/f.nii.gz"))
    assert tasks(session, {"brain": None, "icv": None, "outline": None}) == ("brain",)


def test_what_is_asked_for_is_tried_so_that_its_absence_gets_a_reason():
    session = Session("01", None, images_of("/t.nii.gz"))
    assert tasks(session, {"brain": None}, tasks=("wml",)) == ("wml",)


def test_a_model_of_another_task_is_refused_before_any_work(monkeypatch):
    opened = SimpleNamespace(task="wml", path=Path("/m"))
    monkeypatch.setattr(module.ModelBundle, "open", lambda _: opened)
    with pytest.raises(UsageError, match="--model brain=/m: this model is for the task 'wml'"):
        validate(config(tasks=("brain",), models=(("brain", Path("/m")),)))


@pytest.fixture
def study(monkeypatch, tmp_path):
    """A configuration, and the options with which its sessions are looked up."""
    asked = {}
    sessions = [Session(f"{n:02}", None, images_of(f"/{n}")) for n in range(9)]

    def find_sessions(_, **options):
        asked.update(options)
        return sessions

    monkeypatch.setattr(module, "find_sessions", find_sessions)

    def make(**changes):
        return replace(
            config(tasks=("brain",), **changes), bids_dir=tmp_path / "raw", out_dir=tmp_path / "out"
        )

    return SimpleNamespace(config=make, sessions=sessions, asked=asked)


@pytest.mark.parametrize("text", ["{", "[]", '"t1w"'])
def test_a_filter_file_that_holds_no_object_is_refused(study, tmp_path, text):
    path = tmp_path / "filter.json"
    path.write_text(text)
    with pytest.raises(UsageError, match="--bids-filter-file"):
        validate(study.config(bids_filter_file=path))


def test_a_filter_file_is_read(study, tmp_path):
    path = tmp_path / "filter.json"
    path.write_text('{"t1w": {"acquisition": "mprage"}}')
    validate(study.config(bids_filter_file=path))
    assert study.asked["filters"] == {"t1w": {"acquisition": "mprage"}}
    validate(study.config())
    assert study.asked["filters"] is None


def test_the_shards_of_a_run_share_its_sessions_by_their_work(study, monkeypatch):
    large, *small = study.sessions

    def read(path, **_):
        edge = 400 if path == large.images["T1w"] else 200
        return Grid((edge,) * 3, np.diag([0.5, 0.5, 0.5, 1.0]))

    monkeypatch.setattr(module, "read_grid", read)
    first = validate(study.config(shard="1/2")).sessions
    second = validate(study.config(shard="2/2")).sessions
    assert first[0] == large and len(first) < len(second)
    assert sorted([*first, *second], key=study.sessions.index) == [large, *small]


def test_a_scan_that_cannot_be_read_has_no_grid(tmp_path):
    broken = tmp_path / "t.nii.gz"
    broken.write_bytes(b"")
    request = Request(config(), BUNDLES)
    assert request.grids(images_of(broken)) == {}
    assert request.grids({}) == {}


def test_a_plugin_file_limits_the_run(study, tmp_path):
    file = tmp_path / "plugin.yml"
    file.write_text("plugin: MultiProc\nplugin_args: {n_procs: 1, memory_gb: 2}")
    request = validate(study.config(use_plugin=file))
    assert (request.config.nprocs, request.config.mem, request.scheduler) == (1, 2048, None)
    file.write_text("plugin: SLURM")
    with pytest.raises(UsageError, match="--use-plugin"):  # no SLURM here, or no --work-dir
        validate(study.config(use_plugin=file))

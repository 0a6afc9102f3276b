"""The configuration of a run: what it refuses, its limits, and what it leaves on disk."""

import dataclasses
import sys
from pathlib import Path

import pytest

from deepmrseg_bids import config as module
from deepmrseg_bids.config import TASKS, RunConfig
from deepmrseg_bids.errors import UsageError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def make(**changes):
    return RunConfig(**{"bids_dir": Path("/d"), "out_dir": Path("/o"), "level": "participant"}
                     | changes)  # fmt: skip


@pytest.fixture
def cores(monkeypatch):
    """A machine with eight cores."""
    monkeypatch.setattr(module, "usable_cores", lambda: 8)
    return 8


@pytest.mark.parametrize("level", ["", "Participant", "session"])
def test_another_level_is_refused(level):
    with pytest.raises(UsageError, match="participant or group, got"):
        make(level=level)


def test_unknown_tasks_are_named_beside_the_known_ones():
    with pytest.raises(UsageError, match=r"\['tumour'\]; known are brain, deepbrain"):
        make(tasks=("brain", "tumour"))


def test_every_task_can_be_asked_for():
    assert make(tasks=TASKS).tasks == TASKS


def test_a_configuration_does_not_change():
    with pytest.raises(dataclasses.FrozenInstanceError):
        make().nprocs = 3


@pytest.mark.parametrize(("asked", "given"), [(0, 8), (1, 1), (5, 5), (8, 8), (64, 8)])
def test_a_run_never_takes_more_cores_than_there_are(cores, asked, given):
    assert make(nprocs=asked).nprocs == given


@pytest.mark.parametrize("nprocs", [0, 1, 3, 8, 100])
@pytest.mark.parametrize("threads", [0, 1, 2, 5, 100])
@pytest.mark.parametrize("sessions", [0, 1, 2, 3, 7, 8, 1000])
def test_threads_times_processes_stay_within_the_cores(cores, nprocs, threads, sessions):
    config = make(nprocs=nprocs, omp_nthreads=threads)
    each = config.threads(sessions)
    assert each >= 1
    at_once = min(max(1, sessions), config.nprocs // each)  # as nipype counts them
    assert at_once >= 1
    assert at_once * each <= config.nprocs <= cores


def test_one_session_gets_all_cores_and_many_sessions_one_each(cores):
    assert make().threads(1) == 8
    assert make().threads(3) == 2
    assert make().threads(50) == 1


def test_the_threads_asked_for_are_given(cores):
    assert make(omp_nthreads=3).threads(50) == 3


def test_what_is_saved_can_be_read_and_holds_every_field(tmp_path):
    config = make(
        participant_label=("01", 'a"b'),
        tasks=("brain", "wml"),
        models=(("brain", Path("/m/o d\\els")),),
        bids_filter_file=Path("/f.json"),
        work_dir=Path("/w é"),
        nprocs=1,
        omp_nthreads=1,
        reports=False,
        verbosity=-1,
    )
    config.save(tmp_path / "run.toml")
    tree = tomllib.loads((tmp_path / "run.toml").read_text(encoding="utf-8"))
    unset = {"bids_database_dir"}
    assert set(tree) == {field.name for field in dataclasses.fields(RunConfig)} - unset
    assert tree["bids_dir"] == "/d" and tree["out_dir"] == "/o"
    assert tree["participant_label"] == ["01", 'a"b']
    assert tree["session_label"] == []
    assert tree["tasks"] == ["brain", "wml"]
    assert tree["models"] == {"brain": "/m/o d\\els"}
    assert tree["bids_filter_file"] == "/f.json"
    assert tree["work_dir"] == "/w é"
    assert (tree["nprocs"], tree["omp_nthreads"], tree["verbosity"]) == (1, 1, -1)
    assert (tree["reports"], tree["tta"], tree["probabilities"]) == (False, False, False)
    assert tree["device"] == tree["precision"] == "auto"

"""The configuration of a run: what it refuses, its limits, and what it leaves on disk."""

import dataclasses
import tomllib
from pathlib import Path

import pytest

from deepmrseg_bids import config as module
from deepmrseg_bids.config import RunConfig, parse_size, read_config
from deepmrseg_bids.errors import UsageError
from deepmrseg_bids.tasks.registry import task_names


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


def test_a_model_of_another_name_is_a_task_that_can_be_asked_for():
    own = make(tasks=("tumour", "brain"), models=(("tumour", Path("/m")),))
    assert own.tasks == ("tumour", "brain")
    with pytest.raises(UsageError, match=r"\['x'\]; known are brain, .*, tumour$"):
        make(tasks=("x",), models=(("tumour", Path("/m")),))


def test_every_task_can_be_asked_for():
    assert make(tasks=task_names()).tasks == task_names()


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
        regions=Path("/r.tsv"),
        verbosity=-1,
    )
    config.save(tmp_path / "run.toml")
    tree = tomllib.loads((tmp_path / "run.toml").read_text(encoding="utf-8"))
    unset = {"bids_database_dir", "norms", "use_plugin"}
    assert set(tree) == {field.name for field in dataclasses.fields(RunConfig)} - unset
    assert tree["bids_dir"] == "/d" and tree["out_dir"] == "/o"
    assert tree["participant_label"] == ["01", 'a"b']
    assert tree["session_label"] == []
    assert tree["tasks"] == ["brain", "wml"]
    assert tree["models"] == {"brain": "/m/o d\\els"}
    assert (tree["bids_filter_file"], tree["regions"]) == ("/f.json", "/r.tsv")
    assert tree["work_dir"] == "/w é"
    assert (tree["nprocs"], tree["omp_nthreads"], tree["verbosity"]) == (1, 1, -1)
    assert (tree["reports"], tree["tta"], tree["probabilities"]) == (False, False, False)
    assert tree["device"] == tree["precision"] == "auto"


def test_what_is_saved_is_the_same_configuration_when_it_is_read(tmp_path):
    config = make(
        participant_label=("01", 'a"b'),
        tasks=("brain",),
        models=(("brain", Path("/m/o d\\els")),),
        bids_filter_file=Path("/f.json"),
        work_dir=Path("/w é"),
        nprocs=1,
        mem=4096,
        reports=False,
        verbosity=-1,
    )
    config.save(tmp_path / "run.toml")
    assert RunConfig(**read_config(tmp_path / "run.toml")) == config


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("nproc = 1", r"unknown key 'nproc' \(did you mean 'nprocs'\?\)"),
        ("zzz = 1\nyyy = 2", "unknown keys 'zzz', 'yyy'; known are bids_dir, out_dir"),
        ("nprocs = true", "nprocs: a whole number was expected, got True"),
        ("tta = 1", "tta: true or false was expected, got 1"),
        ('tasks = "brain"', "tasks: a list of strings was expected, got 'brain'"),
        ("tasks = [1]", "tasks: a list of strings was expected, got 1"),
        ("nprocs = 0", "nprocs: must be a whole number of at least 1, got 0"),
        ("nprocs = -2", "nprocs: must be a whole number of at least 1"),
        ("omp-nthreads = 0", "omp_nthreads: must be a whole number of at least 1"),
        ("mem = 0", "mem: must be a whole number of at least 1"),
        ("mem = 0.5", "mem: a whole number was expected"),
        ('mem = "0"', "mem: memory is a number in MB"),
        ("nprocs = nan", "nprocs: a whole number was expected"),
        ('models = { "my task" = "x" }', "models: the name of a task has letters and digits only"),
        ("models = []", "models: a table of folders by task was expected"),
        ("work_dir = 3", "work_dir: a path was expected, got 3"),
        ('mem = "much"', "mem: memory is a number in MB, .*'much'"),
        ("a = ", "cannot be read as TOML"),
    ],
)
def test_a_file_with_a_mistake_is_refused_with_its_place(tmp_path, text, expected):
    (tmp_path / "run.toml").write_text(text)
    with pytest.raises(UsageError, match=f"--config-file {tmp_path}/run.toml: {expected}"):
        read_config(tmp_path / "run.toml")


def test_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(UsageError, match="cannot be read as TOML"):
        read_config(tmp_path / "none.toml")


@pytest.mark.parametrize(
    ("text", "mib"),
    [("512", 512), ("2048K", 2), ("8G", 8192), ("8GB", 8192), ("8gib", 8192), ("1T", 2**20),
     ("0.5G", 512), (" 700 M ", 700)],
)  # fmt: skip
def test_sizes_of_memory_are_mb_or_have_a_unit(text, mib):
    assert parse_size(text) == mib


@pytest.mark.parametrize("text", ["", "G", "0", "-1", "1P", "8 G B", "1e3", "10K", "nan"])
def test_what_is_no_size_of_memory_is_refused(text):
    with pytest.raises(UsageError, match="memory is a number in MB") as caught:
        parse_size(text)
    assert repr(text) in str(caught.value)


def test_pages_cannot_be_all_and_nothing():
    with pytest.raises(UsageError, match="cannot be combined"):
        make(reports_only=True, reports=False)


@pytest.mark.parametrize("text", ["3", "0/4", "5/4", "1/0", "-1/2", "1/2/3", "a/b", "1 / 2", "¹/2"])
def test_a_shard_that_means_nothing_is_refused(text):
    with pytest.raises(UsageError, match=r"K/N with K from 1 to N"):
        make(shard=text)


def test_a_shard_is_one_of_its_number():
    assert module.parse_shard("1/1") == (1, 1)
    assert module.parse_shard("12/340") == (12, 340)
    assert make(shard="3/3").shard == "3/3"

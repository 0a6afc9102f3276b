"""The file of ``--use-plugin``: what is understood, and what is refused before any work."""

from pathlib import Path

import pytest

from deepmrseg_bids.app.participant import run_participant
from deepmrseg_bids.config import RunConfig
from deepmrseg_bids.errors import UsageError
from deepmrseg_bids.execution import plugin_file
from deepmrseg_bids.execution.plugin_file import Plugin, read_plugin

SLURM = Plugin("SLURM")


def check(plugin=SLURM, **changes):
    asked = {"work_dir": Path("/w"), "device": "auto", "precision": "auto"}
    plugin.check(**(asked | changes))


@pytest.fixture
def write(tmp_path):
    def make(text):
        path = tmp_path / "plugin.yml"
        path.write_text(text)
        return path

    return make


def test_a_file_as_in_niprep_apps_is_read(write):
    text = "plugin: SLURM\nplugin_args:\n  sbatch_args: --time=60 --mem=4G\n  max_jobs: 40\n"
    assert read_plugin(write(text)) == Plugin(
        "SLURM", {"sbatch_args": "--time=60 --mem=4G", "max_jobs": 40}
    )
    assert read_plugin(write("plugin: Linear\nplugin_args:\n")) == Plugin("Linear")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plugin: [", "cannot be read as YAML"),
        ("!!python/object/apply:os.system ['true']", "cannot be read as YAML"),
        ("", "{plugin: NAME"),
        ("- SLURM", "{plugin: NAME"),
        ("plugin_args: {}", "{plugin: NAME"),
        ("plugin: SLURM\nargs: {}", "{plugin: NAME"),
        ("plugin: SLURMGraph", "does not wait for its jobs; use SLURM"),
        ("plugin: slurm", "known are Linear, MultiProc, SLURM; for other schedulers use --shard"),
        ("plugin: PBS", "for other schedulers use --shard"),
        ("plugin: [SLURM]", "unknown plugin"),
        ("plugin: SLURM\nplugin_args: [1]", "plugin_args is a mapping"),
        ("plugin: SLURM\nplugin_args: {qsub_args: x}", "SLURM takes no 'qsub_args'"),
        ("plugin: SLURM\nplugin_args: {sbatch_args: 3}", "sbatch_args is a string, got 3"),
        ('plugin: SLURM\nplugin_args: {sbatch_args: "--comment=\'x"}', "quotes"),
        ("plugin: SLURM\nplugin_args: {max_jobs: 0}", "max_jobs is a number above 0, got 0"),
        ("plugin: MultiProc\nplugin_args: {n_procs: true}", "n_procs is a number above 0"),
        ("plugin: MultiProc\nplugin_args: {n_procs: 0}", "n_procs is a number above 0"),
        ("plugin: MultiProc\nplugin_args: {memory_gb: .nan}", "memory_gb is a number above 0"),
        ("plugin: MultiProc\nplugin_args: {memory_gb: .inf}", "memory_gb is a number above 0"),
    ],
)
def test_a_bad_file_is_wrong_usage_that_names_it(write, text, expected):
    path = write(text)
    with pytest.raises(UsageError, match=f"--use-plugin {path}: ") as raised:
        read_plugin(path)
    assert expected in str(raised.value)


def test_a_file_that_is_not_there_ends_a_run_before_any_work(tmp_path):
    asked = RunConfig(tmp_path, tmp_path / "out", "participant", use_plugin=tmp_path / "none.yml")
    with pytest.raises(UsageError, match=r"none.yml: cannot be read as YAML \(.*No such file"):
        run_participant(asked, command="")
    assert not (tmp_path / "out").exists()


def test_plugins_of_this_machine_limit_cores_and_memory():
    many = Plugin("MultiProc", {"n_procs": 4, "memory_gb": 6})
    assert many.limits(8, 0) == (4, 6144)
    assert many.limits(2, 1000) == (2, 1000)
    assert Plugin("MultiProc").limits(8, 5) == (8, 5)
    assert Plugin("Linear").limits(8, 0) == (1, 0)
    assert not many.is_scheduler


def test_the_jobs_of_a_cluster_are_not_limited_by_this_machine():
    assert Plugin("SLURM", {"max_jobs": 2}).limits(8, 5) == (8, 5)


def test_plugins_of_this_machine_need_no_commands_and_no_folder(monkeypatch):
    monkeypatch.setattr(plugin_file.shutil, "which", lambda name: None)
    for name in ("Linear", "MultiProc"):
        check(Plugin(name), device="cuda")


@pytest.fixture
def commands(monkeypatch):
    """A machine with SLURM's commands."""
    monkeypatch.setattr(plugin_file.shutil, "which", lambda name: f"/bin/{name}")


def test_a_machine_that_cannot_submit_is_told_so(monkeypatch):
    monkeypatch.setattr(plugin_file.shutil, "which", lambda name: None)
    with pytest.raises(UsageError, match="sbatch is not on PATH here"):
        check()


def test_jobs_need_a_work_folder_that_they_see(commands):
    with pytest.raises(UsageError, match="needs --work-dir"):
        check(work_dir=None)


@pytest.mark.parametrize("name", ["it's", "a\\b", "a\nb"])
def test_a_work_folder_that_a_job_cannot_name_is_refused(commands, name):
    with pytest.raises(UsageError, match="must not contain quotes"):
        check(work_dir=Path("/w") / name)


def test_a_gpu_of_a_node_needs_a_precision_since_nobody_can_look_at_it_here(commands):
    with pytest.raises(UsageError, match="--device cuda with SLURM needs --precision"):
        check(device="cuda")
    check(device="cuda", precision="bfloat16")


def test_a_work_folder_may_hold_spaces_and_accents(commands):
    check(work_dir=Path("/w é x"))

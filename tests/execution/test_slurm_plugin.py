"""What is said of jobs on a cluster; the scheduler here is a few lines of shell.

``tests/integration/test_slurm.py`` has the real one.
"""

import os
from types import SimpleNamespace

import networkx
import numpy as np
import pytest

from deepmrseg_bids.execution.runner import prepare_nipype


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    """The module, with nipype's settings in a temporary folder."""
    for name in ("NO_ET", "NIPYPE_NO_ET", "NIPYPE_CONFIG_DIR"):
        monkeypatch.setenv(name, "")  # so that what is set now is undone
    prepare_nipype(tmp_path)
    from deepmrseg_bids.execution import slurm_plugin

    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return slurm_plugin


@pytest.fixture
def command(tmp_path):
    """Make a command of SLURM that does what a script says, and counts its calls."""

    def make(name, script):
        path = tmp_path / name
        path.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/{name}.calls\n{script}\n')
        path.chmod(0o755)
        return lambda: (tmp_path / f"{name}.calls").read_text().splitlines()

    return make


@pytest.mark.parametrize(
    "answer", ["Submitted batch job 12", "12", "12;cluster", "sbatch: lua: hello\n12"]
)
def test_a_submitted_job_has_the_number_that_the_scheduler_gave(cluster, command, answer):
    command("sbatch", f'printf "{answer}\\n"')
    assert cluster.submit(["a b", "$HOME"]) == 12


def test_no_shell_reads_what_is_submitted(cluster, command):
    calls = command("sbatch", "echo 1")
    cluster.submit(["--comment=$(touch x); `id`", "a  b"])
    assert calls() == ["--comment=$(touch x); `id` a  b"]


def test_a_refusal_is_told_in_the_schedulers_words(cluster, command):
    command("sbatch", 'echo "sbatch: error: no such account" >&2; exit 1')
    with pytest.raises(cluster.SubmitError, match=r"^no such account$"):
        cluster.submit(["x"])


def test_a_scheduler_that_says_no_number_has_not_taken_the_job(cluster, command):
    command("sbatch", "echo welcome")
    with pytest.raises(cluster.SubmitError, match="welcome"):
        cluster.submit(["x"])


def test_a_busy_controller_is_asked_again_and_a_refusal_is_not(cluster, command):
    calls = command("sbatch", 'echo "sbatch: error: Socket timed out" >&2; exit 1')
    with pytest.raises(cluster.SubmitError, match="Socket timed out"):
        cluster.submit(["x"], tries=3, pause=0)
    assert len(calls()) == 3
    calls = command("sbatch", 'echo "sbatch: error: invalid qos" >&2; exit 1')
    with pytest.raises(cluster.SubmitError):
        cluster.submit(["x"], tries=3, pause=0)
    assert len(calls()) == 4


def test_one_question_is_asked_for_all_jobs_and_not_too_often(cluster, command):
    calls = command("squeue", 'echo "1|RUNNING|None"; echo "2|TIMEOUT|TimeLimit"')
    queue = cluster.Queue()
    for _ in range(20):
        states = queue.look([2, 1, 3])
    assert len(calls()) == 1 and calls()[0].endswith("-j 1,2,3")
    assert not states[1].over
    assert states[2] == ("TIMEOUT", "TimeLimit") and states[2].over
    assert states[3].state == "GONE" and states[3].over


def test_a_new_job_is_awaited_until_the_scheduler_was_asked_about_it(cluster, command):
    command("squeue", 'echo "1|RUNNING|None"')
    queue = cluster.Queue()
    queue.look([1])
    assert 2 not in queue.look([1, 2])


def test_jobs_that_the_scheduler_has_forgotten_are_gone(cluster, command):
    command("squeue", 'echo "slurm_load_jobs error: Invalid job id specified" >&2; exit 1')
    assert cluster.Queue().look([7])[7].state == "GONE"


def test_while_the_controller_is_away_nothing_is_concluded(cluster, command, caplog):
    command("squeue", 'echo "1|RUNNING|None"')
    queue = cluster.Queue()
    queue.look([1])
    command("squeue", 'echo "squeue: error: Unable to contact slurm controller" >&2; exit 1')
    for _ in range(3):
        queue._asked = -100.0
        assert queue.look([1])[1].state == "RUNNING"
    assert len(caplog.messages) == 1 and "Unable to contact" in caplog.text


@pytest.mark.parametrize(
    ("state", "log", "signal", "expected"),
    [
        ("OUT_OF_MEMORY", "", 0, "killed because of memory: request more with --mem"),
        ("FAILED", "slurmstepd: error: Detected 1 oom_kill event", 9, "killed because of memory"),
        ("FAILED", "slurmstepd: error: Exceeded job memory limit", 9, "killed because of memory"),
        ("CANCELLED", "memory limit", 0, "was cancelled"),
        ("TIMEOUT", "", 0, "exceeded its time limit: request more with --time"),
        ("NODE_FAIL", "", 0, "failed because of its node; run again"),
        ("FAILED", "", 9, "was killed by signal 9"),
        ("FAILED", "line\npython: not found\n", 0, "ended as FAILED: python: not found"),
        ("REVOKED", "", 0, "ended as REVOKED"),
        ("COMPLETED", "", 0, "the work folder and OUT_DIR must be shared by all nodes"),
    ],
)
def test_each_end_without_a_result_says_what_to_do(cluster, state, log, signal, expected):
    assert expected in cluster.ending(state, log, signal)


class Inputs(SimpleNamespace):
    def copyable_trait_names(self):
        return list(vars(self))


def session(name, mem_gb=1.5, n_procs=2):
    return SimpleNamespace(
        inputs=Inputs(job=SimpleNamespace(name=name)), mem_gb=mem_gb, n_procs=n_procs, fullname=name
    )


@pytest.fixture
def plugin(cluster, tmp_path):
    """A plugin and what it tells."""
    told = []

    def make(**arguments):
        made = cluster.SlurmSessionsPlugin(
            arguments, tmp_path / "50 %j", lambda node, reason: told.append((node.fullname, reason))
        )
        made.told = told
        return made

    return make


def test_a_job_asks_for_what_its_session_needs(plugin):
    asked = plugin()._arguments(session("sub-1"))
    assert asked[:6] == ["--job-name", "sub-1", "--mem", "2304M", "--cpus-per-task", "2"]


@pytest.mark.parametrize(
    ("arguments", "absent"),
    [
        ({"sbatch_args": "--mem-per-cpu=4G"}, "--mem"),
        ({"template": "#!/bin/bash\n#SBATCH --mem 4G"}, "--mem"),
        ({"sbatch_args": "-c 3"}, "--cpus-per-task"),
        ({"sbatch_args": "--cpus-per-task=3"}, "--cpus-per-task"),
    ],
)
def test_what_the_user_asks_for_is_left_alone(plugin, arguments, absent):
    assert absent not in plugin(**arguments)._arguments(session("sub-1"))


def test_an_option_that_only_looks_like_a_log_path_is_none(plugin, tmp_path):
    asked = plugin(sbatch_args="--exclusive --comment='two words'")._arguments(session("sub-1"))
    assert asked[6:8] == ["--exclusive", "--comment=two words"]
    assert asked[asked.index("--output") + 1] == f"{tmp_path}/50 %%j/job-sub-1-%j.log"
    assert asked[asked.index("--error") + 1] == f"{tmp_path}/50 %%j/job-sub-1-%j.log"


def test_the_reasons_of_failed_sessions_are_told_once_and_other_nodes_run_here(plugin):
    made = plugin()
    made._failed(session("sub-1"), "job 3 was cancelled")
    made._tell(session("sub-1"), "exception")
    made._tell(session("sub-2"), "start")
    made._tell(session("sub-2"), "end")
    made._failed(session("sub-3"), "")  # never begun: nothing is said of it
    made._tell(session("sub-3"), "exception")
    assert made.told == [("sub-1", "job 3 was cancelled"), ("sub-2", "")]


@pytest.mark.parametrize(
    ("reason", "said"),
    [("Priority", False), ("Resources", False), ("QOSMaxJobsPerUserLimit", False),
     ("JobHeldUser", True), ("PartitionTimeLimit", True)],
)  # fmt: skip
def test_a_job_that_may_wait_for_ever_is_told_once(cluster, plugin, caplog, reason, said):
    made = plugin()
    job = SimpleNamespace(number=4, session="sub-1")
    for _ in range(3):
        made._say_why_it_waits(job, cluster.JobState("PENDING", reason))
    assert len(caplog.messages) == said


def test_once_a_session_has_failed_waiting_jobs_are_taken_back(cluster, plugin, command):
    calls = command("scancel", "")
    made = plugin()
    made._stop = lambda: True
    made._jobs = {5: None, 6: None}
    made.proc_done = np.zeros(3, dtype=bool)
    for _ in range(2):
        made._send_procs_to_workers(graph=networkx.DiGraph())
    assert made.proc_done.all()
    assert len(calls()) == 1 and set(calls()[0].split()) == {"--state=PENDING", "5", "6"}

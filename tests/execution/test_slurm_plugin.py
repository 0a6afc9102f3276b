"""What is said of jobs on a cluster; the scheduler here is a few lines of shell.

``tests/integration/test_slurm.py`` has the real one.
"""

import os
import shlex
import sys
from contextlib import closing
from types import SimpleNamespace

import networkx
import pytest

from tests.execution.fake_nodes import Node, SessionNode


@pytest.fixture
def cluster(nipype, tmp_path, monkeypatch):
    """The module, with nipype's settings in a temporary folder."""
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


@pytest.fixture
def plugin(cluster, command, tmp_path, monkeypatch):
    """Make a plugin that needs no time, for a scheduler with these answers (shell)."""
    monkeypatch.setattr(cluster, "_POLL", 0.0)
    monkeypatch.setattr(cluster, "_SHORTEST", 0.0)
    monkeypatch.setattr(cluster, "create_pyscript", lambda node: str(tmp_path / "job.py"))
    (tmp_path / "50 %j").mkdir()

    def make(squeue="", sbatch="", **arguments):
        number = f'n=$(wc -l < {tmp_path}/sbatch.calls); echo "$n"'  # its calls so far
        calls = SimpleNamespace(
            sbatch=command("sbatch", sbatch or number),
            squeue=command("squeue", squeue or 'for n in 1 2 3; do echo "$n|COMPLETED|None"; done'),
            scancel=command("scancel", ""),
            scontrol=command("scontrol", 'echo " ExitCode=0:0"'),
        )
        return cluster.SlurmPlugin(arguments, tmp_path / "50 %j"), calls

    return make


@pytest.fixture
def session(tmp_path):
    """The node of a session; what its job leaves is there from the start, if it ends well."""

    def make(index, *, well=True, **more):
        node = SessionNode(index, [], tmp_path, mem_gb=1.5, n_procs=2, **more)
        if well:
            node.finish()
        return node

    return make


def graph_of(*nodes, edges=()):
    graph = networkx.DiGraph()
    graph.add_nodes_from(nodes)
    graph.add_edges_from(edges)
    return graph


def reasons(results):
    return {result.session or result.name: result.reason for result in results}


def test_a_job_asks_for_what_its_session_needs(plugin, session):
    slurm, calls = plugin()
    assert reasons(slurm.run(graph_of(session(1)))) == {"sub-1": ""}
    assert calls.sbatch()[0].startswith("--job-name sub-1 --mem 2304M --cpus-per-task 2 --output")


@pytest.mark.parametrize(
    ("arguments", "absent"),
    [
        ({"sbatch_args": "--mem-per-cpu=4G"}, "--mem "),
        ({"template": "#!/bin/bash\n#SBATCH --mem 4G"}, "--mem "),
        ({"sbatch_args": "-c 3"}, "--cpus-per-task "),
        ({"sbatch_args": "--cpus-per-task=3"}, "--cpus-per-task "),
    ],
)
def test_what_the_user_asks_for_is_left_alone(plugin, session, arguments, absent):
    slurm, calls = plugin(**arguments)
    list(slurm.run(graph_of(session(1))))
    assert absent not in calls.sbatch()[0]
    assert arguments.get("sbatch_args", "") in calls.sbatch()[0]


@pytest.mark.parametrize("as_file", [True, False])
def test_a_template_may_be_a_text_or_a_file_and_comes_before_the_command(
    plugin, session, tmp_path, as_file
):
    text = "#!/bin/sh\n#SBATCH --qos high\n"
    (tmp_path / "template.sh").write_text(text)
    slurm, _ = plugin(template=str(tmp_path / "template.sh") if as_file else text)
    list(slurm.run(graph_of(session(1))))
    script = (tmp_path / "job.sh").read_text()
    assert script == f"{text}{shlex.join([sys.executable, str(tmp_path / 'job.py')])}\n"


def test_an_option_that_only_looks_like_a_log_path_is_none(plugin, session, tmp_path):
    slurm, calls = plugin(sbatch_args="--exclusive --comment='two words'")
    list(slurm.run(graph_of(session(1))))
    log = f"{tmp_path}/50 %%j/job-sub-1-%j.log"
    assert f"--exclusive --comment=two words --output {log} --error {log}" in calls.sbatch()[0]


def test_the_reason_of_a_failed_session_is_told_once_and_what_needs_it_is_left_out(plugin, session):
    slurm, _ = plugin(squeue='echo "1|CANCELLED|None"; echo "2|COMPLETED|None"')
    done = []
    first, second = session(1, well=False), session(2)
    pages = Node(3, done), Node(4, done)
    graph = graph_of(first, second, *pages, edges=[(first, pages[0]), (second, pages[1])])
    told = list(slurm.run(graph))
    assert reasons(told) == {
        "sub-1": "job 1 was cancelled; run again", "sub-2": "", "node_4": "",
    }  # fmt: skip
    assert len(told) == 3
    assert done == [4]


def test_a_page_that_fails_costs_itself_alone(plugin, nipype):
    slurm, _ = plugin()
    nodes = Node(1, [], fails=True), Node(2, [])
    assert reasons(slurm.run(graph_of(*nodes))) == {
        "node_1": "unexpected ValueError: no", "node_2": "",
    }  # fmt: skip
    assert len(nipype) == 1


def test_the_log_of_a_failed_job_is_named_and_that_of_a_good_one_removed(plugin, session, tmp_path):
    slurm, _ = plugin(squeue='echo "1|TIMEOUT|None"; echo "2|COMPLETED|None"')
    logs = [tmp_path / "50 %j" / f"job-sub-{number}-{number}.log" for number in (1, 2)]
    for log in logs:
        log.write_text("slurmstepd: hello\n")
    told = reasons(slurm.run(graph_of(session(1, well=False), session(2))))
    assert told["sub-1"].startswith("job 1 exceeded its time limit")
    assert told["sub-1"].endswith("; see logs/job-sub-1-1.log")
    assert [log.exists() for log in logs] == [True, False]


def test_a_refused_job_is_a_failed_session_and_the_others_go_on(plugin, session, tmp_path):
    refuse = (
        'case "$*" in *sub-1*) echo "sbatch: error: no such account" >&2; exit 1;; esac; echo 2'
    )
    slurm, _ = plugin(sbatch=refuse)
    told = reasons(slurm.run(graph_of(session(1, well=False), session(2))))
    assert told == {"sub-1": "the scheduler rejected the job: no such account", "sub-2": ""}


def test_no_more_jobs_are_submitted_at_once_than_the_user_allows(plugin, session):
    slurm, calls = plugin(max_jobs=2)
    waiting = slurm.run(graph_of(*map(session, (1, 2, 3))))
    next(waiting)
    assert len(calls.sbatch()) == 2
    assert len(list(waiting)) == 2 and len(calls.sbatch()) == 3


@pytest.mark.parametrize(
    ("reason", "said"),
    [("Priority", False), ("Resources", False), ("QOSMaxJobsPerUserLimit", False),
     ("JobHeldUser", True), ("PartitionTimeLimit", True)],
)  # fmt: skip
def test_a_job_that_may_wait_for_ever_is_told_once(plugin, session, tmp_path, caplog, reason, said):
    waits = f'test $(wc -l < {tmp_path}/squeue.calls) -gt 3 || state="PENDING|{reason}"'
    slurm, calls = plugin(squeue=f'state="COMPLETED|None"; {waits}; echo "1|$state"')
    assert reasons(slurm.run(graph_of(session(1)))) == {"sub-1": ""}
    assert len(calls.squeue()) == 4
    assert len([text for text in caplog.messages if f"waits ({reason})" in text]) == said


def test_once_a_session_has_failed_waiting_jobs_are_taken_back_and_not_told(
    plugin, session, tmp_path
):
    cancelled = f'test -e {tmp_path}/scancel.calls && state="CANCELLED|None"'
    slurm, calls = plugin(
        squeue=f'echo "1|FAILED|None"; state="PENDING|Priority"; {cancelled}\n'
               'echo "2|$state"; echo "3|$state"',
        max_jobs=3,
    )  # fmt: skip
    told = []
    for result in slurm.run(graph_of(*(session(number, well=False) for number in range(1, 6)))):
        told.append(result.session)
        slurm.stopped = True
    assert told == ["sub-1"]
    assert len(calls.sbatch()) == 3
    assert len(calls.scancel()) == 1
    assert set(calls.scancel()[0].split()) == {"--state=PENDING", "2", "3"}


def test_a_run_that_is_left_early_takes_its_jobs_back(plugin, session, caplog):
    slurm, calls = plugin(squeue='echo "1|COMPLETED|None"; echo "2|RUNNING|None"')
    with closing(slurm.run(graph_of(session(1), session(2, well=False)))) as results:
        assert next(results).session == "sub-1"
    assert calls.scancel() == ["2"]

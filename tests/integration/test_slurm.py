"""Runs on a real SLURM: shards from a job array, and one job a session through the plugin."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.integration.conftest import Finished, add_scan, make_dataset, read_tsv
from tests.integration.slurm import Slurm, running_node
from tests.support import need
from tests.tiny import tiny_head

pytestmark = pytest.mark.slurm

ARRAY = Path(__file__).parents[2] / "singularity" / "slurm_array.sbatch"
COMMAND = f"{sys.executable} -m deepmrseg_bids.cli.deepmrseg_bids"
SHARDS = 3


@pytest.fixture(scope="module")
def slurm() -> Iterator[Slurm]:
    need("slurmctld", "slurmd", "sbatch", "munged", package="slurm-wlm and munge")
    folder = Path(tempfile.mkdtemp(prefix="slurm-", dir="/tmp"))
    try:
        with running_node(folder) as node:
            yield node
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three people with a small head each, one of them seen twice."""
    root = make_dataset(tmp_path_factory.mktemp("slurm") / "bids")
    names = ("sub-01_ses-1", "sub-01_ses-2", "sub-02_ses-1", "sub-03_ses-1")
    for seed, name in enumerate(names):
        add_scan(root, f"{name}_T1w", tiny_head(seed))
    return root


@pytest.fixture(scope="module")
def task(tiny_model: Path) -> tuple[str, ...]:
    """The options for what is asked of every session, which takes no time."""
    return ("--tasks", "brain", "--model", f"brain={tiny_model}")


def app(slurm: Slurm, *arguments: object, home: Path) -> subprocess.Popen[str]:
    """Start the real command where it can submit jobs."""
    home.mkdir(exist_ok=True)
    return subprocess.Popen(
        [*COMMAND.split(), *map(str, arguments)],
        env={**slurm.environment, "HOME": str(home)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def end(process: subprocess.Popen[str], home: Path) -> Finished:
    output, _ = process.communicate(timeout=600)
    return Finished(process.returncode, output, home)


def results(out: Path) -> Mapping[str, bytes]:
    """The derivatives of all sessions, and the tables of the group."""
    paths = [*out.glob("sub-*/**/*"), *out.glob("group_*"), *out.glob("*.tsv")]
    return {str(path.relative_to(out)): path.read_bytes() for path in paths if path.is_file()}


def statuses(out: Path) -> dict[str, str]:
    rows = read_tsv(out / "logs" / "sessions.tsv")
    return {f"{row['participant_id']}_{row['session_id']}": row["status"] for row in rows}


def reason(out: Path, subject: str) -> str:
    rows = read_tsv(out / "logs" / "sessions.tsv")
    return next(row["reason"] for row in rows if row["participant_id"] == subject)


# Shards from a job array


def submit_array(slurm: Slurm, raw: Path, out: Path, task: tuple[str, ...]) -> None:
    """As the head of slurm_array.sbatch says: the array, and the group level after it."""
    variables = {"BIDS_DIR": str(raw), "OUT_DIR": str(out), "DEEPMRSEG_COMMAND": COMMAND}
    log = f"--output={out.parent}/%A_%a.log"
    array = slurm("sbatch", "--parsable", f"--array=1-{SHARDS}", log, ARRAY, *task, **variables)
    slurm("sbatch", f"--dependency=afterany:{array}", log, ARRAY, *task, **variables)


@dataclass(frozen=True)
class Sharded:
    """An array that has ended, and the same run without shards."""

    out: Path
    whole: Path


@pytest.fixture(scope="module")
def sharded(
    slurm: Slurm, raw: Path, task: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory
) -> Sharded:
    """The array, and beside it an unsharded run with the group level."""
    folder = tmp_path_factory.mktemp("sharded")
    out, whole = folder / "with space" / "out", folder / "whole"
    out.parent.mkdir()
    submit_array(slurm, raw, out, task)
    for level in ("participant", "group"):
        ended = end(
            app(slurm, raw, whole, level, *task, "--nprocs", 1, home=folder / "h"), folder / "h"
        )
        assert ended.code == 0, ended.output
    slurm.wait(0)
    logs = "\n".join(path.read_text() for path in out.parent.glob("*.log"))
    assert set(slurm.jobs(layout="%T")) == {"COMPLETED"}, logs
    return Sharded(out, whole)


def test_an_array_of_shards_and_its_group_job_make_the_bytes_of_an_unsharded_run(
    sharded: Sharded,
) -> None:
    found, expected = results(sharded.out), results(sharded.whole)
    assert found.keys() == expected.keys()
    assert [name for name in found if found[name] != expected[name]] == []
    assert "group_seg-brain_morph.tsv" in found


def test_the_log_of_sessions_holds_those_of_all_shards(sharded: Sharded) -> None:
    assert statuses(sharded.out) == dict.fromkeys(
        ("sub-01_ses-1", "sub-01_ses-2", "sub-02_ses-1", "sub-03_ses-1"), "done"
    )


def test_the_page_of_a_subject_shows_all_sessions_since_one_shard_did_them(
    sharded: Sharded,
) -> None:
    page = (sharded.out / "sub-01.html").read_text()
    assert "ses-1" in page and "ses-2" in page


def test_an_array_that_is_submitted_again_does_nothing_again(
    slurm: Slurm, raw: Path, task: tuple[str, ...], sharded: Sharded
) -> None:
    paths = [path for path in sharded.out.glob("sub-*/**/*") if path.is_file()]
    before = {path: path.stat().st_mtime_ns for path in paths}
    submit_array(slurm, raw, sharded.out, task)
    slurm.wait(0)
    assert set(slurm.jobs(layout="%T")) == {"COMPLETED"}
    assert {path: path.stat().st_mtime_ns for path in paths} == before
    assert set(statuses(sharded.out).values()) == {"resumed"}


# One job a session


@dataclass(frozen=True)
class Plugin:
    """Runs of two people into one OUT_DIR, one job a session."""

    slurm: Slurm
    raw: Path
    task: tuple[str, ...]
    folder: Path

    @property
    def out(self) -> Path:
        return self.folder / "out"

    def start(self, sbatch_args: str) -> subprocess.Popen[str]:
        file = self.folder / "plugin.yml"
        file.write_text(f'plugin: SLURM\nplugin_args: {{sbatch_args: "{sbatch_args}"}}\n')
        return app(self.slurm, self.raw, self.out, "participant", "--participant-label", "02", "03",
                   *self.task, "--work-dir", self.folder / "work folder",
                   "--use-plugin", file, home=self.folder / "h")  # fmt: skip

    def run(self, sbatch_args: str) -> Finished:
        return end(self.start(sbatch_args), self.folder / "h")


@pytest.fixture(scope="module")
def plugin(
    slurm: Slurm, raw: Path, task: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory
) -> Plugin:
    return Plugin(slurm, raw, task, tmp_path_factory.mktemp("plugin"))


@pytest.fixture(scope="module")
def cancelled(plugin: Plugin) -> Finished:
    """Both jobs are held; the user lets one go and cancels the other."""
    slurm = plugin.slurm
    process = plugin.start("--hold")
    slurm.wait(2, states="PENDING")
    until = time.monotonic() + 600
    while sum(path.read_text().count("waits (") for path in plugin.out.glob("logs/run-*.log")) < 2:
        assert time.monotonic() < until, "the run does not say that its jobs wait"
        time.sleep(0.2)
    waiting = slurm("squeue", "-h", "-t", "PENDING", "-o", "%j %A").splitlines()
    jobs = dict(line.split() for line in waiting)
    slurm("scancel", jobs["sub-02_ses-1"])
    slurm("scontrol", "release", jobs["sub-03_ses-1"])
    return end(process, plugin.folder / "h")


def test_a_cancelled_job_costs_its_own_session_only(plugin: Plugin, cancelled: Finished) -> None:
    assert cancelled.code == 3, cancelled.output
    assert statuses(plugin.out) == {"sub-02_ses-1": "failed", "sub-03_ses-1": "done"}
    assert re.fullmatch(r"job \d+ was cancelled; run again.*", reason(plugin.out, "sub-02"))


def test_the_page_of_a_cancelled_session_says_so(plugin: Plugin, cancelled: Finished) -> None:
    assert "was cancelled; run again" in (plugin.out / "sub-02.html").read_text()


def test_a_job_that_may_never_start_is_told(cancelled: Finished) -> None:
    assert re.search(r"sub-02_ses-1: job \d+ waits \(JobHeldUser\)", cancelled.output)


@pytest.fixture(scope="module")
def out_of_memory(plugin: Plugin, cancelled: Finished) -> Finished:
    return plugin.run("--mem=120M")


def test_a_job_killed_for_memory_is_a_failed_session_that_says_so(
    plugin: Plugin, out_of_memory: Finished
) -> None:
    assert out_of_memory.code == 3, out_of_memory.output
    assert statuses(plugin.out) == {"sub-02_ses-1": "failed", "sub-03_ses-1": "resumed"}
    found = reason(plugin.out, "sub-02")
    assert re.match(r"job \d+ was killed because of memory: request more with --mem", found)
    log = re.search(r"see logs/(\S+)", found)
    assert log and "memory limit" in (plugin.out / "logs" / log[1]).read_text()


@pytest.fixture(scope="module")
def refused(plugin: Plugin, out_of_memory: Finished) -> Finished:
    return plugin.run("--partition=nowhere")


def test_a_refused_job_is_one_line_in_the_schedulers_words(
    plugin: Plugin, refused: Finished
) -> None:
    assert refused.code == 3, refused.output
    lines = [
        line for line in refused.output.splitlines() if "rejected" in line and "WARNING" in line
    ]
    assert len(lines) == 1
    assert "sub-02" in lines[0] and "invalid partition specified: nowhere" in lines[0]
    assert "Traceback" not in refused.output


def test_the_next_run_does_what_failed_and_makes_the_same_bytes(
    plugin: Plugin, refused: Finished, sharded: Sharded
) -> None:
    ended = plugin.run("--time=5 --exclusive")
    assert ended.code == 0, ended.output
    assert statuses(plugin.out)["sub-02_ses-1"] == "done"
    assert not list((plugin.out / "logs").glob("crash-*"))
    whole = results(sharded.whole)
    for name, content in results(plugin.out).items():
        assert content == whole[name], name


def test_an_interrupted_run_takes_its_jobs_back(
    slurm: Slurm, raw: Path, task: tuple[str, ...], tmp_path: Path
) -> None:
    process = Plugin(slurm, raw, task, tmp_path).start("--hold")
    slurm.wait(2, states="PENDING")
    process.send_signal(signal.SIGTERM)  # as a scheduler does to what runs too long
    ended = end(process, tmp_path)
    assert ended.code == 130, ended.output
    slurm.wait(0, seconds=5)

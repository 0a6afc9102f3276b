"""One job a session on a SLURM cluster, in the place of nipype's plugin.

nipype's submits with a text that a shell reads, does not look at the exit code of ``sbatch``,
and cannot tell how a job ended. So submission and polling are done here, without a shell and
with one question for all jobs; each way to fail is one line: which session, what the scheduler
said, what to do; the other sessions go on.
"""

from __future__ import annotations

import logging
import math
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from nipype.pipeline.plugins.tools import create_pyscript

from deepmrseg_bids.errors import DeepMRSegError
from deepmrseg_bids.execution.nodes import (
    NodeResult,
    ReadyNodes,
    called_result,
    run_node,
    session_of,
)
from deepmrseg_bids.execution.worker_pool import call_here
from deepmrseg_bids.wording import counted

__all__ = ["SlurmPlugin"]

_log = logging.getLogger("deepmrseg-bids")
_SUBMITTED = re.compile(r"Submitted batch job (\d+)|^(\d+)(?:;\S+)?$", re.MULTILINE)
_WAITING = {"PENDING", "RUNNING", "CONFIGURING", "COMPLETING", "REQUEUED", "REQUEUE_HOLD",
            "REQUEUE_FED", "RESIZING", "SIGNALING", "STAGE_OUT", "STOPPED", "SUSPENDED",
            "SPECIAL_EXIT", "RESV_DEL_HOLD"}  # fmt: skip
_BUSY = {"None", "Priority", "Resources", "Cleaning", "Licenses", "BeginTime", "Prolog"}
_TRANSIENT = ("timed out", "temporarily unable", "Unable to contact", "not available at the moment")
_MEMORY = re.compile(r"oom[-_ ]?kill|memory limit|out of memory", re.IGNORECASE)
_ADVICE = {
    "OUT_OF_MEMORY": "was killed because of memory: request more with --mem in sbatch_args, "
    "and run again",
    "TIMEOUT": "exceeded its time limit: request more with --time in sbatch_args, and run again",
    "CANCELLED": "was cancelled; run again",
    "COMPLETED": "ended without a result: the work folder and OUT_DIR must be shared by all nodes",
    "GONE": "is unknown to the scheduler and has no result; run again",
    "NODE_FAIL": "failed because of its node; run again",
    "BOOT_FAIL": "failed because of its node; run again",
    "PREEMPTED": "was preempted; run again",
    "DEADLINE": "missed its deadline: see --deadline in sbatch_args",
}
_LATENCY = 60.0  # seconds that a network file system may take to show a file that is there
_ROOM = 1.5  # a job may take more memory than is expected of its session
_SHORTEST, _LONGEST = 0.5, 15.0  # seconds between two questions to the scheduler
_POLL = 0.1  # seconds between two looks at what can begin


class SubmitError(DeepMRSegError):
    """``sbatch`` refused a job."""


class JobState(NamedTuple):
    """What the scheduler says of a job.

    Attributes:
        state: as SLURM names it (``RUNNING``, ``TIMEOUT``); ``GONE`` if it knows it no longer.
        reason: why a job waits, or how it ended.
    """

    state: str
    reason: str = ""

    @property
    def over(self) -> bool:
        """Whether the job has ended, in whatever way."""
        return self.state not in _WAITING


def ask_slurm(*command: str) -> subprocess.CompletedProcess[str]:
    """Run one of SLURM's commands; no shell sees its arguments."""
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def submit(arguments: Iterable[str], *, tries: int = 3, pause: float = 2.0) -> int:
    """Submit a job with ``sbatch``; its number.

    Args:
        tries: how often, while the controller is only busy or restarting.
        pause: seconds between two tries.

    Raises:
        SubmitError: the scheduler refused it, in the scheduler's words.
    """
    while True:
        tries -= 1
        try:
            ended = ask_slurm("sbatch", *arguments)
            said = ended.stderr.strip() or ended.stdout.strip()
            number = None if ended.returncode else _SUBMITTED.search(ended.stdout)
        except (OSError, subprocess.TimeoutExpired) as error:
            said, number = str(error), None
        if number is not None:
            return int(number[1] or number[2])
        if tries <= 0 or not any(text in said for text in _TRANSIENT):
            raise SubmitError(_last_words(said) or "sbatch returned no job number")
        time.sleep(pause)


def _last_words(text: str) -> str:
    """What ``sbatch`` complained of, without its own name, on one line."""
    lines = [re.sub(r"^\w+: (error: )?", "", line.strip()) for line in text.splitlines()]
    return "; ".join(dict.fromkeys(line for line in lines if line))


class Queue:
    """Our jobs in the scheduler's eyes: one question for all of them, and not too often.

    The longer the run, the longer the pauses: a cluster's controller serves others too.
    """

    def __init__(self) -> None:
        self.start = time.monotonic()
        self._asked = -_LONGEST
        self._states: dict[int, JobState] = {}
        self._silent = False

    def look(self, jobs: Iterable[int]) -> Mapping[int, JobState]:
        """The state of each job, as of the last question."""
        now = time.monotonic()
        pause = min(_LONGEST, max(_SHORTEST, (now - self.start) / 50))
        if now - self._asked >= pause:
            self._states = self._ask(sorted(jobs))
            self._asked = time.monotonic()
        return self._states

    def _ask(self, jobs: list[int]) -> dict[int, JobState]:
        numbers = ",".join(map(str, jobs))
        try:
            ended = ask_slurm("squeue", "-h", "-t", "all", "-o", "%A|%T|%r", "-j", numbers)
            said = ended.stderr.strip()
            failed = ended.returncode != 0 and "Invalid job id" not in said
        except (OSError, subprocess.TimeoutExpired) as error:
            said, failed = str(error), True
        if failed:  # the controller is away: nothing new is known
            if not self._silent:
                _log.warning("the scheduler does not respond (%s); trying again", _last_words(said))
            self._silent = True
            return self._states
        self._silent = False
        rows = (line.strip().split("|", 2) for line in ended.stdout.splitlines())
        known = {int(row[0]): JobState(row[1], row[2]) for row in rows if len(row) == 3}
        return {job: known.get(job, JobState("GONE")) for job in jobs}


def ending(state: str, log: str, signal: int = 0) -> str:
    """How a job that left no result ended, and what to do: the rest of a line.

    Args:
        state: SLURM's word for it.
        log: what the job said.
        signal: the signal that killed it, 0 if none did.

    >>> ending("FAILED", "slurmstepd: error: Exceeded job memory limit")
    'was killed because of memory: request more with --mem in sbatch_args, and run again'
    >>> ending("FAILED", "", 9)
    'was killed by signal 9'
    """
    if state != "CANCELLED" and _MEMORY.search(log):
        state = "OUT_OF_MEMORY"
    if state in _ADVICE:
        return _ADVICE[state]
    if signal:
        return f"was killed by signal {signal}"
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    return f"ended as {state}" + (f": {lines[-1][:300]}" if lines else "")


@dataclass
class _Job:
    """A session at the scheduler: nipype's node of it, and the file that takes what it says."""

    number: int
    node: Any
    log: Path
    ended: float | None = None

    @property
    def finished(self) -> bool:
        """Whether the session's record and nipype's result are there."""
        results = Path(self.node.output_dir()).glob("result_*.pklz")
        return Path(self.node.inputs.record).exists() and any(results)

    def settled(self, state: str) -> bool:
        """Whether an ended job can be judged: a file system may be slow to show its results."""
        now = time.monotonic()
        self.ended = now if self.ended is None else self.ended
        return state not in ("COMPLETED", "GONE") or now - self.ended > _LATENCY

    def failure(self, state: str) -> str:
        """How it ended without a result, and what to do."""
        try:
            said = self.log.read_text(encoding="utf-8", errors="replace")[-20000:]
        except OSError:
            said = ""
        how = ending(state, said, _signal(self.number))
        kept = f"; see logs/{self.log.name}" if self.log.exists() else ""
        return f"job {self.number} {how}{kept}"


class SlurmPlugin:
    """Runs each session as a job of the cluster; all other nodes run here.

    Args:
        arguments: ``sbatch_args``, ``template``, ``max_jobs``, ``max_tries`` and
            ``retry_timeout`` as for nipype's plugin.
        logs: receives the log of each job that fails.

    Attributes:
        stopped: set it to begin nothing more; jobs that run are waited for.
    """

    def __init__(self, arguments: Mapping[str, Any], logs: Path) -> None:
        template = str(arguments.get("template", "#!/bin/bash"))
        is_file = os.path.isfile(template)
        self._template = Path(template).read_text(encoding="utf-8") if is_file else template
        self._sbatch_args = shlex.split(os.path.expandvars(arguments.get("sbatch_args", "")))
        self._most = arguments.get("max_jobs", math.inf)
        self._tries = 1 + int(arguments.get("max_tries", 2))
        self._pause = float(arguments.get("retry_timeout", 2))
        self._logs = logs
        self._queue = Queue()
        self._jobs: dict[int, _Job] = {}
        self._taken_back: set[int] = set()
        self._said: set[tuple[int, str]] = set()
        self.stopped = False

    def run(self, graph: Any) -> Generator[NodeResult, None, None]:
        """Run the nodes of a graph; each when it has ended.

        Jobs are taken back if this process has to stop early.
        """
        ready = ReadyNodes(graph)
        try:
            while self._jobs or (ready and not self.stopped):
                yield from self._begin(ready)
                if self.stopped:
                    self._take_back_waiting()
                yield from self._look(ready)
                if self._jobs:
                    time.sleep(_POLL)
        finally:
            if self._jobs:
                _log.warning("cancelling %s", counted(len(self._jobs), "job"))
                ask_slurm("scancel", *map(str, self._jobs))

    def _begin(self, ready: ReadyNodes) -> Iterator[NodeResult]:
        """Begin what can run; what has ended by then."""
        while ready and not self.stopped and len(self._jobs) < self._most:
            node = ready.take()
            if session_of(node):
                if refused := self._submit(node):
                    yield NodeResult.of(node, refused)
                continue
            result = called_result(node, call_here(node.index, run_node, node))
            if not result.reason:
                ready.ended_well(node)
            yield result

    def _submit(self, node: Any) -> str:
        """Submit the job of a session; why it cannot be, or nothing."""
        script = Path(create_pyscript(node))
        batch = script.with_suffix(".sh")
        command = shlex.join([sys.executable, str(script)])
        batch.write_text(f"{self._template.rstrip()}\n{command}\n", encoding="utf-8")
        try:
            number = submit(
                [*self._arguments(node), str(batch)], tries=self._tries, pause=self._pause
            )
        except SubmitError as error:
            return f"the scheduler rejected the job: {error}"
        session = session_of(node)
        _log.debug("%s: job %d", session, number)
        self._jobs[number] = _Job(number, node, self._logs / f"job-{session}-{number}.log")
        return ""

    def _arguments(self, node: Any) -> list[str]:
        """For ``sbatch``: what the session needs, unless the user asks for something else."""
        given = f"{' '.join(self._sbatch_args)}\n{self._template}"
        arguments = ["--job-name", session_of(node)]
        if "--mem" not in given:
            arguments += ["--mem", f"{math.ceil(_ROOM * 1024 * node.mem_gb)}M"]
        if not re.search(r"(^|\s)(-c|--cpus-per-task)", given):
            arguments += ["--cpus-per-task", str(node.n_procs)]
        log = str(self._logs).replace("%", "%%") + f"/job-{session_of(node)}-%j.log"
        return [*arguments, *self._sbatch_args, "--output", log, "--error", log]

    def _take_back_waiting(self) -> None:
        """Cancel the jobs that have not begun, each once."""
        if waiting := self._jobs.keys() - self._taken_back:
            self._taken_back |= waiting
            ask_slurm("scancel", "--state=PENDING", *map(str, waiting))

    def _look(self, ready: ReadyNodes) -> Iterator[NodeResult]:
        """Ask about the jobs; those that have ended. One that was taken back is not told."""
        states = self._queue.look(self._jobs) if self._jobs else {}
        for number, job in list(self._jobs.items()):
            state = states.get(number, JobState("PENDING"))
            if not state.over:
                self._say_why_it_waits(job, state)
            elif job.finished:
                del self._jobs[number]
                job.log.unlink(missing_ok=True)
                ready.ended_well(job.node)
                yield NodeResult.of(job.node)
            elif job.settled(state.state):
                del self._jobs[number]
                if state.state != "CANCELLED" or number not in self._taken_back:
                    yield NodeResult.of(job.node, job.failure(state.state))

    def _say_why_it_waits(self, job: _Job, state: JobState) -> None:
        """Once a reason; that others come first is none."""
        why = state.reason
        usual = why in _BUSY or why.startswith(("QOS", "Assoc", "JobArray"))
        if state.state == "PENDING" and not usual and (job.number, why) not in self._said:
            self._said.add((job.number, why))
            _log.warning("%s: job %d waits (%s) and may never start; scancel %d cancels it",
                         session_of(job.node), job.number, why, job.number)  # fmt: skip


def _signal(number: int) -> int:
    """The signal that killed a job; 0 for none, or if nobody knows."""
    try:
        told = ask_slurm("scontrol", "show", "job", "-o", str(number)).stdout
    except (OSError, subprocess.TimeoutExpired):
        return 0
    code = re.search(r" ExitCode=\d+:(\d+)", told)
    return int(code[1]) if code else 0

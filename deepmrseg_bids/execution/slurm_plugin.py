"""One job a session on a SLURM cluster, through nipype's plugin.

nipype submits with a text that a shell reads, does not look at the exit code of ``sbatch``,
and cannot tell how a job ended. So submission and polling are done here, without a shell and
with one question for all jobs; each way to fail is one line: which session, what the scheduler
said, what to do; the other sessions go on.
"""

from __future__ import annotations

import itertools
import logging
import math
import os
import re
import shlex
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from nipype.pipeline.plugins.base import logger
from nipype.pipeline.plugins.slurm import SLURMPlugin
from nipype.pipeline.plugins.tools import create_pyscript

from deepmrseg_bids.errors import DeepMRSegError
from deepmrseg_bids.wording import counted

__all__ = ["SlurmSessionsPlugin"]

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
_WELL: dict[str, Any] = {"result": None, "traceback": None}  # nipype reads the rest from its file
_ROOM = 1.5  # a job may take more memory than is expected of its session
_SHORTEST, _LONGEST = 0.5, 15.0  # seconds between two questions to the scheduler


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
            found = None if ended.returncode else _SUBMITTED.search(ended.stdout)
        except (OSError, subprocess.TimeoutExpired) as error:
            said, found = str(error), None
        if found is not None:
            return int(found[1] or found[2])
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
    'was killed for memory: ask for more with --mem in sbatch_args, and run again'
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
    def session(self) -> str:
        return str(self.node.inputs.job.name)

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

    def said(self) -> str:
        """The last part of its log."""
        try:
            return self.log.read_text(encoding="utf-8", errors="replace")[-20000:]
        except OSError:
            return ""


class SlurmSessionsPlugin(SLURMPlugin):  # type: ignore[misc]
    """nipype's SLURM plugin with a job for each session; all other nodes run here.

    Args:
        plugin_args: ``sbatch_args``, ``template``, ``max_jobs``, ``max_tries`` and
            ``retry_timeout`` as in nipype.
        logs: receives the log of each job that fails.
        ended: is told each node that ended, with the reason if it failed.
        stop: says whether to begin nothing more; what runs is waited for.
    """

    def __init__(
        self,
        plugin_args: Mapping[str, Any],
        logs: Path,
        ended: Callable[[Any, str], None],
        stop: Callable[[], bool] = lambda: False,
    ) -> None:
        super().__init__(plugin_args={**plugin_args, "status_callback": self._tell})
        self._logs, self._ended, self._stop = logs, ended, stop
        self._queue = Queue()
        self._jobs: dict[int, _Job] = {}
        self._results: dict[int, dict[str, Any]] = {}
        self._numbers = itertools.count(1)
        self._reasons: dict[str, str] = {}
        self._left: set[int] = set()
        self._said: set[tuple[int, str]] = set()

    def run(self, graph: Any, config: Any, updatehash: bool = False) -> None:
        """Run the workflow; jobs are taken back if this process has to stop early."""
        logger.setLevel(logging.CRITICAL)  # what it lists in the end was told, with the reason
        try:
            super().run(graph, config, updatehash=updatehash)
        except BaseException as error:
            if isinstance(error, Exception) and self._run_errors and not self._jobs:
                return  # nipype's summary of what was told already
            if self._jobs:
                _log.warning("cancelling %s", counted(len(self._jobs), "job"))
                ask_slurm("scancel", *map(str, self._jobs))
            raise

    def _send_procs_to_workers(self, updatehash: bool = False, graph: Any = None) -> None:
        if not self._stop():
            super()._send_procs_to_workers(updatehash=updatehash, graph=graph)
            return
        self.proc_done[:] = True  # nothing more begins; what has begun is still pending
        if waiting := self._jobs.keys() - self._left:
            self._left |= waiting
            ask_slurm("scancel", "--state=PENDING", *map(str, waiting))

    def _submit_job(self, node: Any, updatehash: bool = False) -> int:
        if not _is_session(node):
            return self._hold(self._run_here(node))
        session = str(node.inputs.job.name)
        script = Path(create_pyscript(node, updatehash=updatehash))
        batch = script.with_suffix(".sh")
        command = shlex.join([sys.executable, str(script)])
        batch.write_text(f"{self._template.rstrip()}\n{command}\n", encoding="utf-8")
        try:
            number = submit(
                [*self._arguments(node), str(batch)],
                tries=1 + int(self._max_tries),
                pause=float(self._retry_timeout),
            )
        except SubmitError as error:
            return self._hold(self._failed(node, f"the scheduler rejected the job: {error}"))
        _log.debug("%s: job %d", session, number)
        self._jobs[number] = _Job(number, node, self._logs / f"job-{session}-{number}.log")
        return number

    def _arguments(self, node: Any) -> list[str]:
        """For ``sbatch``: what the session needs, unless the user asks for something else."""
        own = shlex.split(os.path.expandvars(self._sbatch_args or ""))
        asked = f"{' '.join(own)}\n{self._template}"
        arguments = ["--job-name", str(node.inputs.job.name)]
        if "--mem" not in asked:
            arguments += ["--mem", f"{math.ceil(_ROOM * 1024 * node.mem_gb)}M"]
        if not re.search(r"(^|\s)(-c|--cpus-per-task)", asked):
            arguments += ["--cpus-per-task", str(node.n_procs)]
        log = str(self._logs).replace("%", "%%") + f"/job-{node.inputs.job.name}-%j.log"
        return [*arguments, *own, "--output", log, "--error", log]

    def _get_result(self, taskid: int) -> dict[str, Any] | None:
        if taskid in self._results:
            return self._results[taskid]
        job = self._jobs[taskid]
        state = self._queue.look(self._jobs).get(taskid, JobState("PENDING"))
        if not state.over:
            self._say_why_it_waits(job, state)
            return None
        if job.finished:
            job.log.unlink(missing_ok=True)
            return _WELL
        if not job.settled(state.state):
            return None
        if state.state == "CANCELLED" and taskid in self._left:
            return self._failed(job.node, "")
        how = ending(state.state, job.said(), _signal(taskid))
        kept = f"; see logs/{job.log.name}" if job.log.exists() else ""
        return self._failed(job.node, f"job {taskid} {how}{kept}")

    def _run_here(self, node: Any) -> dict[str, Any]:
        """Run a node that is no job, such as a page."""
        try:
            node.run()
        except Exception as error:  # costs this node alone, as in a worker
            self._reasons[node.fullname] = f"unexpected {type(error).__name__}: {error}"
            # nipype's report of a crash takes nothing but a list
            return {"result": None, "traceback": traceback.format_exception(error)}
        return _WELL

    def _failed(self, node: Any, reason: str) -> dict[str, Any]:
        """The result of a session that left none; without a reason it never began."""
        self._reasons[node.fullname] = reason
        return {"result": None, "traceback": [reason]}

    def _hold(self, result: dict[str, Any]) -> int:
        """Keep the result of what never was a job, under a number that no job has."""
        number = -next(self._numbers)
        self._results[number] = result
        return number

    def _clear_task(self, taskid: int) -> None:
        self._jobs.pop(taskid, None)
        self._results.pop(taskid, None)

    def _report_crash(self, node: Any, result: Any = None) -> Any:
        # of a session the reason and the job's log are kept; nipype's report would mask them
        return None if _is_session(node) else super()._report_crash(node, result=result)

    def _tell(self, node: Any, status: str) -> None:
        """What nipype says of a node, for the run."""
        if status == "end":
            self._ended(node, "")
        elif status == "exception":
            reason = self._reasons.pop(node.fullname, f"unexpected {sys.exc_info()[1]!r}")
            if reason:
                self._ended(node, reason)

    def _say_why_it_waits(self, job: _Job, state: JobState) -> None:
        """Once a reason; that others come first is none."""
        why = state.reason
        usual = why in _BUSY or why.startswith(("QOS", "Assoc", "JobArray"))
        if state.state == "PENDING" and not usual and (job.number, why) not in self._said:
            self._said.add((job.number, why))
            _log.warning("%s: job %d waits (%s) and may never start; scancel %d cancels it",
                         job.session, job.number, why, job.number)  # fmt: skip


def _is_session(node: Any) -> bool:
    return "job" in node.inputs.copyable_trait_names()


def _signal(number: int) -> int:
    """The signal that killed a job; 0 for none, or if nobody knows."""
    found = re.search(r" ExitCode=\d+:(\d+)", ask_slurm("scontrol", "show", "job", "-o",
                                                       str(number)).stdout)  # fmt: skip
    return int(found[1]) if found else 0

"""The workflow of the participant level."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nipype.interfaces import utility as niu
from nipype.pipeline import engine as pe

from deepmrseg_bids.interfaces import SegmentSession, SubjectReport
from deepmrseg_bids.session.job import SessionJob
from deepmrseg_bids.session.segment import finished_session

__all__ = ["NodeSettings", "init_participant_wf", "init_subject_wf"]

_REPORT_GB = 0.8


@dataclass(frozen=True)
class NodeSettings:
    """What all nodes of a run share.

    Attributes:
        out_dir: OUT_DIR.
        records: folder for the outcomes, one file a session.
        weights: SHA-256 of every model in use.
        reports: write the page of each subject.
        command: for the pages.
    """

    out_dir: Path
    records: Path
    weights: Mapping[str, str]
    reports: bool = True
    command: str = ""


def init_participant_wf(
    jobs: Sequence[SessionJob], settings: NodeSettings, *, name: str = "deepmrseg_wf"
) -> Any:
    """All subjects of a run.

    Args:
        jobs: the sessions, those of a subject beside one another.
    """
    workflow = pe.Workflow(name=name)
    subjects: dict[str, list[SessionJob]] = {}
    for job in jobs:
        subjects.setdefault(job.subject, []).append(job)
    for number, (subject, sessions) in enumerate(subjects.items()):
        subject_wf = init_subject_wf(sessions, settings, name=f"sub_{_safe(subject)}_{number}_wf")
        workflow.add_nodes([subject_wf])
    return workflow


def init_subject_wf(jobs: Sequence[SessionJob], settings: NodeSettings, *, name: str) -> Any:
    """One subject: segment each session, then write the subject's page.

    Outputs
    -------
    page
        the HTML file, if reports are wanted
    """
    workflow = pe.Workflow(name=name)
    outputnode = pe.Node(niu.IdentityInterface(fields=["page"]), name="outputnode")
    merge = pe.Node(niu.Merge(len(jobs)), name="merge", run_without_submitting=True)
    for number, job in enumerate(jobs, start=1):
        if not job.busy:  # finished by an earlier run: only the page needs to know
            setattr(merge.inputs, f"in{number}", finished_session(job).to_json())
            continue
        segment = pe.Node(
            SegmentSession(
                job=job,
                weights=dict(settings.weights),
                out_dir=str(settings.out_dir),
                record=str(settings.records / f"{job.name}.json"),
            ),
            name=f"segment_{_safe(job.session or 'single')}_{number}",
            n_procs=job.threads,
            mem_gb=job.memory_gb,
        )
        workflow.connect([(segment, merge, [("outcome", f"in{number}")])])
    if settings.reports:
        report = pe.Node(
            SubjectReport(out_dir=str(settings.out_dir), command=settings.command),
            name="report",
            mem_gb=_REPORT_GB,
        )
        workflow.connect(
            [
                (merge, report, [("out", "outcomes")]),
                (report, outputnode, [("page", "page")]),
            ]
        )  # fmt: skip
    return workflow


def _safe(label: str) -> str:
    """A label as part of a node's name: letters, digits and underscores."""
    return re.sub(r"\W", "_", label, flags=re.ASCII)

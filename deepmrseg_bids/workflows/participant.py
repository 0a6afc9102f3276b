"""The workflow of the participant level."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nipype.interfaces import utility as niu
from nipype.pipeline import engine as pe

from deepmrseg_bids.interfaces import SegmentSession, SubjectReport
from deepmrseg_bids.session.job import SessionJob
from deepmrseg_bids.session.segment import finished_session

__all__ = ["init_participant_wf", "init_subject_wf"]

_REPORT_GB = 0.8


def init_participant_wf(
    *,
    jobs: Sequence[SessionJob],
    weights: Mapping[str, str],
    out_dir: Path,
    records: Path,
    threads: int,
    reports: bool,
    command: str,
    name: str = "deepmrseg_wf",
) -> Any:
    """All subjects of a run.

    Args:
        jobs: the sessions, those of a subject beside one another.
        weights: SHA-256 of every model in use.
        out_dir: OUT_DIR.
        records: folder for the outcomes, one file a session.
        threads: threads of one segmentation node.
        reports: write the page of each subject.
        command: for the reports.
    """
    workflow = pe.Workflow(name=name)
    subjects: dict[str, list[SessionJob]] = {}
    for job in jobs:
        subjects.setdefault(job.subject, []).append(job)
    for number, (subject, own) in enumerate(subjects.items()):
        workflow.add_nodes(
            [
                init_subject_wf(
                    jobs=own,
                    weights=weights,
                    out_dir=out_dir,
                    records=records,
                    threads=threads,
                    reports=reports,
                    command=command,
                    name=f"sub_{_safe(subject)}_{number}_wf",
                )
            ]
        )
    return workflow


def init_subject_wf(
    *,
    jobs: Sequence[SessionJob],
    weights: Mapping[str, str],
    out_dir: Path,
    records: Path,
    threads: int,
    reports: bool,
    command: str,
    name: str,
) -> Any:
    """One subject: segment each session, then write the subject's page.

    Outputs
    -------
    page
        the HTML file, if ``reports``
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
                weights=dict(weights),
                out_dir=str(out_dir),
                record=str(records / f"{job.name}.json"),
            ),
            name=f"segment_{_safe(job.session or 'single')}_{number}",
            n_procs=threads,
            mem_gb=job.memory_gb,
        )
        workflow.connect([(segment, merge, [("outcome", f"in{number}")])])
    if reports:
        report = pe.Node(
            SubjectReport(out_dir=str(out_dir), command=command),
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

"""The report of one image outside a BIDS data set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from deepmrseg_bids import __version__
from deepmrseg_bids.bids.tables import read_morph
from deepmrseg_bids.findings import Finding, worst_first
from deepmrseg_bids.imaging.labels import LabelTable
from deepmrseg_bids.inference.bundle import ModelBundle
from deepmrseg_bids.reports.subject.page import SessionResult, TaskResult, write_subject_report
from deepmrseg_bids.tasks.methods import methods_facts
from deepmrseg_bids.tasks.regions import read_regions
from deepmrseg_bids.tasks.spec import TaskSpec

__all__ = ["Predicted", "single_report"]

_SOFTWARE = {"deepmrseg-bids": __version__, "torch": version("torch")}


@dataclass(frozen=True)
class Predicted:
    """What ``deepmrseg predict`` has made of one image for one task, or why it has not.

    Attributes:
        image: the scan on whose grid ``dseg`` is.
        morph: the table of volumes.
        problem: why there is nothing; empty if there is.
        regions: the table of composite regions.
    """

    spec: TaskSpec
    image: Path | None = None
    dseg: Path | None = None
    morph: Path | None = None
    table: LabelTable | None = None
    findings: tuple[Finding, ...] = ()
    problem: str = ""
    regions: Path | None = None


def single_report(
    page: Path, results: Sequence[Predicted], bundles: Mapping[str, ModelBundle], *, command: str
) -> Path:
    """Write the page of one image, as that of a subject of a data set.

    Args:
        bundles: the models that ran, by name.
        command: the command line.
    """
    tasks = [_task(one, bundles) for one in results]
    found = worst_first(finding for one in results for finding in one.findings)
    models = {one.spec.name: bundles[one.spec.models[-1]].label for one in results
              if one.spec.models[-1] in bundles}  # fmt: skip
    session = SessionResult(page.stem, None, tuple(tasks), found, name=page.stem)
    write_subject_report(page, [session], version=__version__, command=command, models=models)
    return page


def _task(one: Predicted, bundles: Mapping[str, ModelBundle]) -> TaskResult:
    if one.morph is None:
        return TaskResult(one.spec, "failed", one.problem, None, None, None, ())
    known = all(model in bundles for model in one.spec.models)
    regions = read_morph(one.regions) if one.regions else []
    made_of = read_regions(one.spec.regions) if one.spec.regions else ()
    return TaskResult(
        one.spec,
        "done",
        "",
        one.image,
        one.dseg,
        one.table,
        read_morph(one.morph),
        provenance={"Software": _SOFTWARE, "Methods": methods_facts(one.spec, bundles)}
        if known
        else {},
        tsv=(one.morph.name, one.morph.read_text(encoding="utf-8")),
        regions=regions,
        composition=made_of,
    )

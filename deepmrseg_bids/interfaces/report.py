"""The page of one subject."""

from __future__ import annotations

from pathlib import Path

from nipype.interfaces.base import (
    BaseInterfaceInputSpec,
    SimpleInterface,
    TraitedSpec,
    traits,
)

from deepmrseg_bids.reports.subject.collect import subject_page
from deepmrseg_bids.session.job import outcome_from_json
from deepmrseg_bids.session.lesion_changes import write_lesion_changes

__all__ = ["SubjectReport"]


class _ReportInput(BaseInterfaceInputSpec):  # type: ignore[misc]
    outcomes = traits.List(traits.Str(), mandatory=True, desc="one a session, as JSON")
    out_dir = traits.Str(mandatory=True, desc="OUT_DIR")
    command = traits.Str(desc="the command line of the run")


class _ReportOutput(TraitedSpec):  # type: ignore[misc]
    page = traits.Str(desc="the HTML file")


class SubjectReport(SimpleInterface):  # type: ignore[misc]
    """Compare the lesions of sessions, and write ``sub-<label>.html`` from what is in OUT_DIR."""

    input_spec = _ReportInput
    output_spec = _ReportOutput

    def _run_interface(self, runtime):  # type: ignore[no-untyped-def]
        outcomes = [outcome_from_json(text) for text in self.inputs.outcomes]
        write_lesion_changes(outcomes, Path(self.inputs.out_dir))
        page = subject_page(outcomes, Path(self.inputs.out_dir), command=self.inputs.command)
        self._results["page"] = str(page)
        return runtime

"""Segment one session and publish what came out of it."""

from __future__ import annotations

from pathlib import Path

from nipype.interfaces.base import (
    BaseInterfaceInputSpec,
    SimpleInterface,
    TraitedSpec,
    traits,
)

from deepmrseg_bids.session.job import SessionJob
from deepmrseg_bids.session.segment import segment_session

__all__ = ["SegmentSession"]


class _SegmentInput(BaseInterfaceInputSpec):  # type: ignore[misc]
    job = traits.Any(mandatory=True, desc="the session and how to segment it (SessionJob)")
    weights = traits.Dict(desc="SHA-256 of each model: changed weights are a changed input")
    out_dir = traits.Str(mandatory=True, desc="OUT_DIR")
    record = traits.Str(mandatory=True, desc="the file that stores the outcome for the run")


class _SegmentOutput(TraitedSpec):  # type: ignore[misc]
    outcome = traits.Str(desc="task status, as JSON")


class SegmentSession(SimpleInterface):  # type: ignore[misc]
    """All networks of one session: the process that loads the weights keeps them."""

    input_spec = _SegmentInput
    output_spec = _SegmentOutput

    def _run_interface(self, runtime):  # type: ignore[no-untyped-def]
        job: SessionJob = self.inputs.job
        outcome = segment_session(
            job,
            Path(self.inputs.out_dir),
            work=Path(runtime.cwd),
            record=Path(self.inputs.record),
        )
        self._results["outcome"] = outcome.to_json()
        return runtime

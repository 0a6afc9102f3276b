"""Segment one session, and publish what came out of it."""

from __future__ import annotations

from pathlib import Path

from nipype.interfaces.base import (
    BaseInterfaceInputSpec,
    SimpleInterface,
    TraitedSpec,
    traits,
)

from deepmrseg_bids.bids.outputs import (
    SessionJob,
    outcome_from_json,
    publish_session,
    segment_session,
)

__all__ = ["PublishSession", "SegmentSession"]


class _SegmentInput(BaseInterfaceInputSpec):  # type: ignore[misc]
    job = traits.Any(mandatory=True, desc="the session and how to segment it (SessionJob)")
    weights = traits.Dict(desc="SHA-256 of each model: changed weights are a changed input")


class _SegmentOutput(TraitedSpec):  # type: ignore[misc]
    outcome = traits.Str(desc="what was done, as JSON")
    folder = traits.Str(desc="where the files wait to be published")


class SegmentSession(SimpleInterface):  # type: ignore[misc]
    """All networks of one session: the process that loads the weights keeps them."""

    input_spec = _SegmentInput
    output_spec = _SegmentOutput

    def _run_interface(self, runtime):  # type: ignore[no-untyped-def]
        job: SessionJob = self.inputs.job
        folder = Path(runtime.cwd) / "staged"
        outcome = segment_session(job, folder)
        self._results["outcome"] = outcome.to_json()
        self._results["folder"] = str(folder)
        return runtime


class _PublishInput(BaseInterfaceInputSpec):  # type: ignore[misc]
    outcome = traits.Str(mandatory=True, desc="what was done, as JSON")
    folder = traits.Str(mandatory=True, desc="where the files wait")
    out_dir = traits.Str(mandatory=True, desc="OUT_DIR")
    record = traits.Str(mandatory=True, desc="the file that keeps the outcome for the run")


class _PublishOutput(TraitedSpec):  # type: ignore[misc]
    outcome = traits.Str(desc="what was done, as JSON")


class PublishSession(SimpleInterface):  # type: ignore[misc]
    """Move a session's finished files to their final names."""

    input_spec = _PublishInput
    output_spec = _PublishOutput

    def _run_interface(self, runtime):  # type: ignore[no-untyped-def]
        outcome = publish_session(
            outcome_from_json(self.inputs.outcome),
            Path(self.inputs.folder),
            Path(self.inputs.out_dir),
            record=Path(self.inputs.record),
        )
        self._results["outcome"] = outcome.to_json()
        return runtime

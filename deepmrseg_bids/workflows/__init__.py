"""nipype workflows: one segmentation node a session, one report a subject."""

from deepmrseg_bids.workflows.participant import (
    NodeSettings,
    init_participant_wf,
    init_subject_wf,
)

__all__ = ["NodeSettings", "init_participant_wf", "init_subject_wf"]

"""nipype interfaces: thin skins, one call each into the layers below them."""

from deepmrseg_bids.interfaces.report import SubjectReport
from deepmrseg_bids.interfaces.segment import PublishSession, SegmentSession

__all__ = ["PublishSession", "SegmentSession", "SubjectReport"]

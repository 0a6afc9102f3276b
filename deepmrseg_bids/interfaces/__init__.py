"""nipype interfaces: thin skins, one call each into the layers below them."""

from deepmrseg_bids.interfaces.report import SubjectReport
from deepmrseg_bids.interfaces.segment import SegmentSession

__all__ = ["SegmentSession", "SubjectReport"]

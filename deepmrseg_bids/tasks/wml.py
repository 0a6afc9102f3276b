"""``wml``: white-matter lesions from T1w and FLAIR.

No model of this task is shipped yet: every session is told so.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from deepmrseg_bids.errors import SkippedTask
from deepmrseg_bids.image import Volume
from deepmrseg_bids.segmentation import Segmentation
from deepmrseg_bids.tasks.brain import Brain

if TYPE_CHECKING:
    from deepmrseg_bids.inference import Predictor

__all__ = ["segment"]


def segment(
    volume: Volume,
    brain: Brain,
    flair: Volume | None,
    predictors: Callable[[str], Predictor],
) -> Segmentation:
    """White-matter lesions of one session.

    Raises:
        SkippedTask: there is no FLAIR, or no model of this task.
    """
    if flair is None:
        raise SkippedTask("wml needs a FLAIR, and the session has none")
    raise SkippedTask("wml: this version ships no model of white-matter lesions")

"""How to read a report: for each section a good, a borderline and a bad result, and what to do.

``docs/reading_reports.md`` has the same texts and pictures. The pictures are made by
``benchmarks/guide_pictures.py`` and lie in ``assets/guide``; a page embeds them, so that it can be
sent as one file.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

__all__ = ["GROUP", "SUBJECT", "Part"]


@dataclass(frozen=True)
class Part:
    """A section of a report.

    Attributes:
        title: of the section.
        good, borderline, bad: what each looks like.
        advice: what to do.
        picture: the name of a picture of all three, side by side; empty: words only.
    """

    title: str
    good: str
    borderline: str
    bad: str
    advice: str
    picture: str = ""

    @property
    def uri(self) -> str:
        """The picture as a data URI."""
        return _uri(self.picture)

    @property
    def alt(self) -> str:
        """The picture in words."""
        return f"{self.title}. Good: {self.good}. Borderline: {self.borderline}. Bad: {self.bad}."


@cache
def _uri(name: str) -> str:
    data = (files("deepmrseg_bids.reports") / "assets" / "guide" / f"{name}.webp").read_bytes()
    return f"data:image/webp;base64,{base64.b64encode(data).decode('ascii')}"


SUBJECT = (
    Part(
        "Verdict",
        "ok",
        "check: a warning, or an outlier of the cohort",
        "problem: a task failed, or a finding of severity error",
        "Read the reason. Inspect the slices in any case: a verdict of ok means that nothing known "
        "is wrong, not that the result is right.",
        "verdict",
    ),
    Part(
        "Slices, brain",
        "The contour follows the outer edge of the brain in all slices",
        "Small parts of meninges inside, or of cortex outside (a few millimetres)",
        "Eyes, skull or neck inside; a lobe or the cerebellum outside; the contour ends in a "
        "straight line",
        "Bad: exclude the session, or correct the mask. Look at More slices if in doubt.",
        "brain",
    ),
    Part(
        "Slices, structures",
        "Contours follow visible borders; left and right look alike",
        "The image is too noisy or blurred to see the border; one border is off by 1 to 2 mm",
        "A structure is missing or cut, contains ventricle, or is on the wrong side",
        "Borderline: rate as doubtful, and repeat statistics without it. Bad: rate as fail.",
        "structures",
    ),
    Part(
        "Confidence, interval and asymmetry",
        "Confidence of 0.85 and more; the interval is narrow compared with the differences you "
        "study",
        "Confidence of 0.70 to 0.85; asymmetry of more than 10 %",
        "Confidence below 0.70; asymmetry of more than 30 %, or an implausible volume",
        "Look at the structure named, on both sides: disease, or an error? Low values of all "
        "structures: a poor image, or a contrast that the model does not know.",
        "numbers",
    ),
    Part(
        "Cohort percentile",
        "5 to 95",
        "The smallest or largest of the study",
        "Robust z beyond 3.5",
        "An outlier is not an error: exclude it only if the slices show one.",
    ),
    Part(
        "FLAIR-T1w registration",
        "Edges are continuous across tiles in the lower row, with steps of less than a voxel",
        "Steps of 2 to 4 mm at ventricles or sulci",
        "Larger steps, or rotated: edges end at the tiles",
        "Borderline: use total lesion volumes, not lesions by location. Bad: use the FLAIR alone, "
        "or rate as fail.",
        "registration",
    ),
    Part(
        "Lesions",
        "Contours enclose bright areas of white matter",
        "Bright caps at the horns of the ventricles, or small spots, are marked, too",
        "Contours on artefacts, cortex or the septum; bright areas without a contour",
        "Borderline: caps occur in healthy people; decide on one rule for all sessions, and rate "
        "as doubtful. Bad: rate as fail, or correct the label map. Use the total volume with its "
        "interval rather than single lesions.",
        "lesions",
    ),
)
"""The sections of a subject report, from top to bottom."""

GROUP = (
    Part(
        "Overview",
        "All tasks done, few findings",
        "One finding in many sessions",
        "Many failed sessions with one reason",
        "A reason that is common has a common cause: a protocol, a site, a conversion.",
    ),
    Part(
        "Sessions and outliers",
        "Verdict ok",
        "check",
        "problem",
        "Start at the top: the worst come first. Open their reports, and rate them.",
    ),
    Part(
        "Distributions",
        "One cloud of points, the box in its middle",
        "Two clouds, here of two sites (Boxes: by site)",
        "Points far outside (red diamonds)",
        "Two clouds: put the site into the model, or use --harmonise. Points outside: open their "
        "reports; exclude them only if the slices show an error.",
        "distributions",
    ),
    Part(
        "Age and sex",
        "Plausible curves over all ages",
        "Few sessions at the ends: the curve follows single points",
        "A curve against all knowledge, such as growth with age",
        "Curves need ten sessions per group, and are no test. Bad: look for what differs with age, "
        "such as the scanner.",
        "age",
    ),
    Part(
        "Time",
        "Parallel lines",
        "Lines that cross, with changes smaller than their intervals",
        "All lines jump at the same visit",
        "Look at what differs at this visit: scanner, software, movement.",
        "time",
    ),
    Part(
        "Agreement",
        "Differences around zero, narrow limits",
        "A bias with narrow limits",
        "Wide limits",
        "A bias can be corrected, wide limits cannot: do not pool the two methods.",
        "agreement",
    ),
    Part(
        "Mosaics",
        "Contours alike in all",
        "One odd image",
        "Many odd images",
        "Open the subject report of the odd image. Many: look for a common cause before you rate.",
        "mosaics",
    ),
    Part(
        "Ratings",
        "Kappa above 0.6",
        "0.4 to 0.6",
        "Below 0.4",
        "Agree on examples, then rate again.",
    ),
)
"""The sections of the group report."""

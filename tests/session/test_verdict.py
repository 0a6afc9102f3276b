"""A verdict: its level and its sentence."""

from __future__ import annotations

import pytest

from deepmrseg_bids.session.verdict import verdict

WARNING, ERROR, INFO = ("warning", "thick slices"), ("error", "no brain"), ("info", "oblique")


@pytest.mark.parametrize(
    ("options", "level"),
    [
        ({}, "ok"),
        ({"findings": [INFO]}, "ok"),
        ({"findings": [INFO, WARNING]}, "check"),
        ({"outlier": "volume of Brain: +4.0"}, "check"),
        ({"findings": [WARNING, ERROR]}, "problem"),
        ({"failed": [("Brain", "")]}, "problem"),
        ({"skipped": [("Brain", "the session has no T1w image")]}, "check"),
        ({"excluded": ["brain"], "outlier": "x"}, "problem"),
    ],
)
def test_the_level_is_that_of_the_worst_reason(options: dict[str, object], level: str) -> None:
    assert verdict(**{"findings": [], **options}).level == level  # type: ignore[arg-type]


def test_the_reason_is_one_sentence_worst_first_and_short() -> None:
    assert verdict([INFO]).reason == "No errors or warnings."  # of outliers nothing is known
    assert verdict([INFO], outlier="").reason == "No errors or warnings, and no outlier."
    assert verdict([], skipped=[("Brain", "no T1w"), ("Lesions", "no T1w")]).reason == (
        "Brain, Lesions skipped: no T1w."
    )
    found = verdict(
        [WARNING, ERROR, ERROR],
        failed=[("Brain", "no head"), ("Lesions", "no head")],
        outlier="volume",
    )
    assert (
        found.reason == "Brain, Lesions failed: no head; no brain; thick slices; and 1 more reason."
    )

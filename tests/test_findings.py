"""Findings: what they may be, how they are sorted, and how they come back from JSON."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepmrseg_bids.findings import CODES, Finding, worst_first

findings = st.builds(
    Finding,
    st.sampled_from(sorted(CODES)),
    st.sampled_from(["info", "warning", "error"]),
    st.text(),
)


@given(findings)
def test_a_finding_comes_back_from_its_json(finding: Finding) -> None:
    assert Finding.from_json(finding.to_json()) == finding


@pytest.mark.parametrize(
    "tree", [{}, [], 3, None, {"Code": "oblique"}, {"Code": 1, "Severity": "info", "Message": ""},
             {"Code": "oblique", "Severity": "bad", "Message": ""},
             {"Code": [], "Severity": "info", "Message": ""}],
)  # fmt: skip
def test_what_is_no_finding_is_refused(tree) -> None:
    with pytest.raises(ValueError, match=r"finding|severity"):
        Finding.from_json(tree)


@given(st.lists(findings))
def test_errors_come_first_and_each_finding_once(listed: list[Finding]) -> None:
    ranked = worst_first(listed)
    places = [("error", "warning", "info").index(one.severity) for one in ranked]
    assert places == sorted(places)
    assert set(ranked) == set(listed) and len(set(ranked)) == len(ranked)


def test_a_message_is_one_line() -> None:
    assert Finding("oblique", "info", "a\n\tb").message == "a b"


def test_the_documentation_explains_each_code_with_its_severities() -> None:
    page = (Path(__file__).parents[1] / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    rows = [line for line in page.splitlines() if line.startswith("| `")]
    for code in CODES:
        (row,) = (line for line in rows if f"`{code}`" in line.split(" | ")[0])
        assert any(severity in row for severity in ("error", "warning", "info")), code

"""The columns of the group tables are those that docs/outputs.md describes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from deepmrseg_bids.group import columns as columns

PAGE = (Path(__file__).parents[2] / "docs" / "outputs.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("heading", "described"),
    [
        ("group_seg-<task>_structures.tsv", columns.STRUCTURES),
        ("group_seg-<task>_asymmetry.tsv", columns.ASYMMETRY),
        ("group_seg-<task>_lesions.tsv", columns.LESION_PLACES),
        ("group_seg-<task>_change.tsv", columns.CHANGE),
        ("group_seg-<task>_retest.tsv", columns.RETEST),
        ("group_qc.tsv", columns.QC),
        ("group_seg-<task>_agreement.tsv", {**columns.AGREEMENT, **columns.LESION_AGREEMENT}),
        ("group_seg-<task>_agreement_summary.tsv", columns.SUMMARY),
    ],
)
def test_the_documentation_names_every_column_of_a_group_table_in_its_order(
    heading: str, described: columns.Columns
) -> None:
    section = PAGE.split(f"### `{heading}`\n")[1].split("\n#")[0]
    cells = re.findall(r"^\| (`.+?) \|", section, flags=re.MULTILINE)
    named = [name for cell in cells for name in re.findall(r"`(\w+)`", cell)]
    assert [name for name in named if name in described] == list(described)


def test_every_column_is_described_in_words() -> None:
    for described in (getattr(columns, name) for name in columns.__all__ if name != "Columns"):
        for column, facts in described.items():
            assert facts["Description"] and set(facts) <= {"Description", "Units"}, column

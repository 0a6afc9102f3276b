"""Reference centiles: reading, sexes, ages, and what is no such table."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from deepmrseg_bids.bids.norms import Norms, read_norms
from deepmrseg_bids.errors import UsageError

HEAD = "name\tsex\tage\tcentile_5\tcentile_50\tcentile_95\n"


def read(folder: Path, *rows: str, head: str = HEAD) -> Norms:
    path = folder / "norms.tsv"
    path.write_text(head + "".join(f"{row}\n" for row in rows))
    return read_norms(path)


def test_a_centile_is_interpolated_in_age_and_volume(tmp_path: Path) -> None:
    found = read(tmp_path, "Stem\tF\t70\t200\t300\t400", "Stem\tF\t50\t100\t200\t300",
                 "Stem\tM\t50\t500\t600\t700", "Tip\tn/a\t50\t1\t2\t3")  # fmt: skip
    assert found.centiles == (5, 50, 95)
    assert found.centile("Stem", "female", 60, 250) == pytest.approx(50)
    assert found.centile("Stem", "F", 50, 125) == pytest.approx(16.25)
    assert found.centile("Stem", "M", 50, 5000) == 95
    assert found.centile("Tip", "anything", 50, 2) == 50
    for name, age, volume in (("None", 50, 1), ("Stem", 49, 1), ("Stem", 50, np.nan)):
        assert np.isnan(found.centile(name, "F", age, volume))


@pytest.mark.parametrize(
    ("head", "row", "message"),
    [
        (HEAD, "Stem\tF\t50\t300\t200\t400", "must be numbers that rise"),
        (HEAD, "Stem\tF\t50\tmany\t200\t400", "must be a number"),
        ("name\tage\tcentile_5\n", "Stem\t50\t1", "two columns such as"),
        ("sex\tage\n", "F\t50", "no column name"),
    ],
)
def test_what_is_no_such_table_is_wrong_usage(
    tmp_path: Path, head: str, row: str, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        read(tmp_path, row, head=head)


def test_curves_of_some_structures_and_of_one_sex_are_found(tmp_path: Path) -> None:
    found = read(tmp_path, "Stem\tF\t50\t1\t2\t3", "Stem\tn/a\t50\t4\t5\t6", "Tip\tM\t9\t1\t2\t3")
    assert found.names == {"Stem", "Tip"} and found.of({"Tip", "Other"}).names == {"Tip"}
    for sex, volume in (("female", 2), ("M", 5), ("", 5)):
        curve = found.curve("Stem", sex)
        assert curve is not None and curve.volumes[0, 1] == volume
    assert found.curve("Tip", "F") is None

"""Tables of ratings: raters, tasks, times, and what is no rating."""

from __future__ import annotations

from pathlib import Path

import pytest

from deepmrseg_bids.bids.ratings import Ratings, read_ratings, unknown_sessions
from deepmrseg_bids.errors import UsageError

HEAD = "participant_id\tsession_id\ttask\trating\tcomment\trater\ttime\n"
S1, S2 = ("sub-01", "ses-1"), ("sub-02", "")


def table(folder: Path, text: str, name: str = "ratings.tsv") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def read(folder: Path, rows: str) -> Ratings:
    return read_ratings([table(folder, HEAD + rows)])


def test_of_one_rater_the_latest_rating_counts_whatever_the_order(tmp_path: Path) -> None:
    found = read(tmp_path, "sub-01\tses-1\tbrain\tfail\tn/a\tA\t2026-02\n"
                           "01\t1\tbrain\tPass\tn/a\tA\t2026-01\n")  # fmt: skip
    assert found.of("brain") == {S1: "fail"} and found.raters == ["A"]


def test_of_several_raters_the_most_severe_rating_counts_and_comments_name_them(
    tmp_path: Path,
) -> None:
    found = read(tmp_path, "sub-02\tn/a\tbrain\tdoubtful\tmotion\tA\tn/a\n"
                           "sub-02\tn/a\tbrain\tpass\tn/a\tB\tn/a\n")  # fmt: skip
    assert found.of("brain") == {S2: "doubtful"}
    assert found.comments("brain") == {S2: "A: motion"}


def test_a_rating_of_all_tasks_is_one_of_each_unless_the_task_has_its_own(tmp_path: Path) -> None:
    found = read(tmp_path, "sub-02\tn/a\tn/a\tfail\tn/a\tA\tn/a\n"
                           "sub-02\tn/a\tbrain\tpass\tn/a\tA\tn/a\n")  # fmt: skip
    assert found.of("brain") == {S2: "pass"} and found.of("wml") == {S2: "fail"}


def test_files_without_a_column_of_raters_are_raters(tmp_path: Path) -> None:
    rows = "participant_id\ttask\trating\nsub-02\tbrain\t"
    one, two = (
        table(tmp_path, rows + "pass\n", "ann.tsv"),
        table(tmp_path, rows + "fail\n", "bo.tsv"),
    )
    assert read_ratings([one, two]).raters == ["ann", "bo"]


def test_files_whose_raters_have_no_name_are_one_rater_and_this_is_said(tmp_path: Path) -> None:
    rows = HEAD + "sub-02\tn/a\tbrain\tpass\tn/a\tn/a\tn/a\n"
    one, two = (table(tmp_path, rows, name) for name in ("one.tsv", "two.tsv"))
    assert read_ratings([one]).notes == ()
    both = read_ratings([one, two])
    assert both.raters == [""] and len(both.notes) == 1
    assert "one.tsv" in both.notes[0] and "column rater" in both.notes[0]


def test_empty_ratings_are_none_and_strange_sessions_are_named(tmp_path: Path) -> None:
    found = read(tmp_path, "sub-01\tses-1\tbrain\tn/a\tlater\tA\tn/a\n"
                           "sub-02\tn/a\tbrain\tpass\tn/a\tA\tn/a\n")  # fmt: skip
    assert found.of("brain") == {S2: "pass"} and unknown_sessions(found, [S1]) == [S2]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (HEAD + "sub-01\tses-1\tbrain\tgood\tn/a\tA\tn/a\n", "line 2: a rating is pass"),
        ("a\tb\n1\t2\n", "no column participant_id"),
    ],
)
def test_what_is_no_rating_is_wrong_usage(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        read_ratings([table(tmp_path, text)])
    with pytest.raises(UsageError, match="cannot be read"):
        read_ratings([tmp_path / "none.tsv"])

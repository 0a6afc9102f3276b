"""The index that is kept between runs: when it is used, when it is made anew, who waits."""

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from bids.layout import BIDSLayout, BIDSLayoutIndexer

from deepmrseg_bids.bids.query import find_sessions
from deepmrseg_bids.errors import DatasetError
from tests.bids.conftest import Make, image

T1W = [image(f"sub-0{number}_T1w.nii.gz") for number in (1, 2)]


@pytest.fixture
def raw(make: Make) -> Path:
    return make(*T1W)


@pytest.fixture
def kept(raw: Path, tmp_path: Path) -> Path:
    """A folder with an index of ``raw``."""
    folder = tmp_path / "new" / "db"
    find_sessions(raw, participant_labels=["01"], database_dir=folder)
    return folder


def scans(raw: Path, kept: Path, **more: object) -> list[str]:
    found = find_sessions(raw, database_dir=kept, **more)
    return [session.images["T1w"].name for session in found if "T1w" in session.images]


@pytest.fixture
def no_indexing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("indexed again")

    monkeypatch.setattr(BIDSLayoutIndexer, "__call__", refuse)


def test_a_second_run_does_not_index_again(raw: Path, kept: Path, no_indexing: None) -> None:
    assert scans(raw, kept) == ["sub-01_T1w.nii.gz", "sub-02_T1w.nii.gz"]


def test_a_kept_index_serves_other_labels_and_filters(
    raw: Path, kept: Path, no_indexing: None
) -> None:
    assert scans(raw, kept, participant_labels=["02"]) == ["sub-02_T1w.nii.gz"]
    assert scans(raw, kept, filters={"t1w": {"suffix": "T2w"}}) == []


def change(raw: Path, how: str) -> list[str]:
    """Change a data set; the scans that it then has."""
    one, two = (raw / path for path in T1W)
    if how == "an image comes":
        (two.parent / "sub-02_FLAIR.nii.gz").touch()
    elif how == "an image goes":
        two.unlink()
        return [one.name]
    elif how == "an image gets another name":
        two.rename(two.with_name("sub-02_run-1_T1w.nii.gz"))
        return [one.name, "sub-02_run-1_T1w.nii.gz"]
    elif how == "a subject comes":
        shutil.copytree(raw / "sub-01", raw / "sub-03")
        (raw / "sub-03/anat/sub-01_T1w.nii.gz").rename(raw / image("sub-03_T1w.nii.gz"))
        return [one.name, two.name, "sub-03_T1w.nii.gz"]
    else:
        shutil.rmtree(raw / "sub-02")
        return [one.name]
    return [one.name, two.name]


@pytest.mark.parametrize(
    "how",
    ["an image comes", "an image goes", "an image gets another name", "a subject comes",
     "a subject goes"],
)  # fmt: skip
def test_a_change_of_the_data_set_is_noticed(
    raw: Path, kept: Path, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    expected = change(raw, how)
    caplog.set_level("INFO")
    assert scans(raw, kept) == expected
    assert "has changed, the index is regenerated" in caplog.text
    caplog.clear()
    assert scans(raw, kept) == expected
    assert "using the index in this folder" in caplog.text


def test_what_is_no_image_does_not_make_the_index_anew(
    raw: Path, kept: Path, no_indexing: None
) -> None:
    (raw / "participants.tsv").touch()
    (raw / "derivatives" / "x").mkdir(parents=True)
    (raw / T1W[0]).write_bytes(b"other content")
    assert len(scans(raw, kept)) == 2


def test_a_run_does_not_wait_for_one_that_holds_the_database(raw: Path, kept: Path) -> None:
    with closing(sqlite3.connect(kept / "layout_index.sqlite")) as other:
        other.execute("BEGIN EXCLUSIVE")
        assert len(scans(raw, kept)) == 2
        change(raw, "an image comes")
        assert len(scans(raw, kept)) == 2
        other.rollback()


@pytest.mark.parametrize("how", ["text", "empty", "half", "other tables"])
def test_a_broken_database_is_made_anew_with_a_warning(
    raw: Path, kept: Path, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    file = kept / "layout_index.sqlite"
    whole = file.read_bytes()
    file.write_bytes({"text": b"no database", "half": whole[: len(whole) // 2]}.get(how, b""))
    if how == "other tables":
        with closing(sqlite3.connect(file)) as connection, connection:
            connection.execute("CREATE TABLE x (y TEXT)")
    assert len(scans(raw, kept)) == 2
    assert "broken" in caplog.text
    caplog.clear()
    assert len(scans(raw, kept)) == 2
    assert caplog.text == ""


def test_the_database_of_another_data_set_is_refused(make: Make, kept: Path) -> None:
    with pytest.raises(DatasetError, match=r"database .* belongs to .*/raw, not to .*/other"):
        find_sessions(make(*T1W, root="other"), database_dir=kept)


def test_the_database_of_another_program_is_used_as_it_is(
    raw: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    theirs = BIDSLayout(raw, validate=False, database_path=tmp_path / "theirs")
    theirs.session.close()
    theirs.connection_manager.engine.dispose()
    before = (tmp_path / "theirs" / "layout_index.sqlite").read_bytes()
    caplog.set_level("INFO")
    assert len(scans(raw, tmp_path / "theirs")) == 2
    assert "written by another program" in caplog.text
    assert (tmp_path / "theirs" / "layout_index.sqlite").read_bytes() == before


def test_a_run_that_writes_nothing_keeps_no_index(raw: Path, tmp_path: Path) -> None:
    assert len(scans(raw, tmp_path / "db", keep_database=False)) == 2
    assert not (tmp_path / "db").exists()


def test_an_index_that_cannot_be_kept_costs_only_a_warning(
    raw: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "db").touch()  # no folder can be made here
    assert len(scans(raw, tmp_path / "db")) == 2
    assert "cannot be stored for the next run" in caplog.text

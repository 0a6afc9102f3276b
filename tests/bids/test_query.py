"""The query of BIDS_DIR: which sessions, which images, and what is refused."""

import shutil
from pathlib import Path

import pytest

from deepmrseg_bids.bids.query import Session, check_output_dir, find_sessions
from deepmrseg_bids.errors import DatasetError, UsageError
from tests.bids.conftest import Make, image
from tests.support import no_root


def names(sessions: list[Session]) -> list[str]:
    return [session.name for session in sessions]


TWO_BY_TWO = [
    image(f"sub-{subject}_ses-{session}_{suffix}.nii.gz")
    for subject in ("01", "02")
    for session in ("1", "2")
    for suffix in ("T1w", "FLAIR")
]


def test_each_visit_is_found_with_both_images(make: Make) -> None:
    raw = make(*TWO_BY_TWO)
    found = find_sessions(raw)
    assert names(found) == ["sub-01_ses-1", "sub-01_ses-2", "sub-02_ses-1", "sub-02_ses-2"]
    assert found[1].images["T1w"] == raw / image("sub-01_ses-2_T1w.nii.gz")
    assert found[1].images["FLAIR"] == raw / image("sub-01_ses-2_FLAIR.nii.gz")
    assert found[1].notes == ()


def test_a_data_set_without_sessions_and_without_gzip_is_found(make: Make) -> None:
    raw = make(image("sub-01_T1w.nii"))
    assert find_sessions(raw) == [Session("01", None, {"T1w": raw / image("sub-01_T1w.nii")})]


def test_a_relative_folder_gives_absolute_paths(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(make(image("sub-01_T1w.nii")))
    t1w = find_sessions(".")[0].images["T1w"]
    assert t1w is not None and t1w.is_absolute() and t1w.exists()


@pytest.mark.parametrize(
    "root", ["a b/ü 'q' \"d\" <script>", "func/sub-99/ses-9", "acq-x/desc-y", "x::y#z%20?", ".h/x"]
)
def test_the_folders_above_do_not_mislead(make: Make, root: str) -> None:
    raw = make(image("sub-01_ses-1_T1w.nii.gz"), root=root)
    t1w = raw / image("sub-01_ses-1_T1w.nii.gz")
    filters = {"t1w": {"datatype": "anat", "session": "1"}}
    assert find_sessions(raw, filters=filters) == [Session("01", "1", {"T1w": t1w})]


@pytest.mark.parametrize("labels", [["02"], ["sub-02"], ["sub-02", "02"]])
def test_participants_are_chosen_with_or_without_prefix(make: Make, labels: list[str]) -> None:
    found = find_sessions(make(*TWO_BY_TWO), participant_labels=labels)
    assert names(found) == ["sub-02_ses-1", "sub-02_ses-2"]
    assert all(set(session.images) == {"T1w", "FLAIR"} for session in found)


@pytest.mark.parametrize("labels", [["2"], ["ses-2"]])
def test_sessions_are_chosen_with_or_without_prefix(make: Make, labels: list[str]) -> None:
    found = find_sessions(make(*TWO_BY_TWO), session_labels=labels)
    assert names(found) == ["sub-01_ses-2", "sub-02_ses-2"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"participant_labels": ["1"]}, "unknown participant 1; known .*: 01, 02"),
        ({"participant_labels": ["01", "sub-x", ""]}, "unknown participant , x;"),
        ({"session_labels": ["3"]}, "unknown session 3; known .*: 1, 2"),
    ],
)
def test_an_unknown_label_is_answered_with_the_known_ones(
    make: Make, options: dict[str, list[str]], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        find_sessions(make(*TWO_BY_TWO), **options)  # type: ignore[arg-type]


def test_asking_for_a_session_where_there_are_none_says_so(make: Make) -> None:
    with pytest.raises(UsageError, match=r"known for .*: none"):
        find_sessions(make(image("sub-01_T1w.nii")), session_labels=["1"])


def test_a_long_list_of_known_labels_is_cut(make: Make) -> None:
    raw = make(*(f"sub-{number:03d}/" for number in range(60)))
    with pytest.raises(UsageError, match="039 and 20 more"):
        find_sessions(raw, participant_labels=["x"])


def test_a_session_without_t1w_comes_back_without_it(make: Make) -> None:
    raw = make(
        image("sub-01_ses-1_FLAIR.nii.gz"),
        "sub-01/ses-2/func/sub-01_ses-2_task-rest_bold.nii.gz",
        "sub-02/",
        image("sub-03_T1w.json"),
    )
    found = find_sessions(raw)
    assert names(found) == ["sub-01_ses-1", "sub-01_ses-2", "sub-02", "sub-03"]
    assert ["T1w" in session.images for session in found] == [False] * 4
    assert "FLAIR" in found[0].images


@pytest.mark.parametrize(
    ("others", "chosen"),
    [
        (["run-2_T1w.nii.gz", "run-10_T1w.nii.gz"], "run-2_T1w.nii.gz"),
        (["acq-a_T1w.nii.gz", "T1w.nii.gz"], "T1w.nii.gz"),
        (["ce-gd_run-1_T1w.nii.gz", "run-2_T1w.nii.gz"], "run-2_T1w.nii.gz"),
        (["rec-b_T1w.nii.gz", "rec-a_T1w.nii.gz"], "rec-a_T1w.nii.gz"),
        (["acq-a_rec-a_T1w.nii.gz", "acq-b_T1w.nii.gz"], "acq-b_T1w.nii.gz"),
        (["T1w.nii", "T1w.nii.gz"], "T1w.nii.gz"),
    ],
)
def test_one_of_several_is_chosen_and_the_choice_is_told(
    make: Make, others: list[str], chosen: str
) -> None:
    raw = make(*(image(f"sub-01_{name}") for name in others))
    (found,) = find_sessions(raw)
    assert found.images["T1w"] == raw / image(f"sub-01_{chosen}")
    (note,) = found.notes
    assert f"sub-01_{chosen} is used" in note and "--bids-filter-file" in note


def test_phase_images_are_not_taken_for_scans(make: Make) -> None:
    raw = make(image("sub-01_part-phase_T1w.nii.gz"), image("sub-02_part-mag_T1w.nii.gz"))
    found = find_sessions(raw)
    assert "T1w" not in found[0].images and "T1w" in found[1].images


@pytest.mark.parametrize(
    "odd",
    [
        "sub-01/anat/sub-02_T1w.nii.gz", "sub-01/anat/sub-01_ses-1_T1w.nii.gz",
        "sub-01/anat/sub-01_T1w_old.nii.gz", "sub-01/anat/._sub-01_T1w.nii.gz",
        "sub-01/func/sub-01_T1w.nii.gz", "sub-01_T1w.nii.gz", "sub-01/sub-01_T1w.nii.gz",
        "derivatives/x/sub-01/anat/sub-01_T1w.nii.gz", "sourcedata/sub-01/anat/sub-01_T1w.nii",
        "sub-01/anat/extra/sub-01_T1w.nii.gz", ".git/sub-01/anat/sub-01_T1w.nii.gz",
        "sub-01/anat/sub-01_T1w.nii.gz.bak", "sub-01/anat/sub-01_foo-1_T1w.nii.gz",
    ],
)  # fmt: skip
def test_what_only_looks_like_a_scan_is_left_out(make: Make, odd: str) -> None:
    assert find_sessions(make("sub-01/", odd)) == [Session("01", None, {})]


@pytest.mark.parametrize(
    ("asked", "chosen"),
    [
        ({"acquisition": "a"}, "acq-a_T1w.nii.gz"),
        ({"acquisition": ["b", "x"]}, "acq-b_run-1_T1w.nii.gz"),
        ({"acquisition": "*"}, "acq-a_T1w.nii.gz"),
        ({"acquisition": None}, "T1w.nii.gz"),
        ({"run": 1}, "acq-b_run-1_T1w.nii.gz"),
        ({"run": "*"}, "acq-b_run-1_T1w.nii.gz"),
        ({"acquisition": ["a", None], "run": None}, "T1w.nii.gz"),
        ({"suffix": "UNIT1"}, "UNIT1.nii.gz"),
        ({"session": None}, "T1w.nii.gz"),
        ({"session": "*"}, None),
        ({"subject": "sub-02"}, None),
        ({"datatype": "pet"}, None),
    ],
)
def test_filters_choose_as_in_the_nipreps_apps(
    make: Make, asked: dict[str, object], chosen: str | None
) -> None:
    scans = ["T1w.nii.gz", "acq-a_T1w.nii.gz", "acq-b_run-1_T1w.nii.gz", "UNIT1.nii.gz"]
    raw = make(*(image(f"sub-01_{name}") for name in scans), image("sub-01_FLAIR.nii.gz"))
    (found,) = find_sessions(raw, filters={"t1w": asked, "bold": {"task": "rest"}})
    assert found.images.get("T1w") == (None if chosen is None else raw / image(f"sub-01_{chosen}"))
    assert "FLAIR" in found.images


@pytest.mark.parametrize(
    ("filters", "message"),
    [
        ({"t1w": {"acq": "a"}}, "'t1w' cannot be used.*acq"),
        ({"t1w": ["acq-a"]}, "'t1w' must be an object"),
        ({"T1": {}}, "'T1'; 't1w' or 'flair'"),
        ({"t1w": {"suffix": {}}}, "'suffix' must be a string, a number, null or a list"),
        ({"t1w": {"run": [1, [2]]}}, "'run' must be a string, a number, null or a list"),
    ],
)
def test_a_wrong_filter_is_refused(make: Make, filters: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        find_sessions(make(image("sub-01_T1w.nii")), filters=filters)


def test_broken_json_and_tsv_beside_the_images_do_no_harm(make: Make) -> None:
    raw = make(image("sub-01_T1w.nii.gz"))
    for name in ("T1w.json", "sub-01/anat/sub-01_T1w.json", "participants.tsv"):
        (raw / name).write_bytes(b"{\xff\xfe not json")
    assert "T1w" in find_sessions(raw)[0].images


def test_a_broken_link_is_listed_for_the_reader_to_judge(make: Make) -> None:
    raw = make("sub-01/anat/")
    link = raw / image("sub-01_T1w.nii.gz")
    link.symlink_to("../nowhere/key")
    assert find_sessions(raw)[0].images["T1w"] == link


def test_linked_subject_folders_are_followed(make: Make, tmp_path: Path) -> None:
    store = make(image("sub-01_T1w.nii.gz"), root="store")
    raw = make()
    (raw / "sub-01").symlink_to(store / "sub-01", target_is_directory=True)
    assert find_sessions(raw)[0].images["T1w"] == raw / image("sub-01_T1w.nii.gz")


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="does not exist"):
        find_sessions(tmp_path / "none")


def test_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DatasetError, match="is not a folder"):
        find_sessions(tmp_path / "file")


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="is empty"):
        find_sessions(tmp_path)


def test_a_folder_without_subjects_is_refused(make: Make) -> None:
    with pytest.raises(DatasetError, match="no sub-<label> folder"):
        find_sessions(make("subject1/T1w.nii.gz"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no dataset_description.json"),
        (b"", "cannot be read as JSON"),
        (b"{", "cannot be read as JSON"),
        (b"\xff\xfe{", "cannot be read as JSON"),
        (b"[]", "Name and BIDSVersion"),
        (b'{"Name": "x"}', "Name and BIDSVersion"),
    ],
)
def test_a_description_is_asked_for_unless_validation_is_skipped(
    make: Make, content: bytes | None, message: str
) -> None:
    raw = make(image("sub-01_T1w.nii.gz"))
    description = raw / "dataset_description.json"
    description.unlink()
    if content is not None:
        description.write_bytes(content)
    with pytest.raises(DatasetError, match=message) as caught:
        find_sessions(raw)
    assert str(raw) in str(caught.value)
    if content != b"[]":
        assert "T1w" in find_sessions(raw, validate=False)[0].images


def test_output_may_lie_beside_the_input_or_in_its_derivatives(make: Make, tmp_path: Path) -> None:
    raw = make(*TWO_BY_TWO)
    for out in (tmp_path / "out" / "new", raw / "derivatives" / "deepmrseg"):
        check_output_dir(raw, out, tmp_path / "work")
        assert out.is_dir() and not any(out.iterdir())


def test_a_dry_run_creates_nothing(make: Make, tmp_path: Path) -> None:
    check_output_dir(make(*TWO_BY_TWO), tmp_path / "out", create=False)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("out", "work", "message"),
    [
        ("raw", None, "OUT_DIR is BIDS_DIR"),
        ("raw/../raw/", None, "OUT_DIR is BIDS_DIR"),
        ("link", None, "OUT_DIR is BIDS_DIR"),
        ("raw/out", None, "inside the input data set"),
        ("link/sub-01/derivatives", None, "inside the input data set"),
        ("out", "raw", "work folder"),
        ("out", "raw/work", "work folder"),
        ("out", "link/derivatives/work", "work folder"),
        ("file", None, "cannot be written"),
        ("file/below", None, "cannot be written"),
        ("loop", None, "cannot be"),
    ],
)
def test_output_among_the_inputs_or_not_writable_is_refused(
    make: Make, tmp_path: Path, out: str, work: str | None, message: str
) -> None:
    raw = make(*TWO_BY_TWO)
    (tmp_path / "link").symlink_to(raw, target_is_directory=True)
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "file").touch()
    with pytest.raises(DatasetError, match=message):
        check_output_dir(raw, tmp_path / out, None if work is None else tmp_path / work)


def test_a_read_only_parent_is_refused(make: Make, open_folder: Path) -> None:
    shutil.copytree(make(*TWO_BY_TWO), raw := open_folder / "raw")
    raw.chmod(0o755)
    (closed := open_folder / "closed").mkdir(mode=0o555)
    with no_root(), pytest.raises(DatasetError, match="cannot be written"):
        check_output_dir(raw, closed / "out")
    closed.chmod(0o777)
    with no_root():
        check_output_dir(raw, closed / "out")

"""Finding the label map of a reference by the entities of its name."""

from __future__ import annotations

from pathlib import Path

import pytest

from deepmrseg_bids.bids.names import BidsName
from deepmrseg_bids.bids.references import Reference, parse_reference, read_references
from deepmrseg_bids.errors import DatasetError, LabelTableError, UsageError
from deepmrseg_bids.imaging.labels import Label, LabelTable
from deepmrseg_bids.tasks.registry import find_task

OURS = BidsName.parse("sub-01_ses-1_run-2_seg-deepbrain_dseg.nii.gz")
TABLE = LabelTable((Label(1, "Left-Caudate"), Label(2, "Right-Caudate")))
THEIRS = "index\tname\n11\tLeft-Caudate\n50\tRight-Caudate\n"


@pytest.fixture
def reference(tmp_path: Path) -> Reference:
    """An empty data set with a label table at its root."""
    (tmp_path / "dseg.tsv").write_text(THEIRS)
    return Reference("manual", tmp_path)


def put(reference: Reference, *files: str) -> None:
    """Empty images; only their names matter."""
    for name in files:
        path = reference.folder / "sub-01" / "ses-1" / "anat" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def chosen(reference: Reference, ours: BidsName = OURS, task: str = "deepbrain") -> str | None:
    match = reference.find(ours, find_task(task), TABLE)
    return match.path.name if match else None


@pytest.mark.parametrize(
    "name",
    [
        "sub-01_ses-1_dseg.nii.gz",
        "sub-01_ses-1_run-2_dseg.nii",
        "sub-01_ses-1_run-2_desc-manual_dseg.nii.gz",
        "sub-01_ses-1_space-T1w_seg-aseg_dseg.nii.gz",
    ],
)
def test_a_reference_may_leave_out_entities_and_add_its_own(
    reference: Reference, name: str
) -> None:
    put(reference, name)
    assert chosen(reference) == name
    match = reference.find(OURS, find_task("deepbrain"), TABLE)
    assert match is not None and match.labels == {1: 11, 2: 50} and match.by_name


@pytest.mark.parametrize(
    "name",
    [
        "sub-01_ses-1_run-1_dseg.nii.gz",
        "sub-01_ses-1_acq-fast_dseg.nii.gz",
        "sub-01_ses-1_space-MNI152NLin6Asym_dseg.nii.gz",
        "sub-01_ses-1_space-FLAIR_dseg.nii.gz",
        "sub-01_ses-1_desc-brain_mask.nii.gz",
        "sub-01_ses-1_probseg.nii.gz",
        "notes.txt",
    ],
)
def test_what_is_of_another_image_or_space_or_kind_is_not_taken(
    reference: Reference, name: str
) -> None:
    put(reference, name)
    assert chosen(reference) is None


def test_the_closest_name_is_taken_and_the_task_decides(reference: Reference) -> None:
    put(reference, "sub-01_ses-1_dseg.nii.gz", "sub-01_ses-1_run-2_dseg.nii.gz")
    assert chosen(reference) == "sub-01_ses-1_run-2_dseg.nii.gz"
    put(reference, "sub-01_ses-1_seg-deepbrain_dseg.nii.gz")
    assert chosen(reference) == "sub-01_ses-1_seg-deepbrain_dseg.nii.gz"


def test_two_that_fit_equally_well_are_an_error_that_names_both(reference: Reference) -> None:
    put(reference, "sub-01_ses-1_desc-a_dseg.nii.gz", "sub-01_ses-1_desc-b_dseg.nii.gz")
    with pytest.raises(
        DatasetError, match=r"desc-a_dseg.*desc-b_dseg.*equally well.*seg-deepbrain$"
    ):
        chosen(reference)


def test_a_brain_mask_comes_before_any_label_map_and_lesions_are_no_brain(
    reference: Reference,
) -> None:
    ours = BidsName.parse("sub-01_ses-1_desc-brain_mask.nii.gz")
    put(reference, "sub-01_ses-1_seg-wml_dseg.nii.gz")
    assert chosen(reference, ours, "brain") is None
    put(reference, "sub-01_ses-1_seg-muse_dseg.nii.gz")
    assert chosen(reference, ours, "brain") == "sub-01_ses-1_seg-muse_dseg.nii.gz"
    put(reference, "sub-01_ses-1_desc-brain_mask.nii.gz")
    assert chosen(reference, ours, "brain") == "sub-01_ses-1_desc-brain_mask.nii.gz"


def test_the_label_table_nearest_to_the_image_holds(reference: Reference) -> None:
    put(reference, "sub-01_ses-1_dseg.nii.gz")
    (reference.folder / "sub-01/ses-1/anat/sub-01_ses-1_dseg.tsv").write_text(
        "index\tname\n3\tLeft-Caudate\n"
    )
    (reference.folder / "sub-01/ses-1/anat/sub-01_ses-1_seg-other_dseg.tsv").write_text("x")
    match = reference.find(OURS, find_task("deepbrain"), TABLE)
    assert match is not None and match.labels == {1: 3}


def test_a_table_with_other_structures_is_told(reference: Reference) -> None:
    (reference.folder / "dseg.tsv").write_text("index\tname\n16\tBrain-Stem\n7\tCerebellum\n")
    put(reference, "sub-01_ses-1_dseg.nii.gz")
    with pytest.raises(DatasetError, match="none of the structures of deepbrain"):
        chosen(reference)


def test_numbers_without_a_table_mean_nothing_unless_the_file_says_the_task(
    reference: Reference,
) -> None:
    (reference.folder / "dseg.tsv").unlink()
    put(reference, "sub-01_ses-1_dseg.nii.gz")
    with pytest.raises(DatasetError, match=r"has no label table.*add a _dseg.tsv"):
        chosen(reference)
    put(reference, "sub-01_ses-1_seg-deepbrain_dseg.nii.gz")
    match = reference.find(OURS, find_task("deepbrain"), TABLE)
    assert match is not None and match.labels == {1: 1, 2: 2} and not match.by_name


def test_a_broken_label_table_is_an_error(reference: Reference) -> None:
    (reference.folder / "dseg.tsv").write_text("index\tname\nx\ty\n")
    put(reference, "sub-01_ses-1_dseg.nii.gz")
    with pytest.raises(LabelTableError, match=r"dseg\.tsv"):
        chosen(reference)


def test_references_are_named_by_hand_or_by_their_folder(tmp_path: Path) -> None:
    folder = tmp_path / "dlmuse"
    folder.mkdir()
    assert parse_reference(str(folder)) == ("dlmuse", folder)
    assert parse_reference(f"manual={folder}") == ("manual", folder)
    odd = tmp_path / "a=b"
    odd.mkdir()
    with pytest.raises(UsageError, match="give one as NAME=DIR"):
        parse_reference(str(odd))  # it is the folder, whose name no table should hold
    assert parse_reference(f"ab={odd}") == ("ab", odd)


@pytest.mark.parametrize("text", ["nowhere", "manual=nowhere", "", "manual=", "file.txt"])
def test_what_is_not_a_folder_is_wrong_usage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file.txt").touch()
    with pytest.raises(UsageError, match="not a folder; a BIDS derivatives"):
        read_references([text])


def test_two_references_need_two_names(tmp_path: Path) -> None:
    for parent in ("a", "b"):
        (tmp_path / parent / "labels").mkdir(parents=True)
    both = [str(tmp_path / "a" / "labels"), str(tmp_path / "b" / "labels")]
    with pytest.raises(UsageError, match=r"named labels.*NAME=DIR"):
        read_references(both)
    assert [one.name for one in read_references([both[0], f"b={both[1]}"])] == ["labels", "b"]


@pytest.mark.parametrize("other", ["wml", "hippocampus"])
def test_a_label_map_of_another_task_is_not_taken(reference: Reference, other: str) -> None:
    put(reference, f"sub-01_ses-1_seg-{other}_dseg.nii.gz")
    assert chosen(reference) is None

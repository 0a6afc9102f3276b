"""Names: taken apart and put together again, and one path for every file of OUT_DIR."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepmrseg_bids.bids import names
from deepmrseg_bids.bids.names import ENTITIES, BidsName
from deepmrseg_bids.errors import DatasetError
from deepmrseg_bids.tasks.registry import find_task

T1W = "sub-01_ses-2_run-1_T1w.nii.gz"
ANAT = "sub-01/ses-2/anat"
BRAIN, DEEPBRAIN, WML = (find_task(name).label_map for name in ("brain", "deepbrain", "wml"))
LABELS = st.text("abcXYZ019", min_size=1, max_size=6)
NAMES = st.builds(
    lambda entities, suffix, extension: BidsName(
        tuple({"sub": "01", **entities}.items()), suffix, extension
    ),
    st.dictionaries(st.sampled_from(ENTITIES), LABELS, max_size=6),
    st.sampled_from(["T1w", "FLAIR", "dseg", "morph"]),
    st.sampled_from([".nii.gz", ".nii", ".json", ".tsv"]),
)


@given(NAMES)
def test_a_name_survives_the_round_trip(name: BidsName) -> None:
    assert BidsName.parse(str(name)) == name


@given(NAMES)
def test_entities_come_in_the_official_order(name: BidsName) -> None:
    places = [ENTITIES.index(key) for key, _ in name.entities]
    assert places == sorted(places)


@given(NAMES)
def test_a_source_stem_is_the_name_without_its_last_part(name: BidsName) -> None:
    assert str(name) == f"{names.source_stem(str(name))}_{name.suffix}{name.extension}"


@given(NAMES, LABELS)
def test_an_entity_put_in_can_be_taken_out(name: BidsName, label: str) -> None:
    bare = name.replace(desc=None)
    assert bare.replace(desc=label).replace(desc=None) == bare


def test_the_folder_of_a_path_does_not_matter() -> None:
    assert BidsName.parse("/a b/sub-99/é/sub-01_T1w.nii").get("sub") == "01"


@pytest.mark.parametrize(
    "bad",
    [
        "", "T1w.nii.gz", "sub-01_T1w", "sub-01_T1w.", "sub01_T1w.nii", "sub-_T1w.nii",
        "sub-01_T1w_defaced.nii.gz", "sub-01_foo-1_T1w.nii", "sub-01_sub-02_T1w.nii",
        "sub-ä_T1w.nii", "sub-0 1_T1w.nii", "sub-01_ses-<script>_T1w.nii", "sub-01_.nii.gz",
        "sub-01__T1w.nii", "._sub-01_T1w.nii.gz",
    ],
)  # fmt: skip
def test_what_is_not_a_bids_name_is_refused_and_named(bad: str) -> None:
    with pytest.raises(DatasetError, match="is not a BIDS") as caught:
        BidsName.parse(bad)
    assert repr(bad) in str(caught.value)


@pytest.mark.parametrize(("label", "bare"), [("sub-01", "01"), ("01", "01"), ("sub", "sub")])
def test_a_label_comes_with_or_without_its_key(label: str, bare: str) -> None:
    assert names.strip_prefix(label, "sub") == bare


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (names.label_map_path(T1W, BRAIN), f"{ANAT}/sub-01_ses-2_run-1_desc-brain_mask.nii.gz"),
        (names.label_map_path(T1W, WML), f"{ANAT}/sub-01_ses-2_run-1_seg-wml_dseg.nii.gz"),
        (
            names.label_map_path("sub-01_ses-2_FLAIR.nii", WML, space="FLAIR"),
            f"{ANAT}/sub-01_ses-2_space-FLAIR_seg-wml_dseg.nii.gz",
        ),
        (
            names.label_map_path(T1W, DEEPBRAIN, space="MNI152NLin6Asym", res="2"),
            f"{ANAT}/sub-01_ses-2_run-1_space-MNI152NLin6Asym_seg-deepbrain_res-2_dseg.nii.gz",
        ),
        (
            names.label_map_path(T1W, BRAIN, space="MNI152NLin6Asym"),
            f"{ANAT}/sub-01_ses-2_run-1_space-MNI152NLin6Asym_desc-brain_mask.nii.gz",
        ),
        (names.probabilities_path(T1W, "wml"), f"{ANAT}/sub-01_ses-2_run-1_seg-wml_probseg.nii.gz"),
        (names.morph_path(T1W, "wml"), f"{ANAT}/sub-01_ses-2_run-1_seg-wml_morph.tsv"),
        (
            names.transform_path(T1W, "T1w", "MNI152NLin6Asym", ".h5"),
            f"{ANAT}/sub-01_ses-2_run-1_from-T1w_to-MNI152NLin6Asym_mode-image_xfm.h5",
        ),
        (
            names.figure_path(T1W, "overlay", task="wml"),
            "sub-01/figures/sub-01_ses-2_run-1_seg-wml_desc-overlay_dseg.svg",
        ),
        (
            names.figure_path(T1W, "input", extension=".png"),
            "sub-01/figures/sub-01_ses-2_run-1_desc-input_T1w.png",
        ),
        (names.report_path("sub-01"), "sub-01.html"),
        (names.group_report_path(), "group.html"),
        (names.label_table_path("wml"), "seg-wml_dseg.tsv"),
        (names.group_path("wml"), "group_seg-wml_morph.tsv"),
        (names.group_path("wml", "agreement"), "group_seg-wml_agreement.tsv"),
        (names.anat_folder("sub-01_T1w.nii"), "sub-01/anat"),
        (names.sidecar_path("a.b/x_dseg.nii.gz"), "a.b/x_dseg.json"),
        (names.sidecar_path("x_morph.tsv"), "x_morph.json"),
    ],
)
def test_each_output_is_where_the_contract_says(path: object, expected: str) -> None:
    assert str(path) == expected


def test_a_source_that_names_no_subject_has_no_outputs() -> None:
    with pytest.raises(DatasetError, match="names no subject"):
        names.morph_path("ses-1_T1w.nii.gz", "wml")


def test_a_bids_uri_names_the_data_set_and_the_path() -> None:
    assert names.bids_uri("sub-01/anat/a_T1w.nii", "raw") == "bids:raw:sub-01/anat/a_T1w.nii"
    assert names.bids_uri("sub-01/a.nii") == "bids::sub-01/a.nii"
    assert names.bids_uri("a b/<é>.nii") == "bids::a%20b/%3C%C3%A9%3E.nii"


@pytest.mark.parametrize("bad", ["/abs/sub-01_T1w.nii", "../sub-01_T1w.nii", ""])
def test_a_bids_uri_cannot_leave_its_data_set(bad: str) -> None:
    with pytest.raises(ValueError, match="inside the data set"):
        names.bids_uri(bad, "raw")

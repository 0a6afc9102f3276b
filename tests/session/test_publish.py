"""The files of a session: their names, what they say, and that they are the same again."""

import json

import pytest

from tests.session.conftest import DARK, STEM, published, segmentation


@pytest.mark.parametrize("probabilities", [False, True])
def test_exactly_the_files_that_are_named_are_published(session, tmp_path, probabilities):
    results = [("brain", segmentation("brain")), ("deepbrain", segmentation("deepbrain"))]
    outcome = session(results, probabilities=probabilities)
    assert [(task.task, task.status) for task in outcome.tasks] == [
        ("brain", "done"),
        ("deepbrain", "done"),
    ]
    endings = ["desc-brain_mask", "seg-brain_morph", "seg-deepbrain_dseg", "seg-deepbrain_morph"]
    if probabilities:
        endings.append("seg-deepbrain_probseg")
    expected = {f"{STEM}_{ending}.json" for ending in endings}
    expected |= {f"{STEM}_{ending}.{'tsv' if 'morph' in ending else 'nii.gz'}"
                 for ending in endings}  # fmt: skip
    files = published(tmp_path)
    assert expected <= files
    assert files == {name for task in outcome.tasks for name in task.files}
    if not probabilities:
        assert files == expected
    assert list((tmp_path / "work").iterdir()) == []


def test_a_sidecar_names_sources_models_and_findings(session, tmp_path):
    outcome = session([("deepbrain", segmentation("deepbrain", DARK))])
    tree = json.loads((tmp_path / "out" / f"{STEM}_seg-deepbrain_dseg.json").read_text())
    uri = "bids:raw:sub-01/ses-2/anat/sub-01_ses-2_T1w.nii.gz"
    assert tree["Sources"] == [uri] == list(tree["InputSHA256"])
    assert tree["SpatialReference"] == uri
    assert set(tree["Models"]) == {"brain", "icv", "outline", "deepbrain"}
    assert "dark é" in tree["Warnings"]
    assert DARK.to_json() in tree["Findings"]
    assert tree["Parameters"] == {"Precision": "float32", "FlipAveraging": False}
    assert outcome.tasks[0].model == "1 deepbrain-01"
    assert DARK in outcome.tasks[0].findings


def test_the_sidecar_of_a_label_map_states_the_methods_and_the_others_do_not(session, tmp_path):
    session([("deepbrain", segmentation("deepbrain"))], probabilities=True)
    anat = tmp_path / "out" / STEM
    trees = {
        ending: json.loads(anat.with_name(f"{anat.name}_seg-deepbrain_{ending}.json").read_text())
        for ending in ("dseg", "morph", "probseg")
    }
    stated = trees["dseg"]["Methods"]
    assert stated["Text"].startswith("Segmented structures: brain.")
    assert set(stated["Models"]) == {"brain", "icv", "outline", "deepbrain"}
    assert "Methods" not in trees["morph"] and "Methods" not in trees["probseg"]


def test_volumes_are_percentages_of_the_brain_and_of_the_inside_of_the_skull_that_the_json_states(
    session, tmp_path
):
    session([("deepbrain", segmentation("deepbrain"))])
    header, row = (
        (tmp_path / "out" / f"{STEM}_seg-deepbrain_morph.tsv").read_text().strip().split("\n")
    )
    found = dict(zip(header.split("\t"), row.split("\t"), strict=True))
    assert float(found["volume_brain_percent"]) == pytest.approx(50)
    assert float(found["volume_icv_percent"]) == pytest.approx(40)
    assert float(found["volume_mm3"]) == pytest.approx(8)
    columns = json.loads((tmp_path / "out" / f"{STEM}_seg-deepbrain_morph.json").read_text())
    for column in ("volume_brain_percent", "volume_icv_percent"):
        whole = columns[column]["DenominatorVolume"]
        assert float(found["volume_mm3"]) == pytest.approx(whole * float(found[column]) / 100)


def test_the_same_scan_gives_the_same_bytes(session, tmp_path):
    session([("deepbrain", segmentation("deepbrain"))], probabilities=True)
    before = {name: (tmp_path / "out" / name).read_bytes() for name in published(tmp_path)}
    for name in before:
        (tmp_path / "out" / name).unlink()
    session([("deepbrain", segmentation("deepbrain"))], probabilities=True)
    assert before == {name: (tmp_path / "out" / name).read_bytes() for name in published(tmp_path)}

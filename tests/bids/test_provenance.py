"""What counts as finished: the same inputs, software, models and parameters, and whole files."""

import json
import os
from dataclasses import fields, replace

import pytest

from deepmrseg_bids.bids.provenance import (
    Digests,
    FileDigest,
    Provenance,
    findings_of,
    same_provenance,
)
from deepmrseg_bids.findings import Finding
from deepmrseg_bids.inference.bundle import file_sha256

MADE = Provenance(
    inputs={"bids:raw:a": "1"},
    software={"torch": "2"},
    models={"brain": {"Version": "1", "SHA256": "f"}},
    parameters={"Precision": "float32"},
)


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "scan.nii.gz"
    path.write_bytes(b"first")
    return path


def test_a_file_that_has_not_changed_is_read_once(image, tmp_path, monkeypatch):
    digests = Digests(tmp_path / "inputs.tsv")
    assert digests.sha256(image) == file_sha256(image)
    monkeypatch.setattr(FileDigest, "of", lambda _: pytest.fail("read again"))
    assert digests.sha256(image) == file_sha256(image)
    digests.save()
    assert Digests.read(tmp_path / "inputs.tsv").sha256(image) == file_sha256(image)


@pytest.mark.parametrize("change", ["size", "time"])
def test_a_file_that_changed_is_read_again(image, tmp_path, change):
    digests = Digests(tmp_path / "inputs.tsv")
    before = digests.sha256(image)
    image.write_bytes(b"second" if change == "size" else b"other")
    os.utime(image, ns=(0, image.stat().st_mtime_ns + (change == "time")))
    assert digests.sha256(image) == file_sha256(image) != before


def test_what_a_worker_found_out_is_remembered(image, tmp_path, monkeypatch):
    digests = Digests(tmp_path / "inputs.tsv")
    digests.add([FileDigest.of(image)])
    monkeypatch.setattr(FileDigest, "of", lambda _: pytest.fail("read again"))
    assert digests.sha256(image)


@pytest.mark.parametrize("text", ["", "path\tsize\n", "path\tsize\tmtime_ns\tsha256\na\tb\tc\td\n",
                                  "\x00\xff"])  # fmt: skip
def test_a_table_that_cannot_be_read_only_costs_time(image, tmp_path, text):
    table = tmp_path / "inputs.tsv"
    table.write_bytes(text.encode("latin-1"))
    assert Digests.read(table).sha256(image) == file_sha256(image)


DARK = Finding("contrast-doubtful", "warning", "dark")


@pytest.fixture
def outputs(tmp_path):
    (tmp_path / "x_dseg.nii.gz").write_bytes(b"image")
    tree = {**MADE.to_json(), "Findings": [DARK.to_json(), {"Code": 1}, 2], "Type": "B"}
    (tmp_path / "x_dseg.json").write_text(json.dumps(tree))
    return tmp_path


def test_files_made_the_same_way_are_finished(outputs):
    assert same_provenance(outputs, ["x_dseg.nii.gz"], MADE)
    assert findings_of(outputs, "x_dseg.nii.gz") == (DARK,)


@pytest.mark.parametrize("part", [field.name for field in fields(Provenance)])
def test_whatever_made_it_otherwise_makes_it_unfinished(outputs, part):
    other = replace(MADE, **{part: {"other": {"Version": "x"}}})
    assert not same_provenance(outputs, ["x_dseg.nii.gz"], other)


def test_where_it_does_not_matter_what_made_them_the_files_must_only_be_there(outputs):
    assert same_provenance(outputs, ["x_dseg.nii.gz"], None)
    assert not same_provenance(outputs, ["x_dseg.nii.gz", "y_dseg.nii.gz"], None)


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "x_dseg.nii.gz").unlink(),
        lambda folder: (folder / "x_dseg.nii.gz").write_bytes(b""),
        lambda folder: (folder / "x_dseg.json").unlink(),
        lambda folder: (folder / "x_dseg.json").write_text("{"),
        lambda folder: (folder / "x_dseg.json").write_text("[]"),
    ],
)
def test_a_missing_or_broken_file_is_unfinished(outputs, damage):
    damage(outputs)
    assert not same_provenance(outputs, ["x_dseg.nii.gz"], MADE)

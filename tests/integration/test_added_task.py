"""A package made on the fly adds a task: a value under an entry point is all that it takes."""

from __future__ import annotations

import json
import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from tests.integration.conftest import Finished, app, command, read_tsv

PACKAGE = '''\
"""The bright core of a made-up head, both halves, by its level alone."""

import numpy as np

from deepmrseg_bids.imaging.labels import Label, LabelTable
from deepmrseg_bids.imaging.nifti import LabelMap
from deepmrseg_bids.tasks.brain import brain_of
from deepmrseg_bids.tasks.results import Measure, Segmentation, found_in
from deepmrseg_bids.tasks.spec import TaskSpec

TABLE = LabelTable((Label(3, "Left-Core", "LC"), Label(4, "Right-Core", "RC")))


def segment(context):
    volume, brain = context.t1w, brain_of(context)
    bright = brain.mask_on(volume.grid) & (volume.data > 125)
    right = np.arange(bright.shape[0])[:, None, None] >= bright.shape[0] / 2
    labels = np.where(bright, np.where(right, 4, 3), 0).astype(np.uint8)
    size = volume.grid.voxel_volume
    rows = tuple(
        Measure(label.index, label.name, float((labels == label.index).sum()) * size)
        for label in TABLE
    )
    return found_in(brain, Segmentation("core", LabelMap(labels, volume.grid), TABLE, rows))


TASK = TaskSpec(
    name="core",
    title="Bright core",
    description="The bright core",
    segment=segment,
    segment_prepared=lambda images, predictor: None,
    models=("brain",),
    table=TABLE,
    methods="The core was taken by its brightness.",
)
'''


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a process (a cold one) in which the package is installed."""
    site = tmp_path_factory.mktemp("site")
    (site / "bright_core.py").write_text(PACKAGE)
    about = site / "bright_core-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: bright-core\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[deepmrseg_bids.tasks]\ncore = bright_core:TASK\n")
    return {"PYTHONPATH": os.pathsep.join(filter(None, (str(site), os.environ.get("PYTHONPATH"))))}


@pytest.fixture(scope="module")
def study(
    tiny_data: Path, tiny_model: Path, installed: dict[str, str],
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Path, Finished]:  # fmt: skip
    """OUT_DIR after the participant level with the added task, on three people."""
    out = tmp_path_factory.mktemp("added") / "out"
    ended = app(
        tiny_data, out, "participant", "--participant-label", "01", "02", "03",
        "--tasks", "brain", "core", "--model", f"brain={tiny_model}", "--nprocs", 1,
        home=out.parent / "home", variables=installed,
        cold=True,
    )  # fmt: skip
    return out, ended


def test_an_added_task_writes_label_map_table_sidecar_and_label_table(
    study: tuple[Path, Finished],
) -> None:
    out, ended = study
    assert ended.code == 0, ended.output
    anat = out / "sub-01" / "anat"
    labels = np.asarray(nib.load(anat / "sub-01_seg-core_dseg.nii.gz").dataobj)
    assert set(np.unique(labels)) == {0, 3, 4}
    rows = read_tsv(anat / "sub-01_seg-core_morph.tsv")
    assert [row["name"] for row in rows] == ["Left-Core", "Right-Core"]
    assert all(float(row["volume_mm3"]) > 10_000 for row in rows)
    assert [row["name"] for row in read_tsv(out / "seg-core_dseg.tsv")] == [
        "Left-Core",
        "Right-Core",
    ]
    sidecar = json.loads((anat / "sub-01_seg-core_dseg.json").read_text())
    assert sidecar["Description"] == "The bright core"
    assert "by its brightness" in sidecar["Methods"]["Text"]


def test_the_page_and_the_log_know_an_added_task(study: tuple[Path, Finished]) -> None:
    out, _ = study
    page = (out / "sub-01.html").read_text(encoding="utf-8")
    assert "Bright core" in page and "by its brightness" in page
    status = {(row["task"], row["status"]) for row in read_tsv(out / "logs" / "sessions.tsv")}
    assert status == {("brain", "done"), ("core", "done")}


def test_a_second_run_does_nothing_of_an_added_task_again(
    study: tuple[Path, Finished], tiny_data: Path, tiny_model: Path, installed: dict[str, str]
) -> None:
    out, _ = study
    made = (out / "sub-02" / "anat" / "sub-02_seg-core_dseg.nii.gz").stat().st_mtime_ns
    ended = app(
        tiny_data, out, "participant", "--participant-label", "02", "--tasks", "core",
        "--model", f"brain={tiny_model}", home=out.parent / "home", variables=installed,
        cold=True,
    )  # fmt: skip
    assert ended.code == 0, ended.output
    assert (out / "sub-02" / "anat" / "sub-02_seg-core_dseg.nii.gz").stat().st_mtime_ns == made


def test_a_dry_run_plans_an_added_task(
    tiny_data: Path, tiny_model: Path, installed: dict[str, str], tmp_path: Path
) -> None:
    ended = app(
        tiny_data, tmp_path / "out", "participant", "--dry-run", "--tasks", "core",
        "--model", f"brain={tiny_model}", home=tmp_path / "home", variables=installed,
        cold=True,
    )  # fmt: skip
    assert ended.code == 0, ended.output
    assert ended.output.count("\tcore\t") == 8


def test_the_group_level_gathers_an_added_task_and_compares_it_with_a_reference(
    study: tuple[Path, Finished], tiny_data: Path, installed: dict[str, str], tmp_path: Path
) -> None:
    out, _ = study
    manual = tmp_path / "manual"
    for number in (1, 2, 3):
        name = f"sub-{number:02d}"
        folder = manual / name / "anat"
        folder.mkdir(parents=True)
        ours = nib.load(out / name / "anat" / f"{name}_seg-core_dseg.nii.gz")
        nib.save(ours, folder / f"{name}_seg-core_dseg.nii.gz")
    (manual / "dseg.tsv").write_text("index\tname\n3\tLeft-Core\n4\tRight-Core\n")
    ended = app(
        tiny_data,
        out,
        "group",
        "--reference",
        manual,
        home=tmp_path / "home",
        variables=installed,
        cold=True,
    )
    assert ended.code == 0, ended.output
    table = read_tsv(out / "group_seg-core_morph.tsv")
    assert len(table) == 3 and float(table[0]["Left-Core"]) > 10_000
    agreement = read_tsv(out / "group_seg-core_agreement.tsv")
    assert len(agreement) == 6 and {row["f1"] for row in agreement} == {"1.00000"}
    assert "Bright core" in (out / "group.html").read_text(encoding="utf-8")


def test_results_of_an_added_task_can_be_gathered_without_its_package(
    study: tuple[Path, Finished], tiny_data: Path, tmp_path: Path
) -> None:
    out, _ = study
    ended = app(tiny_data, out, "group", "--no-reports", home=tmp_path / "home")
    assert ended.code == 0, ended.output
    assert len(read_tsv(out / "group_seg-core_morph.tsv")) == 3


def test_predict_and_help_offer_an_added_task(
    tiny_data: Path, tiny_model: Path, installed: dict[str, str], tmp_path: Path
) -> None:
    scan = tiny_data / "sub-01" / "anat" / "sub-01_T1w.nii.gz"
    ended = command(
        "deepmrseg", "predict", "--task", "core", "--model", f"brain={tiny_model}", scan,
        "-o", tmp_path / "out", home=tmp_path / "home", variables=installed,
        cold=True,
    )  # fmt: skip
    assert ended.code == 0, ended.output
    assert (tmp_path / "out" / "sub-01_seg-core_dseg.nii.gz").is_file()
    told = app("--help", home=tmp_path / "home", variables=installed, cold=True).output
    assert "wml, core" in " ".join(told.split())

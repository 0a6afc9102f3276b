"""The tutorial on a structure of one's own, run as it is written, on small made-up heads."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from tests.integration.conftest import read_tsv
from tests.tiny import tiny_head

PAGE = Path(__file__).parents[2] / "docs" / "tutorial_own_structure.md"
SMALLER = {  # what makes the training of the page one of seconds: heads have voxels of 4 mm
    "spacing = 1.0": "spacing = 4.0",
    "width = 16": "width = 8",
    "depth = 3": "depth = 1",
    "patch = 2": "patch = 1",
    "shape = [80, 72, 64]": "shape = [16, 16, 16]",
    "crop = [64, 64, 48]": "crop = [16, 16, 16]",
    "steps = 1200": "steps = 60\nlearning_rate = 0.01",
    "folds = 4": "folds = 2",
    "rotate_deg = 12": "rotate_deg = 2",
    "elastic_mm = 1.5": "elastic_mm = 0.0",
}


def blocks(kind: str) -> list[str]:
    """The code blocks of a kind in the page."""
    return re.findall(rf"```{kind}\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


def halves(head: nib.Nifti1Image) -> nib.Nifti1Image:
    """The bright core of a made-up head: 1 on the left, 2 on the right."""
    data = np.asarray(head.dataobj)
    core = np.zeros(data.shape, np.uint8)
    middle = [edge / 2 for edge in data.shape]
    steps = [np.arange(edge) + 0.5 - half for edge, half in zip(data.shape, middle, strict=True)]
    away = np.meshgrid(*steps, indexing="ij")
    inside = sum(
        ((place * 4 - centre) / radius) ** 2
        for place, centre, radius in zip(away, (0, -5, 0), (26, 30, 18), strict=True)
    )
    core[inside <= 1] = 1
    core[(inside <= 1) & (away[0] > 0)] = 2
    return nib.Nifti1Image(core, head.affine)


@pytest.fixture(scope="module")
def place(tiny_data: Path, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which all commands of the page were run; each must succeed."""
    root = tmp_path_factory.mktemp("tutorial")
    for folder in ("images", "labels"):
        (root / "mine" / folder).mkdir(parents=True)
    for number in range(1, 9):
        head = tiny_head(100 + number)
        nib.save(head, root / "mine" / "images" / f"p{number:02d}.nii.gz")
        nib.save(halves(head), root / "mine" / "labels" / f"p{number:02d}.nii.gz")
    nib.save(tiny_head(200), root / "new_head.nii.gz")
    manual = root / "manual" / "sub-01" / "anat"
    manual.mkdir(parents=True)
    nib.save(halves(tiny_head(1)), manual / "sub-01_seg-thalamus_dseg.nii.gz")
    (settings,) = blocks("toml")
    for written, smaller in SMALLER.items():
        assert written in settings, f"the settings of the page have no {written!r}"
        settings = settings.replace(written, smaller)
    (root / "mine" / "thalamus.toml").write_text(settings)
    (root / "data").symlink_to(tiny_data)
    bin_folder = root / "bin"
    bin_folder.mkdir()
    for name in ("deepmrseg", "deepmrseg-bids"):
        module = name.replace("-", "_")
        (bin_folder / name).write_text(
            f'#!/bin/sh\nexec "{sys.executable}" -m deepmrseg_bids.cli.{module} "$@"\n'
        )
        (bin_folder / name).chmod(0o755)
    environment = {**os.environ, "PATH": f"{bin_folder}:{os.environ['PATH']}", "HOME": str(root)}
    for text in blocks("sh"):
        command = text.replace(" /data", f" {root}/data").replace(" /out", f" {root}/out")
        command = command.replace(" /manual", f" {root}/manual")
        # the shipped models know real heads; these are ellipsoids
        command = re.sub(r"^(deepmrseg (predict|evaluate)|deepmrseg-bids \S+ \S+ participant)",
                         rf"\1 --model brain={tiny_model}", command)  # fmt: skip
        ended = subprocess.run(
            ["bash", "-euc", command], cwd=root, env=environment, capture_output=True, text=True,
            check=False, timeout=600,
        )  # fmt: skip
        assert ended.returncode == 0, f"{command}\n{ended.stdout}\n{ended.stderr}"
    return root


def test_the_tutorial_has_ten_commands() -> None:
    assert len(blocks("sh")) + len(blocks("toml")) == 10


def test_the_network_of_the_tutorial_learns_its_structures(place: Path) -> None:
    summary = read_tsv(place / "mine" / "evaluated" / "summary.tsv")
    assert [row["name"] for row in summary] == ["Left-Thalamus", "Right-Thalamus"]
    assert all(float(row["f1_mean"]) > 0.8 for row in summary)


def test_one_image_is_segmented_without_bids(place: Path) -> None:
    rows = read_tsv(place / "mine" / "predicted" / "new_head_seg-thalamus_morph.tsv")
    assert [row["name"] for row in rows] == ["Left-Thalamus", "Right-Thalamus"]
    assert (place / "mine" / "predicted" / "new_head_seg-thalamus_dseg.nii.gz").is_file()


def test_left_is_left_in_the_study(place: Path) -> None:
    image = nib.load(place / "out" / "sub-02" / "anat" / "sub-02_seg-thalamus_dseg.nii.gz")
    labels = np.asarray(image.dataobj)
    left, right = (np.argwhere(labels == k).mean(axis=0)[0] for k in (1, 2))
    assert nib.aff2axcodes(image.affine)[0] == "R" and left < right


def test_the_reports_state_what_the_settings_say_of_the_model(place: Path) -> None:
    page = (place / "out" / "sub-01.html").read_text(encoding="utf-8")
    assert "thalamus (left and right)" in page
    assert "for use in our laboratory" in page and "our paper" in page
    assert "ccumbens" not in page


def test_the_study_has_its_table_and_its_agreement(place: Path) -> None:
    table = read_tsv(place / "out" / "group_seg-thalamus_morph.tsv")
    assert len(table) == 8
    assert all(float(row["Left-Thalamus"]) > 5_000 for row in table)
    agreement = read_tsv(place / "out" / "group_seg-thalamus_agreement.tsv")
    assert {row["participant_id"] for row in agreement} == {"sub-01"}
    assert all(float(row["f1"]) > 0.8 for row in agreement)

"""Real runs of the real commands on a real image: the MNI152 average inside nilearn."""

from __future__ import annotations

import csv
import gzip
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from tests.warm import warm_run


@dataclass(frozen=True)
class Finished:
    """A command that ended."""

    code: int
    output: str
    home: Path


def command(
    module: str,
    *arguments: object,
    home: Path,
    variables: Mapping[str, str] | None = None,
    cold: bool = False,
) -> Finished:
    """Run one of our commands, with an empty home directory.

    Args:
        cold: in a process that imports what it needs by itself, for claims about the process.
    """
    home.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "HOME": str(home)}
    for name in ("TEMPLATEFLOW_HOME", "MPLCONFIGDIR", "NIPYPE_CONFIG_DIR"):
        environment.pop(name, None)
    environment |= variables or {}
    if not cold:
        warm = warm_run(arguments, command=module, environment=environment)
        return Finished(warm.code, warm.out + warm.err, home)
    ended = subprocess.run(
        [sys.executable, "-m", f"deepmrseg_bids.cli.{module}", *map(str, arguments)],
        capture_output=True,
        text=True,
        env=environment,
        timeout=600,
        check=False,
    )
    return Finished(ended.returncode, ended.stdout + ended.stderr, home)


def app(
    *arguments: object,
    home: Path,
    variables: Mapping[str, str] | None = None,
    cold: bool = False,
) -> Finished:
    return command("deepmrseg_bids", *arguments, home=home, variables=variables, cold=cold)


def mni152() -> nib.Nifti1Image:
    """The T1w average of 152 people, 1 mm, RAS."""
    folder = files("nilearn.datasets") / "data"
    return nib.load(str(folder / "mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz"))


def make_dataset(root: Path) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"Name": "test", "BIDSVersion": "1.10.0", "DatasetType": "raw"})
    (root / "dataset_description.json").write_text(text)
    (root / "README").write_text("A data set for tests, of one average.\n")
    return root


def add_scan(root: Path, name: str, image: nib.Nifti1Image | bytes) -> Path:
    """Put a T1w where its name says; bytes are written as they are."""
    parts = name.split("_")
    folder = root.joinpath(*[p for p in parts if p.startswith(("sub-", "ses-"))], "anat")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.nii.gz"
    if isinstance(image, bytes):
        path.write_bytes(image)
    else:
        nib.save(image, path)
    return path


def coarse(step: int = 2) -> nib.Nifti1Image:
    """The average at 2 mm, so that a run takes little time."""
    image = mni152()
    data = np.asarray(image.dataobj)[::step, ::step, ::step]
    affine = image.affine @ np.diag([step, step, step, 1.0])
    return nib.Nifti1Image(np.ascontiguousarray(data), affine)


def coarse_brain(step: int = 2) -> nib.Nifti1Image:
    """The brain of :func:`coarse`: where its average holds grey or white matter."""
    folder = files("nilearn.datasets") / "data"
    tissue = sum(
        np.asarray(nib.load(str(folder / name)).dataobj, dtype=np.float32)
        for name in (
            "mni_icbm152_gm_tal_nlin_sym_09a_converted.nii.gz",
            "mni_icbm152_wm_tal_nlin_sym_09a_converted.nii.gz",
        )
    )
    inside = ndimage.binary_fill_holes(tissue > 0.5 * tissue.max())
    data = np.ascontiguousarray(inside[::step, ::step, ::step]).astype(np.uint8)
    return nib.Nifti1Image(data, coarse(step).affine)


def make_templates(home: Path, name: str = "Average") -> Path:
    """A TEMPLATEFLOW_HOME with the average as a template: 4 mm (res-1), 6 mm (res-2)."""
    folder = home / f"tpl-{name}"
    folder.mkdir(parents=True)
    nib.save(coarse(4), folder / f"tpl-{name}_res-01_T1w.nii.gz")
    nib.save(coarse_brain(4), folder / f"tpl-{name}_res-01_desc-brain_mask.nii.gz")
    nib.save(coarse(6), folder / f"tpl-{name}_res-02_T1w.nii.gz")
    return home


def read_tsv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream, delimiter="\t"))


def packed(data: bytes) -> bytes:
    return gzip.compress(data, mtime=0)


@pytest.fixture(scope="session")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One subject, two visits, in two orientations."""
    root = make_dataset(tmp_path_factory.mktemp("raw") / "bids")
    add_scan(root, "sub-01_ses-1_T1w", mni152())
    flipped = nib.as_closest_canonical(mni152())
    stored = flipped.as_reoriented(
        nib.orientations.ornt_transform(
            nib.orientations.axcodes2ornt("RAS"), nib.orientations.axcodes2ornt("PSR")
        )
    )
    add_scan(root, "sub-01_ses-2_T1w", stored)
    (root / "participants.tsv").write_text("participant_id\tage\tsex\nsub-01\t40\tn/a\n")
    return root


@dataclass(frozen=True)
class Run:
    """A finished run of the participant level."""

    raw: Path
    out: Path
    finished: Finished


@pytest.fixture(scope="session")
def run(raw: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The participant level on all of ``raw``, two sessions at a time."""
    out = tmp_path_factory.mktemp("run") / "out"
    home = tmp_path_factory.mktemp("home") / "h"
    finished = app(raw, out, "participant", "--nprocs", 2, "--probabilities", home=home,
                   cold=True)  # fmt: skip
    return Run(raw, out, finished)

"""Toy data sets: bright balls in noise, in a table of samples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from deepmrseg_bids.train.config import TrainConfig, load_config
from deepmrseg_bids.train.samples import Sample, load_samples
from tests.support import ball
from tests.train.heads import head, write_lesions

TOML = """
task = "toy"
labels = [{ index = 5, name = "Ball" }]

[network]
kind = "deepmrseg"
spatial_dims = 3
in_channels = 1
classes = 2
width = 4
depth = 2

[preparation]
spacing = 1.0
intensity = "crop"

[loop]
steps = 40
crop = [16, 16, 16]
batch = 2
learning_rate = 0.01
folds = 0
validate_every = 20
checkpoint_every = 5
"""


@pytest.fixture
def save(tmp_path: Path) -> Callable[..., str]:
    """Write an image below the temporary folder; returns its name."""

    def write(name: str, data: np.ndarray, affine: np.ndarray | None = None) -> str:
        nib.save(nib.Nifti1Image(data, np.eye(4) if affine is None else affine), tmp_path / name)
        return name

    return write


@pytest.fixture
def table(tmp_path: Path) -> Callable[..., Path]:
    """Write a table of samples from dictionaries; returns its path."""

    def write(rows: Sequence[dict[str, Any]], name: str = "samples.tsv") -> Path:
        columns = list(dict.fromkeys(key for row in rows for key in row))
        lines = ["\t".join(columns)]
        lines += ["\t".join(str(row.get(column, "")) for column in columns) for row in rows]
        (tmp_path / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
        return tmp_path / name

    return write


@pytest.fixture
def balls(save: Callable[..., str], table: Callable[..., Path]) -> Callable[[int], Path]:
    """A table of so many people, a ball each."""

    def write(people: int) -> Path:
        rows = []
        for person in range(people):
            image, labels = ball(person)
            rows.append(
                {
                    "sample_id": f"s{person}",
                    "T1w": save(f"t1-{person}.nii.gz", image),
                    "dseg": save(f"dseg-{person}.nii.gz", labels),
                }
            )
        return table(rows)

    return write


@pytest.fixture
def settings_file(tmp_path: Path) -> Callable[..., Path]:
    """The toy settings as a file, with pieces of the text exchanged."""

    def write(*changes: tuple[str, str], extra: str = "") -> Path:
        text = TOML
        for old, new in changes:
            assert old in text
            text = text.replace(old, new)
        path = tmp_path / "settings.toml"
        path.write_text(text + extra, encoding="utf-8")
        return path

    return write


@pytest.fixture
def toy(settings_file: Callable[..., Path]) -> Callable[..., TrainConfig]:
    """The toy settings, with fields of ``[loop]`` exchanged."""

    def load(extra: str = "", **changes: Any) -> TrainConfig:
        return load_config(settings_file(extra=extra), **changes)

    return load


FLAIR = {0: 0.02, 2: 1.0, 41: 1.0, 3: 1.2, 42: 1.2, 24: 0.3, 4: 0.2, 43: 0.2, 506: 0.5}


@pytest.fixture
def small(settings_file: Callable[..., Path]) -> TrainConfig:
    path = settings_file(
        ("spatial_dims = 3", "spatial_dims = 2"),
        ("in_channels = 1", "in_channels = 2"),
        ("crop = [16, 16, 16]", "crop = [48, 48]"),
        ('intensity = "crop"', 'intensity = "brain"'),
        ("index = 5", "index = 1"),
        extra="[augment]\nflip = 0.5\nrotate_deg = 10\nshift_mm = 8\nelastic_mm = 1\nnoise = 0.2\n"
        "[pairs]\nthick_mm = 4\ndrop_t1w = 0.2\nhealthy = 0.2\ndirty = 0.3\nflow = 0.3\n",
    )
    return load_config(path)


@pytest.fixture
def made_up(save: Callable[..., str], table: Callable[..., Path], tmp_path: Path) -> Sample:
    """A label map with lesions to put into it."""
    write_lesions(tmp_path / "lesions.npz")
    row = {"sample_id": "map", "dseg": save("map.nii.gz", head()), "lesions": "lesions.npz",
           "teaches_only": "1"}  # fmt: skip
    return load_samples(table([row], "maps.tsv"))[0]


@pytest.fixture
def real(save: Callable[..., str], table: Callable[..., Path]) -> list[Sample]:
    """Two people with 3 mm slices and a bright lesion; the T1w is finer."""
    codes = head()
    rng = np.random.default_rng(0)
    rows = []
    for person in range(2):
        flair = np.vectorize(lambda code: FLAIR.get(code, 1.1))(codes)
        lesion = np.zeros(codes.shape, np.uint8)
        lesion[18:26, 24:34, 30:40] = 1
        flair = np.where(lesion > 0, 2.0, flair) + 0.02 * rng.standard_normal(codes.shape)
        thick = np.diag([1.0, 1.0, 3.0, 1.0])
        thick[2, 3] = 1
        inside = (codes > 0) & (codes < 500)
        t1w = np.where(inside, 2.2 - flair, 0.3 * rng.random(codes.shape) * (codes > 0))
        flair = np.where(inside, flair, 0)
        mean = flair[..., :63].reshape(64, 64, 21, 3).mean(-1)
        rows.append(
            {
                "sample_id": f"p{person}",
                "T1w": save(f"t1-{person}.nii.gz", t1w.astype("f4")),
                "FLAIR": save(f"flair-{person}.nii.gz", mean.astype("f4"), thick),
                "dseg": save(f"lesion-{person}.nii.gz", lesion[..., 1:63:3].copy(), thick),
                "mask": save("mask.nii.gz", inside.astype("u1")),
            }
        )
    return load_samples(table(rows, "pairs.tsv"))

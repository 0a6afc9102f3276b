"""Toy data sets: bright balls in noise, in a table of samples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from deepmrseg_bids.train.config import TrainConfig, load_config
from tests.support import ball

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

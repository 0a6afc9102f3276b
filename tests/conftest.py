"""What several test modules share: toy networks, grids of every orientation, toy samples."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from deepmrseg_bids.imaging.grid import Grid
from deepmrseg_bids.imaging.labels import Label, LabelTable
from deepmrseg_bids.imaging.nifti import LabelMap, write_labels
from deepmrseg_bids.inference import precision
from deepmrseg_bids.network import NetworkConfig
from tests.support import ORIENTATIONS

pytest_plugins = ["tests.robustness.plugin", "tests.tiny"]


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Toy networks are slower on two threads than on one."""
    torch.set_num_threads(1)


@pytest.fixture(params=["bfloat16", "float32"])
def fastest(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """What ``auto`` means on this CPU, which seems to have bfloat16 arithmetic or not."""
    monkeypatch.setattr(precision, "cpu_has_bfloat16", lambda: request.param == "bfloat16")
    return request.param


@pytest.fixture(params=ORIENTATIONS)
def orientation(request: pytest.FixtureRequest) -> str:
    """Each of the 48 axis codes, such as ``LPS``."""
    return request.param


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The shared development data; the test is skipped where it is not there."""
    usual = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("DEEPMRSEG_SHARED_DATA", usual))
    if not folder.is_dir():
        pytest.skip(f"no shared data at {folder} (set DEEPMRSEG_SHARED_DATA)")
    return folder


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that everybody can reach and write in; those of pytest are its user's alone."""
    with tempfile.TemporaryDirectory(prefix="deepmrseg-", dir="/tmp") as name:
        Path(name).chmod(0o777)
        yield Path(name)


@pytest.fixture
def toy_network() -> NetworkConfig:
    """A network of a few thousand weights for two classes in 3D."""
    return NetworkConfig(
        kind="deepmrseg", spatial_dims=3, in_channels=1, classes=2, width=4, depth=2
    )


@pytest.fixture
def two_sides() -> LabelTable:
    """A left and a right blob."""
    return LabelTable((Label(3, "Left-Blob", "L", "#00ff00"), Label(7, "Right-Blob", "R")))


@pytest.fixture
def write_scan(tmp_path: Path) -> Callable[..., Path]:
    """Write an array as a NIfTI file under a temporary folder; returns its path."""

    def write(name: str, data: np.ndarray, grid: Grid | None = None) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_labels(path, LabelMap(data, grid or Grid(data.shape, np.eye(4))))
        return path

    return write

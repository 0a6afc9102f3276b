"""What several test modules share: toy networks, grids of every orientation, toy samples."""

from __future__ import annotations

import logging
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


# The files that take longest, the longest first: begun early, none of them is waited for in the
# end. Files that stand in one line share what is made once for a session.
LONGEST_FIRST = (
    ("container/test_container.py",),
    ("integration/test_slurm.py",),
    ("integration/test_participant.py", "integration/test_validator.py"),
    ("robustness/test_processes.py", "robustness/test_disks.py", "robustness/test_resume.py"),
    ("robustness/test_large.py",),
    ("train/test_loop.py",),
    ("train/test_crossval.py",),
    ("integration/test_flair.py",),
    ("integration/test_bad_heads.py",),
    ("browser/test_group.py", "browser/test_subject.py"),
    ("tasks/test_hippocampus.py",),
    ("integration/test_output_spaces.py",),
    ("tasks/test_wml.py",),
    ("tasks/test_lesions.py",),
    ("cli/test_flags.py",),
    ("test_docs.py",),
    ("integration/test_bad_input.py",),
    ("train/test_slice_pairs.py",),
    ("tasks/test_flair_slices.py",),
)
_RANK = {name: rank for rank, names in enumerate(LONGEST_FIRST) for name in names}
_HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Order the files for workers that take a whole one at a time, the longest first."""

    def rank(item: pytest.Item) -> int:
        inside = item.path.is_relative_to(_HERE)
        name = item.path.relative_to(_HERE).as_posix() if inside else ""
        return _RANK.get(name, len(LONGEST_FIRST))

    items.sort(key=rank)  # it keeps the order within a file


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    """A worker takes a whole file, or all files that share what is made once for a session."""
    from xdist.scheduler import LoadScopeScheduling

    class Together(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.split("::")[0]
            rank = _RANK.get(file.removeprefix("tests/"))
            return file if rank is None else f"tests/{LONGEST_FIRST[rank][0]}"

    return Together(config, log) if config.getvalue("dist") == "loadfile" else None


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Toy networks are slower on two threads than on one."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    """A command that a test runs in this process sets up logging for itself alone."""
    loggers = [logging.getLogger(name) for name in (None, "nibabel")]
    levels = [logger.level for logger in loggers]
    before = loggers[0].handlers[:]
    yield
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)
    for handler in loggers[0].handlers[:]:
        if handler not in before and type(handler) is logging.StreamHandler:  # not of pytest
            loggers[0].removeHandler(handler)


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

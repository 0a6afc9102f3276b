"""A made-up head and a network that finds it, both so small that a session takes no time."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from deepmrseg_bids.imaging.grid import centred_grid
from deepmrseg_bids.imaging.labels import Label, LabelTable
from deepmrseg_bids.inference.bundle import NewBundle, Preparation
from deepmrseg_bids.network import NetworkConfig, build_network
from tests.integration.conftest import add_scan, make_dataset
from tests.tasks.phantom import paint

HEAD = ((0, 0, 0), (72, 88, 66), 70.0)
INNER = ((0, 0, 0), (60, 76, 54), 100.0)
DEEP = ((0, -5, 0), (26, 30, 18), 150.0)


def tiny_head(
    seed: int, shape: tuple[int, int, int] = (44, 52, 40), spacing: float = 4.0
) -> nib.Nifti1Image:
    """An ellipsoid of 1.75 litres, brighter towards its core, in dark air, RAS."""
    grid = centred_grid((0, 0, 0), shape, spacing)
    noise = np.random.default_rng(seed).normal(0, 4, grid.shape)
    data = np.abs(paint(grid, (HEAD, INNER, DEEP), 2.0) + noise)
    image = nib.Nifti1Image(data.astype(np.float32), grid.affine)
    image.set_sform(grid.affine, code="scanner")
    image.set_qform(grid.affine, code="scanner")
    return image


def level_network() -> torch.nn.Module:
    """A network whose classes are levels of brightness: air, head, and a brighter core.

    All convolutions are zero but the first, which passes the image on through the residual
    and skip connections, and the last, which compares it with two thresholds.
    """
    return threshold_network(NetworkConfig("deepmrseg", 3, 1, 3, width=4, depth=1),
                             (4, 2.0), (40, 3.5))  # fmt: skip


def threshold_network(config: NetworkConfig, *levels: tuple[float, float]) -> torch.nn.Module:
    """A network that compares its first channel with a slope and a threshold for each class."""
    network = build_network(config)
    state = {name: torch.zeros_like(value) for name, value in network.state_dict().items()}
    for name in state:
        if name.endswith("running_var"):
            state[name] += 1
    state["project.0.weight"][0, 0] = 1
    state["project.1.weight"] += 1
    state["project.1.bias"] += 3  # air lies at -2.5: the ReLU must not see the difference
    for place, (slope, threshold) in enumerate(levels, start=1):
        state["head.weight"][place, 4] = slope
        state["head.bias"][place] = -slope * threshold
    network.load_state_dict(state)
    return network


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle of a ``brain`` model that takes milliseconds."""
    path = tmp_path_factory.mktemp("model") / "tiny"
    network = level_network()
    NewBundle(
        task="brain",
        network=network.config,
        preparation=Preparation(spacing=4.0, intensity="head"),
        labels=LabelTable((Label(1, "Brain"), Label(2, "Deep"))),
        state=network.state_dict(),
        version="tiny",
        settings="",
        card="",
        facts={},
    ).write(path)
    return path


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight people with one small head each."""
    root = make_dataset(tmp_path_factory.mktemp("tiny") / "bids")
    for number in range(1, 9):
        add_scan(root, f"sub-{number:02d}_T1w", tiny_head(number))
    return root

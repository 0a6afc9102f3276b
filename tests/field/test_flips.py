"""``--tta`` mirrors what a network was trained to see mirrored, and nothing else."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pytest

from deepmrseg_bids.imaging.grid import Grid
from deepmrseg_bids.imaging.labels import Label, LabelTable
from deepmrseg_bids.imaging.nifti import Volume
from deepmrseg_bids.inference.bundle import ModelBundle, NewBundle, Preparation, shipped_bundles
from deepmrseg_bids.inference.predictor import Predictor
from deepmrseg_bids.network import NetworkConfig, build_network
from deepmrseg_bids.tasks import wml
from deepmrseg_bids.tasks.pipeline import run
from deepmrseg_bids.tasks.results import Segmentation
from tests.field.real_head import head, pool, usual_brain
from tests.tasks.phantom import dice


def test_every_task_finds_the_same_with_and_without_flip_averaging() -> None:
    tasks = ("brain", "deepbrain", "hippocampus")
    plain, averaged = (dict(run({"T1w": head()}, tasks, pool(flips=on))) for on in (False, True))
    for task in tasks:
        usual, found = plain[task], averaged[task]
        assert isinstance(usual, Segmentation) and isinstance(found, Segmentation), (usual, found)
        for row in usual.measures:
            assert dice(usual.labels.data == row.index, found.labels.data == row.index) > 0.9, row


def test_lesions_are_the_same_with_and_without_flip_averaging() -> None:
    """Bright spots in a few slices of a brain-extracted image."""
    mask = usual_brain().mask_on(head().grid)
    data = np.where(mask, head().data, 0)[:, :, 40:56]
    for place in ((35, 50, 8), (62, 60, 6), (60, 40, 9)):
        data[tuple(slice(k - 2, k + 3) for k in place)] = 1.5 * data.max()
    flair = Volume(np.ascontiguousarray(data, np.float32), Grid(data.shape, head().grid.affine))
    usual, found = (
        wml.segment_prepared(None, flair, pool(flips=on)("wml")) for on in (False, True)
    )
    assert usual.labels.data.any()
    assert dice(usual.labels.data > 0, found.labels.data > 0) > 0.8


def bundle(path: Path, *, mirrors: bool | None, settings: str = "") -> ModelBundle:
    network = build_network(NetworkConfig("deepmrseg", 3, 1, 2, width=4, depth=1))
    NewBundle(
        task="left", network=network.config, preparation=Preparation(1.0, "crop"),
        labels=LabelTable((Label(1, "Left-Blob"),)), state=network.state_dict(), version="1",
        settings=settings, card="", facts={},
    ).write(path)  # fmt: skip
    tree = json.loads((path / "bundle.json").read_text())
    tree["preparation"] |= {"mirrors": mirrors}
    if mirrors is None:
        del tree["preparation"]["mirrors"]
    (path / "bundle.json").write_text(json.dumps(tree))
    return ModelBundle.open(path)


@pytest.mark.parametrize(
    ("mirrors", "settings", "allowed"),
    [
        (True, "", True),
        (False, "[augment]\nflip = 0.5\n", False),
        (None, "[augment]\nflip = 0.5\n", True),
        (None, "[augment]\nflip = 0.0\n", False),
        (None, "", False),
    ],
)
def test_a_bundle_says_whether_it_may_be_mirrored(
    tmp_path: Path, caplog: pytest.LogCaptureFixture,
    mirrors: bool | None, settings: str, allowed: bool,
) -> None:  # fmt: skip
    opened = bundle(tmp_path / "bundle", mirrors=mirrors, settings=settings)
    assert opened.preparation.mirrors is allowed
    image = np.random.default_rng(0).normal(size=(16, 16, 16)).astype(np.float32)
    with caplog.at_level(logging.WARNING):
        averaged = Predictor(opened, precision="float32", flips=True)(image)
    plain = Predictor(opened, precision="float32")(image)
    assert np.array_equal(plain, averaged) is not allowed
    assert ("was not trained with mirrored images" in caplog.text) is not allowed


def test_the_shipped_models_say_it() -> None:
    mirrors = {task: ModelBundle.open(path).preparation.mirrors
               for task, path in shipped_bundles().items()}  # fmt: skip
    assert {task for task, may in mirrors.items() if not may} == {"hippocampus"}

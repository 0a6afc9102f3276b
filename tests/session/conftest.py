"""Made-up results of a session, and the session that publishes them."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from deepmrseg_bids.bids.provenance import Digests
from deepmrseg_bids.errors import SegmentationError, SkippedTask
from deepmrseg_bids.findings import Finding
from deepmrseg_bids.imaging.grid import Grid
from deepmrseg_bids.imaging.labels import Label, LabelTable
from deepmrseg_bids.imaging.nifti import LabelMap
from deepmrseg_bids.inference.bundle import ModelBundle, Preparation
from deepmrseg_bids.network import NetworkConfig
from deepmrseg_bids.session import segment as module
from deepmrseg_bids.session.job import SessionJob
from deepmrseg_bids.session.resume import FinishedWork
from deepmrseg_bids.session.segment import segment_session
from deepmrseg_bids.tasks.results import Measure, Posteriors, Segmentation
from tests.support import images_of

TABLE = LabelTable((Label(1, "Brain"),))
GRID = Grid((4, 5, 6), np.eye(4))
DARK = Finding("contrast-doubtful", "warning", "dark é")
STEM = "sub-01/ses-2/anat/sub-01_ses-2"


def bundle_of(task, table=TABLE, **changes):
    """A model, as far as its files are told by it."""
    facts = {
        "task": task,
        "network": NetworkConfig("deepmrseg", 3, 1, 1 + len(table), width=4, depth=1),
        "preparation": Preparation(1.0, "head"),
        "labels": table,
        "version": "1",
        "sha256": f"{task}-0123456789abcdef",
        "path": Path("/models") / task,
        "facts": {},
    }
    return ModelBundle(**(facts | changes))


def segmentation(task, *findings):
    data = np.zeros(GRID.shape, np.uint8)
    data[1:3, 1:3, 1:3] = 1
    posteriors = np.stack([1.0 - data, data]).astype(np.float32)
    return Segmentation(
        task,
        LabelMap(data, GRID),
        TABLE,
        (Measure(1, "Brain", 8.0, 7.0, 9.0, 0.9),),
        (Posteriors(posteriors, GRID, (0, 1)),),
        findings,
        16.0,
        20.0,
    )


class Pool:
    """Predictors, as far as their models go."""

    def __init__(self, table=TABLE):
        self.table = table

    def __call__(self, model):
        return SimpleNamespace(bundle=bundle_of(model, self.table))


@pytest.fixture
def session(tmp_path, write_scan, monkeypatch):
    """Run one session whose tasks give these results; returns its outcome."""
    t1w = write_scan(
        "raw/sub-01/ses-2/anat/sub-01_ses-2_T1w.nii.gz",
        np.arange(120, dtype=np.uint8).reshape(4, 5, 6),
        GRID,
    )
    monkeypatch.setattr(module, "prepare_process", lambda: None)
    monkeypatch.setattr(module, "_pool", lambda *_: Pool())

    def segment(results=(), **changes):
        def run(*_, **__):
            for task, result in results:
                if isinstance(result, Exception) and not isinstance(
                    result, (SegmentationError, SkippedTask)
                ):
                    raise result
                yield task, result

        monkeypatch.setattr(module, "run", run)
        job = {"subject": "01", "session": "2", "bids_dir": tmp_path / "raw",
               "images": images_of(t1w), "tasks": tuple(task for task, _ in results)}  # fmt: skip
        return segment_session(
            SessionJob(**(job | changes)),
            tmp_path / "out",
            work=tmp_path / "work",
            record=tmp_path / "records" / "outcome.json",
        )

    return segment


def published(root):
    out = root / "out"
    return {str(p.relative_to(out)) for p in out.rglob("*") if p.is_file()}


BUNDLES = {
    task: Pool()(task).bundle for task in ("brain", "icv", "outline", "deepbrain", "hippocampus")
}


@pytest.fixture
def again(session, tmp_path):
    """What a second run takes for finished, after a first one of brain and deepbrain."""
    outcome = session([(task, segmentation(task, DARK)) for task in ("brain", "deepbrain")])
    job = SessionJob("01", "2", tmp_path / "raw", images_of(outcome.images["T1w"]),
                     ("brain", "deepbrain", "hippocampus"), precision="float32")  # fmt: skip

    def ask(bundles=BUNDLES, **changes):
        digests = Digests(tmp_path / "inputs.tsv")
        return FinishedWork(tmp_path / "out", bundles, digests).tasks(replace(job, **changes))

    ask.job, ask.outcome = job, outcome
    return ask

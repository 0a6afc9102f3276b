"""Several tasks on one scan: their order, what they share, and what a failure costs."""

from types import SimpleNamespace

import numpy as np
import pytest

from deepmrseg_bids import tasks
from deepmrseg_bids.errors import BundleError, SegmentationError, SkippedTask
from deepmrseg_bids.findings import Finding
from deepmrseg_bids.imaging.grid import Grid
from deepmrseg_bids.imaging.labels import Label, LabelTable
from deepmrseg_bids.imaging.nifti import LabelMap, Volume
from deepmrseg_bids.tasks.results import Segmentation

GRID = Grid((4, 4, 4), np.eye(4))
SCAN = Volume(np.arange(64, dtype=np.float32).reshape(4, 4, 4), GRID)
TABLE = LabelTable((Label(1, "a"),))
ABOUT_BRAIN, ABOUT_TASK = (Finding(code, "warning", "x") for code in ("brain-cut", "oblique"))
TURNED = Finding("orientation-doubtful", "error", "turned upside down")
FOUND = SimpleNamespace(findings=(ABOUT_BRAIN,), volume_mm3=1234.5, centre=(0, 0, 0))


@pytest.fixture
def calls(monkeypatch):
    """The tasks exchanged for stubs that note that they were called."""
    noted = []

    def stub(name):
        def segment(*_):
            noted.append(name)
            labels = LabelMap(np.zeros(GRID.shape, np.uint8), GRID)
            return Segmentation(name, labels, TABLE, (), findings=(ABOUT_BRAIN, ABOUT_TASK))

        return segment

    def find_brain(*_):
        noted.append("find_brain")
        return FOUND

    def check_orientation(*_):
        noted.append("check_orientation")
        return (TURNED,)

    monkeypatch.setattr(tasks.brain, "find_brain", find_brain)
    monkeypatch.setattr(tasks.brain, "check_orientation", check_orientation)
    for name in ("brain", "deepbrain", "hippocampus"):
        monkeypatch.setattr(getattr(tasks, name), "segment", stub(name))
    monkeypatch.setattr(tasks.wml, "seen", [], raising=False)

    def lesions(t1w, brain, flair, pool):
        tasks.wml.seen.append((t1w, brain, flair))
        return stub("wml")()

    monkeypatch.setattr(tasks.wml, "segment", lesions)
    return noted


def broken(error):
    def segment(*_):
        raise error

    return segment


def predictors(task):
    return f"the predictor of {task}"


def test_tasks_come_in_their_own_order_each_once(calls):
    asked = ["hippocampus", "brain", "deepbrain", "brain"]
    results = list(tasks.run(SCAN, asked, predictors))
    assert [task for task, _ in results] == ["brain", "deepbrain", "hippocampus"]
    assert calls == ["find_brain", "brain", "deepbrain", "hippocampus"]


def test_the_way_to_the_hippocampus_is_gone_without_being_reported(calls):
    results = dict(tasks.run(SCAN, ["hippocampus"], predictors))
    assert list(results) == ["hippocampus"]
    assert calls == ["find_brain", "deepbrain", "hippocampus"]


def test_results_carry_the_brain_volume_and_each_finding_once(calls):
    result = dict(tasks.run(SCAN, ["deepbrain"], predictors))["deepbrain"]
    assert result.brain_mm3 == 1234.5
    assert result.findings == (ABOUT_BRAIN, ABOUT_TASK)


def test_a_task_that_fails_does_not_stop_the_others(calls, monkeypatch):
    error = SegmentationError("no")
    monkeypatch.setattr(tasks.brain, "segment", broken(error))
    results = dict(tasks.run(SCAN, ["brain", "deepbrain", "hippocampus"], predictors))
    assert results["brain"] is error
    assert isinstance(results["deepbrain"], Segmentation)
    assert isinstance(results["hippocampus"], Segmentation)


def test_without_deep_structures_there_is_no_hippocampus(calls, monkeypatch):
    monkeypatch.setattr(tasks.deepbrain, "segment", broken(SegmentationError("nothing there")))
    results = dict(tasks.run(SCAN, ["brain", "deepbrain", "hippocampus"], predictors))
    assert isinstance(results["brain"], Segmentation)
    assert str(results["deepbrain"]) == "nothing there; turned upside down"
    assert str(results["hippocampus"]) == str(results["deepbrain"])
    assert calls.count("check_orientation") == 1


def test_a_doubtful_result_is_looked_at_turned_over_once(calls, monkeypatch):
    unsure = Finding("structure-unsure", "warning", "x")

    def segment(*_):
        labels = LabelMap(np.zeros(GRID.shape, np.uint8), GRID)
        return Segmentation("deepbrain", labels, TABLE, (), findings=(unsure,))

    monkeypatch.setattr(tasks.deepbrain, "segment", segment)
    results = dict(tasks.run(SCAN, ["brain", "deepbrain", "hippocampus"], predictors))
    assert TURNED not in results["brain"].findings
    assert {TURNED, unsure} <= set(results["deepbrain"].findings)
    assert TURNED in results["hippocampus"].findings
    assert calls.count("check_orientation") == 1


def test_without_a_brain_every_task_of_the_t1w_fails_with_the_reason(calls, monkeypatch):
    monkeypatch.setattr(tasks.brain, "find_brain", broken(SegmentationError("no brain")))
    results = list(tasks.run(SCAN, ["wml", "hippocampus", "brain"], predictors, flair=SCAN))
    assert [task for task, _ in results] == ["brain", "hippocampus", "wml"]
    assert {str(result) for _, result in results[:2]} == {"no brain"}
    assert isinstance(results[2][1], Segmentation)
    assert tasks.wml.seen == [(SCAN, None, SCAN)]  # lesions are looked for all the same


def test_without_a_t1w_lesions_alone_can_be_found(calls):
    results = dict(tasks.run(None, ["wml", "deepbrain", "brain"], predictors, flair=SCAN))
    assert {str(results[task]) for task in ("brain", "deepbrain")} == {
        "the session has no T1w image"
    }
    assert isinstance(results["brain"], SkippedTask)
    assert isinstance(results["wml"], Segmentation) and calls == ["wml"]
    assert tasks.wml.seen == [(None, None, SCAN)]


def test_a_model_that_cannot_be_used_costs_its_task_alone(calls):
    def pool(task):
        if task == "hippocampus":
            raise BundleError("changed")
        return task

    results = dict(tasks.run(SCAN, ["deepbrain", "hippocampus"], pool))
    assert isinstance(results["deepbrain"], Segmentation)
    assert isinstance(results["hippocampus"], BundleError)


def test_lesions_without_a_flair_are_skipped_with_the_reason(calls):
    results = dict(tasks.run(SCAN, ["brain", "wml"], predictors))
    assert isinstance(results["brain"], Segmentation)
    assert isinstance(results["wml"], SkippedTask)
    assert "needs a FLAIR" in str(results["wml"]) and "wml" not in calls


def test_results_come_as_they_are_made(calls):
    results = tasks.run(SCAN, ["brain", "deepbrain"], predictors)
    next(results)
    assert calls == ["find_brain", "brain"]


@pytest.mark.parametrize(
    ("asked", "models"),
    [
        ([], []),
        (["brain"], ["brain"]),
        (["deepbrain"], ["brain", "deepbrain"]),
        (["hippocampus"], ["brain", "deepbrain", "hippocampus"]),
        (["wml"], ["brain", "wml"]),
        (["wml", "deepbrain"], ["brain", "deepbrain", "wml"]),
    ],
)
def test_a_task_needs_the_models_on_its_way(asked, models):
    assert tasks.needed_models(asked) == models


def test_the_table_of_a_task_is_what_it_writes():
    predictor = SimpleNamespace(bundle=SimpleNamespace(labels=TABLE))
    assert tasks.table_of("deepbrain", predictor) is TABLE
    assert tasks.table_of("brain", predictor).names == ("Brain",)
    assert tasks.table_of("hippocampus", predictor).names == (
        "Left-Hippocampus-Anterior",
        "Left-Hippocampus-Posterior",
        "Right-Hippocampus-Anterior",
        "Right-Hippocampus-Posterior",
    )


@pytest.mark.parametrize(
    ("task", "module", "function"),
    [
        ("deepbrain", "deepbrain", "segment_prepared"),
        ("hippocampus", "hippocampus", "segment_prepared"),
        ("deepbrain-of-ours", "custom", "segment"),
    ],
)
def test_a_prepared_image_goes_straight_to_its_network(monkeypatch, task, module, function):
    seen = []
    monkeypatch.setattr(
        getattr(tasks, module), function, lambda *given: seen.append(given) or "done"
    )
    assert tasks.segment_prepared(task, SCAN, predictors(task)) == "done"
    assert seen == [(SCAN, predictors(task))]

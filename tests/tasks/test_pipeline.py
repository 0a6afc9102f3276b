"""Several tasks on one session: their order, what they share, and what a failure costs."""

from types import SimpleNamespace

import numpy as np
import pytest

from deepmrseg_bids.errors import BundleError, SegmentationError, SkippedTask, UsageError
from deepmrseg_bids.findings import Finding
from deepmrseg_bids.imaging.grid import Grid
from deepmrseg_bids.imaging.labels import Label, LabelTable
from deepmrseg_bids.imaging.nifti import LabelMap, Volume
from deepmrseg_bids.inference.bundle import Preparation
from deepmrseg_bids.tasks import brain, custom, deepbrain, hippocampus, wml
from deepmrseg_bids.tasks.brain import Brain
from deepmrseg_bids.tasks.intracranial import Intracranial
from deepmrseg_bids.tasks.pipeline import SessionContext, run
from deepmrseg_bids.tasks.registry import find_task, needed_models
from deepmrseg_bids.tasks.results import Segmentation
from deepmrseg_bids.tasks.spec import TaskSpec

GRID = Grid((4, 4, 4), np.eye(4))
SCAN = Volume(np.arange(64, dtype=np.float32).reshape(4, 4, 4), GRID)
TABLE = LabelTable((Label(1, "a"),))
ABOUT_BRAIN, ABOUT_TASK = (Finding(code, "warning", "x") for code in ("brain-unsure", "oblique"))
TURNED = Finding("orientation-doubtful", "error", "turned upside down")
FOUND = Brain(
    np.ones((10, 10, 12), np.float32), Grid((10, 10, 12), np.eye(4)), (0, 0, 0), 1.0, (ABOUT_BRAIN,)
)
INSIDE = Intracranial(np.ones((10, 10, 16), np.float32), Grid((10, 10, 16), np.eye(4)), 0.9)


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

    monkeypatch.setattr(brain, "find_brain", find_brain)
    monkeypatch.setattr(brain, "find_inside", lambda *_: INSIDE)
    monkeypatch.setattr(brain, "find_outline", lambda *_: None)
    monkeypatch.setattr(brain, "check_orientation", check_orientation)
    for module, name in ((brain, "brain"), (deepbrain, "deepbrain"), (hippocampus, "hippocampus")):
        monkeypatch.setattr(module, "segment", stub(name))
    monkeypatch.setattr(wml, "seen", [], raising=False)

    def lesions(t1w, brain, flair, pool, **_):
        wml.seen.append((t1w, brain, flair))
        return stub("wml")()

    monkeypatch.setattr(wml, "segment", lesions)
    return noted


def broken(error):
    def segment(*_):
        raise error

    return segment


def predictors(task):
    return f"the predictor of {task}"


def test_tasks_come_in_their_own_order_each_once(calls):
    asked = ["hippocampus", "brain", "deepbrain", "brain"]
    results = list(run({"T1w": SCAN}, asked, predictors))
    assert [task for task, _ in results] == ["brain", "deepbrain", "hippocampus"]
    assert calls == ["find_brain", "brain", "deepbrain", "hippocampus"]


def test_the_way_to_the_hippocampus_is_gone_without_being_reported(calls):
    results = dict(run({"T1w": SCAN}, ["hippocampus"], predictors))
    assert list(results) == ["hippocampus"]
    assert calls == ["find_brain", "deepbrain", "hippocampus"]


def test_results_carry_the_brain_volume_and_each_finding_once(calls):
    result = dict(run({"T1w": SCAN}, ["deepbrain"], predictors))["deepbrain"]
    assert (result.brain_mm3, result.icv_mm3) == (1200.0, 1600.0)
    assert result.findings == (ABOUT_BRAIN, ABOUT_TASK)


def test_a_task_that_fails_does_not_stop_the_others(calls, monkeypatch):
    error = SegmentationError("no")
    monkeypatch.setattr(brain, "segment", broken(error))
    results = dict(run({"T1w": SCAN}, ["brain", "deepbrain", "hippocampus"], predictors))
    assert results["brain"] is error
    assert isinstance(results["deepbrain"], Segmentation)
    assert isinstance(results["hippocampus"], Segmentation)


def test_without_deep_structures_there_is_no_hippocampus(calls, monkeypatch):
    monkeypatch.setattr(deepbrain, "segment", broken(SegmentationError("nothing there")))
    results = dict(run({"T1w": SCAN}, ["brain", "deepbrain", "hippocampus"], predictors))
    assert isinstance(results["brain"], Segmentation)
    assert str(results["deepbrain"]) == "nothing there; turned upside down"
    assert str(results["hippocampus"]) == str(results["deepbrain"])
    assert calls.count("check_orientation") == 1


def test_a_doubtful_result_is_looked_at_turned_over_once(calls, monkeypatch):
    unsure = Finding("structure-unsure", "warning", "x")

    def segment(*_):
        labels = LabelMap(np.zeros(GRID.shape, np.uint8), GRID)
        return Segmentation("deepbrain", labels, TABLE, (), findings=(unsure,))

    monkeypatch.setattr(deepbrain, "segment", segment)
    results = dict(run({"T1w": SCAN}, ["brain", "deepbrain", "hippocampus"], predictors))
    assert TURNED not in results["brain"].findings
    assert {TURNED, unsure} <= set(results["deepbrain"].findings)
    assert TURNED in results["hippocampus"].findings
    assert calls.count("check_orientation") == 1


def test_without_a_brain_every_task_of_the_t1w_fails_with_the_reason(calls, monkeypatch):
    monkeypatch.setattr(brain, "find_brain", broken(SegmentationError("no brain")))
    results = list(run({"T1w": SCAN, "FLAIR": SCAN}, ["wml", "hippocampus", "brain"], predictors))
    assert [task for task, _ in results] == ["brain", "hippocampus", "wml"]
    assert {str(result) for _, result in results[:2]} == {"no brain"}
    assert isinstance(results[2][1], Segmentation)
    assert wml.seen == [(SCAN, None, SCAN)]  # lesions are looked for all the same


def test_without_a_t1w_lesions_alone_can_be_found(calls):
    results = dict(run({"FLAIR": SCAN}, ["wml", "deepbrain", "brain"], predictors))
    assert {str(results[task]) for task in ("brain", "deepbrain")} == {
        "the session has no T1w image"
    }
    assert isinstance(results["brain"], SkippedTask)
    assert isinstance(results["wml"], Segmentation) and calls == ["wml"]
    assert wml.seen == [(None, None, SCAN)]


def test_a_model_that_cannot_be_used_costs_its_task_alone(calls):
    def pool(task):
        if task == "hippocampus":
            raise BundleError("changed")
        return task

    results = dict(run({"T1w": SCAN}, ["deepbrain", "hippocampus"], pool))
    assert isinstance(results["deepbrain"], Segmentation)
    assert isinstance(results["hippocampus"], BundleError)


def test_lesions_without_a_flair_are_skipped_with_the_reason(calls):
    results = dict(run({"T1w": SCAN}, ["brain", "wml"], predictors))
    assert isinstance(results["brain"], Segmentation)
    assert isinstance(results["wml"], SkippedTask)
    assert "requires a FLAIR" in str(results["wml"]) and "wml" not in calls


def test_results_come_as_they_are_made(calls):
    results = run({"T1w": SCAN}, ["brain", "deepbrain"], predictors)
    next(results)
    assert calls == ["find_brain", "brain"]


@pytest.mark.parametrize(
    ("asked", "models"),
    [
        ([], []),
        (["brain"], ["brain", "icv", "outline"]),
        (["deepbrain"], ["brain", "deepbrain", "icv", "outline"]),
        (["hippocampus"], ["brain", "deepbrain", "hippocampus", "icv", "outline"]),
        (["wholebrain"], ["brain", "deepbrain", "wholebrain", "icv", "outline", "sides"]),
        (["wml"], ["brain", "wml", "icv", "outline"]),
        (["wml", "deepbrain"], ["brain", "deepbrain", "wml", "icv", "outline"]),
    ],
)
def test_a_task_needs_the_models_on_its_way(asked, models):
    assert needed_models(map(find_task, asked)) == models


def test_the_table_of_a_task_is_what_it_writes():
    assert find_task("deepbrain").table is None  # what its model knows
    assert find_task("wml").table is None
    assert find_task("brain").table.names == ("Brain",)
    assert find_task("hippocampus").table.names == (
        "Left-Hippocampus-Anterior",
        "Left-Hippocampus-Posterior",
        "Right-Hippocampus-Anterior",
        "Right-Hippocampus-Posterior",
    )


@pytest.mark.parametrize(
    ("task", "module"), [("deepbrain", deepbrain), ("hippocampus", hippocampus)]
)
def test_a_prepared_image_goes_straight_to_its_network(monkeypatch, task, module):
    seen = []
    monkeypatch.setattr(module, "segment_prepared", lambda *given: seen.append(given) or "done")
    assert find_task(task).segment_prepared({"T1w": SCAN}, predictors) == "done"
    assert seen == [(SCAN, predictors(task))]


def test_a_prepared_image_of_a_task_of_ones_own_goes_straight_to_its_network(monkeypatch):
    seen = []
    monkeypatch.setattr(custom, "segment", lambda *given: seen.append(given) or "done")
    bundle = SimpleNamespace(
        task="thalamus",
        facts={},
        network=SimpleNamespace(spatial_dims=3),
        preparation=Preparation(spacing=1.0, intensity="crop"),
        labels=TABLE,
    )
    spec = custom.task_of(bundle)
    assert spec.segment_prepared({"T1w": SCAN}, predictors) == "done"
    assert seen == [(SCAN, predictors("thalamus"))]


def own(name, segment, **more):
    """A task of one's own."""
    return TaskSpec(
        name=name, title=name, description=name, segment=segment, segment_prepared=segment,
        models=(name,), **more,
    )  # fmt: skip


def test_a_task_of_ones_own_comes_after_the_known_ones_and_shares_the_brain(calls):
    def segment(context):
        assert brain.brain_of(context).probability is FOUND.probability
        return "mine"

    results = list(run({"T1w": SCAN}, [own("mine", segment), "deepbrain"], predictors))
    assert [task for task, _ in results] == ["deepbrain", "mine"]
    assert results[1][1] == "mine"
    assert calls.count("find_brain") == 1


def test_an_unknown_name_is_refused_before_anything_runs(calls):
    with pytest.raises(
        UsageError, match=r"'thalamus'.*brain, deepbrain, hippocampus, wholebrain, wml"
    ):
        list(run({"T1w": SCAN}, ["brain", "thalamus"], predictors))
    assert calls == []


def test_what_is_shared_is_made_once_and_so_is_the_error_it_ends_in():
    context = SessionContext({}, predictors)
    made = []

    def work():
        made.append("work")
        return 7

    def fail():
        made.append("fail")
        raise SegmentationError("no")

    assert context.once("a", work) == context.once("a", work) == 7
    for _ in range(2):
        with pytest.raises(SegmentationError, match="no"):
            context.once("b", fail)
    assert made == ["work", "fail"]


def test_a_session_without_a_t1w_says_so_to_whoever_asks():
    assert SessionContext({"T1w": SCAN}, predictors).t1w is SCAN
    with pytest.raises(SkippedTask, match="no T1w image"):
        _ = SessionContext({"FLAIR": SCAN}, predictors).t1w

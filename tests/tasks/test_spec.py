"""What a task says of itself: what it needs, what it writes, and why it cannot be done."""

from __future__ import annotations

from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest

from deepmrseg_bids.tasks.registry import find_task, task_names
from deepmrseg_bids.tasks.spec import MODALITIES, Output, TaskSpec
from tests.support import images_of


def refuse(*_: object) -> None:
    raise AssertionError("nothing is segmented here")


def spec(**changes: object) -> TaskSpec:
    """A task that needs a T1w, unless told otherwise."""
    usual = {
        "name": "nuts",
        "title": "Nuts",
        "description": "Nuts",
        "segment": refuse,
        "segment_prepared": refuse,
        "models": ("nuts",),
    }
    return TaskSpec(**(usual | changes))  # type: ignore[arg-type]


PAIR = {"required": ("FLAIR",), "optional": ("T1w",), "native": "FLAIR"}
T1W, FLAIR = Path("/d/sub-01_T1w.nii.gz"), Path("/d/sub-01_acq-x_FLAIR.nii.gz")


@pytest.mark.parametrize("name", ["", "a-b", "a_b", "a b", "é", "²", "<i>", "a/b", "a.b"])
def test_a_name_that_could_not_stand_in_a_file_name_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="letters and digits, got") as caught:
        spec(name=name)
    assert repr(name) in str(caught.value)


def test_a_task_needs_a_model() -> None:
    with pytest.raises(ValueError, match="nuts: a task names the models"):
        spec(models=())


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"required": ()}, "none"),
        ({"required": ("t1w",)}, "'t1w'"),
        ({"optional": ("T2w",)}, "'T2w'"),
        ({"native": "PDw"}, "'PDw'"),
    ],
)
def test_a_task_needs_images_that_sessions_can_have(changes: dict[str, object], told: str) -> None:
    with pytest.raises(ValueError, match=f"nuts: a task needs images of T1w, FLAIR, got .*{told}"):
        spec(**changes)


def test_a_task_does_not_change() -> None:
    with pytest.raises(FrozenInstanceError):
        spec().name = "other"  # type: ignore[misc]


def test_a_label_map_is_called_by_the_name_of_its_task_unless_it_says_otherwise() -> None:
    assert spec().label_map == Output({"seg": "nuts"}, "dseg", None)
    own = Output({"desc": "nuts"}, "mask", "Brain")
    assert spec(output=own).label_map == own


@pytest.mark.parametrize(
    ("changes", "pair"),
    [
        ({}, False),
        ({"required": ("FLAIR",)}, False),
        ({"optional": ("FLAIR",)}, True),
        ({"required": ("T1w", "FLAIR")}, True),
        (PAIR, True),
    ],
)
def test_a_task_of_several_images_is_a_pair(changes: dict[str, object], pair: bool) -> None:
    assert spec(**changes).pair == pair


@pytest.mark.parametrize(
    ("changes", "there", "seen"),
    [
        ({}, "T1w FLAIR", ["T1w"]),
        ({}, "FLAIR", []),
        (PAIR, "FLAIR T1w", ["T1w", "FLAIR"]),
        (PAIR, "FLAIR", ["FLAIR"]),
        (PAIR, "T1w", []),
        ({"required": ("FLAIR", "T1w")}, "FLAIR T1w", ["T1w", "FLAIR"]),
        ({"required": ("FLAIR", "T1w")}, "FLAIR", []),
    ],
)
def test_it_sees_the_images_that_it_asks_for_or_none(
    changes: dict[str, object], there: str, seen: list[str]
) -> None:
    found = spec(**changes).images({name: f"the {name}" for name in there.split()})
    assert found == {name: f"the {name}" for name in seen}
    assert list(found) == seen  # in the order of MODALITIES, whatever that of the session


@pytest.mark.parametrize(
    ("changes", "there", "reason"),
    [
        ({}, "T1w", ""),
        ({}, "", "the session has no T1w image"),
        ({}, "FLAIR", "the session has no T1w image"),
        (PAIR, "FLAIR", ""),
        (PAIR, "T1w FLAIR", ""),
        (PAIR, "T1w", "nuts requires a FLAIR, but the session has none"),
        (PAIR, "", "the session has no T1w image"),
        ({"required": ("T1w", "FLAIR")}, "T1w", "nuts requires a FLAIR, but the session has none"),
    ],
)
def test_what_a_session_lacks_is_said(changes: dict[str, object], there: str, reason: str) -> None:
    assert spec(**changes).missing(there.split()) == reason


@pytest.mark.parametrize(
    ("changes", "there", "suits"),
    [
        ({}, "T1w", True),
        ({}, "FLAIR", True),
        ({}, "", True),
        (PAIR, "T1w FLAIR", True),
        (PAIR, "FLAIR", True),
        (PAIR, "T1w", False),
        (PAIR, "", False),
    ],
)
def test_unasked_it_is_done_unless_an_image_beside_the_t1w_is_missing(
    changes: dict[str, object], there: str, suits: bool
) -> None:
    assert spec(**changes).suits(there.split()) == suits


def test_tables_are_named_after_the_t1w_where_there_is_one() -> None:
    assert spec().source(images_of(T1W, FLAIR)) == T1W
    assert spec(**PAIR).source(images_of(T1W, FLAIR)) == T1W
    assert spec(**PAIR).source(images_of(flair=FLAIR)) == FLAIR


@pytest.mark.parametrize("name", task_names())
def test_the_tasks_of_the_package_have_all_that_pages_and_tables_say_of_them(name: str) -> None:
    task = find_task(name)
    assert task.name == name == task.models[-1]
    assert task.title and task.description and task.methods.endswith(".")
    assert {task.native, *task.required, *task.optional} <= set(MODALITIES)
    assert task.native in task.required

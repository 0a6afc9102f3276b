"""Which tasks there are, and what happens to those that somebody else offers."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from deepmrseg_bids.errors import BundleError, UsageError
from deepmrseg_bids.imaging.labels import Label, LabelTable
from deepmrseg_bids.inference.bundle import ModelBundle, NewBundle, Preparation, shipped_bundles
from deepmrseg_bids.network import NetworkConfig, build_network
from deepmrseg_bids.tasks import registry
from deepmrseg_bids.tasks.registry import (
    GROUP,
    find_task,
    known_tasks,
    needed_models,
    task_names,
    task_of_model,
)

OURS = ("brain", "deepbrain", "hippocampus", "wholebrain", "wml")
PLUGIN = """\
from deepmrseg_bids.tasks.spec import TaskSpec

def refuse(*_):
    raise AssertionError("nothing is segmented here")

def task(name):
    return TaskSpec(name=name, title=name, description=name, segment=refuse,
                    segment_prepared=refuse, models=("brain", name))

NUTS = task("nuts")
ALMONDS = task("almonds")
BRAIN = task("brain")
TEXT = "no task"
"""


def forget() -> None:
    """What is installed is looked up again."""
    registry._offered.cache_clear()
    find_task.cache_clear()


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Install a package that offers tasks by these entry points."""
    place = tmp_path / "site"
    numbers = iter(range(9))

    def offer(*entries: str, source: str = PLUGIN) -> None:
        name = f"plugin{next(numbers)}of{tmp_path.name.replace('-', '')}"
        about = place / f"{name}-1.0.dist-info"
        about.mkdir(parents=True)
        (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        lines = "\n".join(entry.replace("MODULE", name) for entry in entries)
        (about / "entry_points.txt").write_text(f"[{GROUP}]\n{lines}\n")
        (place / f"{name}.py").write_text(source)
        monkeypatch.syspath_prepend(place)
        forget()

    yield offer
    monkeypatch.undo()
    forget()


def bundle(folder: Path, task: str) -> Path:
    """A bundle of a tiny network that was trained for this task."""
    network = NetworkConfig("deepmrseg", 3, 1, 2, width=4, depth=1)
    NewBundle(
        task=task,
        network=network,
        preparation=Preparation(spacing=1.0, intensity="crop"),
        labels=LabelTable((Label(1, "Nut"),)),
        state=build_network(network).state_dict(),
        version="1",
        settings="",
        card="",
        facts={},
    ).write(folder)
    return folder


# -- ours ------------------------------------------------------------------------------------


def test_our_tasks_come_in_the_order_in_which_they_run() -> None:
    assert task_names()[: len(OURS)] == OURS
    assert list(known_tasks())[: len(OURS)] == list(OURS)
    assert [find_task(name).name for name in OURS] == list(OURS)


@pytest.mark.parametrize("name", ["thalamus", "", "Brain", "registry", "../brain"])
def test_an_unknown_task_is_refused_with_a_list_of_the_known_ones(name: str) -> None:
    with pytest.raises(
        UsageError, match="known are brain, deepbrain, hippocampus, wholebrain, wml"
    ) as caught:
        find_task(name)
    assert f"unknown task {name!r}" in str(caught.value)


def test_the_registry_needs_neither_torch_nor_nipype_and_no_file_of_a_task() -> None:
    code = """if True:
        import sys
        from deepmrseg_bids.tasks.registry import find_task, known_tasks, task_names
        task_names()
        loaded = [name for name in ("brain", "deepbrain", "hippocampus", "wholebrain", "wml")
                  if f"deepmrseg_bids.tasks.{name}" in sys.modules]
        assert loaded == [], loaded
        find_task("brain")
        assert "deepmrseg_bids.tasks.brain" in sys.modules
        assert "deepmrseg_bids.tasks.wml" not in sys.modules
        known_tasks()
        heavy = {"torch", "nipype"} & set(sys.modules)
        assert not heavy, heavy
    """
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=300
    )
    assert ended.returncode == 0, ended.stderr


# -- those of installed packages -------------------------------------------------------------


def test_an_installed_package_adds_tasks_after_ours(install: Callable[..., None]) -> None:
    install("nuts = MODULE:NUTS", "almonds = MODULE:ALMONDS")
    assert task_names() == (*OURS, "almonds", "nuts")
    assert find_task("nuts").title == "nuts"
    assert list(known_tasks()) == [*OURS, "almonds", "nuts"]
    with pytest.raises(UsageError, match="wml, almonds, nuts"):
        find_task("peanuts")


def test_no_package_takes_the_place_of_a_task_of_ours(install: Callable[..., None]) -> None:
    install("brain = MODULE:BRAIN", "nuts = MODULE:NUTS")
    assert task_names() == (*OURS, "nuts")
    assert find_task("brain").segment.__module__ == "deepmrseg_bids.tasks.brain"
    assert known_tasks()["brain"] is find_task("brain")


@pytest.mark.parametrize(
    ("entry", "source", "told"),
    [
        ("nuts = MODULE:NUTS", "import not_there_at_all", "cannot be loaded.*not_there_at_all"),
        ("nuts = MODULE:NUTS", "1 / 0", "cannot be loaded.*division by zero"),
        ("nuts = MODULE:NUTS", "NUTS = (", "cannot be loaded"),
        ("nuts = MODULE:MISSING", PLUGIN, "cannot be loaded.*MISSING"),
        ("nuts = nowhere.at.all:NUTS", PLUGIN, "cannot be loaded.*nowhere"),
        ("nuts = MODULE:task", PLUGIN, "is not a TaskSpec of that name"),
        ("nuts = MODULE:TEXT", PLUGIN, "is not a TaskSpec of that name"),
        ("nuts = MODULE", PLUGIN, "is not a TaskSpec of that name"),
        ("nuts = MODULE:ALMONDS", PLUGIN, "is not a TaskSpec of that name"),
        ("nuts = MODULE:NUTS", PLUGIN.replace('task("nuts")', 'task("a-b")'), "cannot be loaded"),
    ],
)
def test_an_offer_that_cannot_be_used_is_wrong_usage_that_names_it(
    install: Callable[..., None], entry: str, source: str, told: str
) -> None:
    install(entry, source=source)
    with pytest.raises(UsageError, match=rf"the task nuts \(\S+\) {told}"):
        find_task("nuts")
    assert find_task("brain").name == "brain"  # the others are there all the same
    assert list(known_tasks()) == list(OURS)
    with pytest.raises(UsageError, match="the task nuts"):
        known_tasks(asked=["nuts"])


# -- those of bundles ------------------------------------------------------------------------


def test_a_bundle_under_a_known_name_is_of_that_task(tmp_path: Path) -> None:
    assert task_of_model("wml", tmp_path / "not looked at") is find_task("wml")


def test_a_bundle_of_another_name_is_a_task_of_its_own(tmp_path: Path) -> None:
    folder = bundle(tmp_path / "m", "nuts")
    task = task_of_model("nuts", folder)
    assert (task.name, task.models, task.required) == ("nuts", ("nuts",), ("T1w",))
    known = known_tasks({"nuts": folder, "brain": tmp_path / "m"})
    assert list(known) == [*task_names(), "nuts"]


def test_a_bundle_given_under_the_wrong_name_says_which_is_right(tmp_path: Path) -> None:
    folder = bundle(tmp_path / "m", "nuts")
    with pytest.raises(
        UsageError, match=r"this model is for the task 'nuts'.*brain.*--model nuts="
    ) as caught:
        task_of_model("almonds", folder)
    assert f"--model almonds={folder}" in str(caught.value)


def test_a_folder_without_a_bundle_is_told(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="nothing"):
        task_of_model("nuts", tmp_path / "nothing")
    with pytest.raises(BundleError, match="nothing"):
        known_tasks({"nuts": tmp_path / "nothing"})


def test_models_are_needed_once_in_the_order_in_which_they_run(tmp_path: Path) -> None:
    own = task_of_model("nuts", bundle(tmp_path / "m", "nuts"))
    asked = [own, find_task("wml"), find_task("wholebrain"), find_task("hippocampus")]
    assert needed_models(asked) == [*OURS, "nuts", "icv", "outline", "sides"]
    assert needed_models([]) == []


def test_what_draws_a_structure_that_is_written_states_the_interval_of_its_volume() -> None:
    drawn = {"brain": ("brain", "outline"), "deepbrain": ("deepbrain",), "wml": ("wml",),
             "hippocampus": ("hippocampus",), "wholebrain": ("wholebrain",)}  # fmt: skip
    assert set(drawn) == set(OURS)
    for task, models in drawn.items():
        for model in models:
            bundle = ModelBundle.open(shipped_bundles()[model])
            names = bundle.labels.names if model != "brain" else ["Brain"]
            stated = {
                *bundle.facts.get("volume_interval", {}),
                *bundle.facts.get("volume_interval_ranges", {}),
            }
            if task == "wholebrain":  # one class for both sides
                names = [label.name for label in find_task(task).table or ()]
            assert set(names) <= stated, (model, sorted(set(names) - stated))

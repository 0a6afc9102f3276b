"""What a session is expected to take: how it follows from the scan, the tasks and the machine."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from deepmrseg_bids.execution.cost_model import Extras, Speed, memory_mib, predict, start_seconds
from deepmrseg_bids.imaging.grid import Grid
from deepmrseg_bids.inference.bundle import ModelBundle, Preparation
from deepmrseg_bids.tasks.registry import find_task
from deepmrseg_bids.tasks.spec import TaskSpec

ALL = ("brain", "deepbrain", "hippocampus")
PREPARATIONS = {
    "brain": Preparation(2.0, "head", window=(72, 88, 72)),
    "deepbrain": Preparation(1.0, "brain", shape=(96, 96, 80), window=(80, 80, 64)),
    "hippocampus": Preparation(1.0, "crop", shape=(40, 56, 40), window=(32, 48, 32)),
}
SPEED = Speed({"brain": 0.2, "deepbrain": 0.35, "hippocampus": 0.1}, 0.016, PREPARATIONS)


def head(edge: float, millimetres: float = 240.0, *, tilted: bool = False) -> Grid:
    voxels = round(millimetres / edge)
    affine = np.diag([edge, edge, edge, 1.0])
    if tilted:
        cos, sin = np.cos(0.3), np.sin(0.3)
        affine[:2, :2] = edge * np.array([[cos, -sin], [sin, cos]])
    return Grid((voxels,) * 3, affine)


def specs(tasks: Sequence[str] = ALL) -> list[TaskSpec]:
    return [find_task(task) for task in tasks]


def seconds(grid: Grid = head(1.0), tasks: Sequence[str] = ALL, **more: int) -> float:  # noqa: B008
    return predict({"T1w": grid}, specs(tasks), SPEED, Extras(**more)).seconds


def test_more_work_takes_longer():
    usual = seconds()
    assert seconds(tasks=("brain",)) < seconds(tasks=("brain", "deepbrain")) < usual
    assert seconds(head(2.0)) < usual < seconds(head(0.5))
    assert usual < seconds(probabilities=True)
    assert seconds(page=False) < usual
    assert usual < seconds(head(1.0, tilted=True))


def test_output_spaces_take_time_a_registration_and_memory_once():
    def cost(registrations, spaces):
        extras = Extras(registrations=registrations, spaces=spaces)
        return predict({"T1w": head(1.0)}, specs(["brain"]), SPEED, extras)

    none, one, two, other = cost(0, 0), cost(1, 1), cost(1, 2), cost(2, 2)
    assert none.seconds < one.seconds < two.seconds < other.seconds
    assert none.memory_mib + 100 < one.memory_mib == other.memory_mib


def test_a_task_takes_the_networks_that_it_needs():
    needed = seconds(tasks=("hippocampus",), page=False)
    assert 0.8 * seconds(page=False) < needed < seconds(page=False)


def test_a_machine_of_half_the_speed_takes_twice_as_long():
    slow = Speed({task: 2 * time for task, time in SPEED.windows.items()}, 0.032, PREPARATIONS)
    assert predict({"T1w": head(1.0)}, specs(), slow).seconds == pytest.approx(2 * seconds())
    assert start_seconds(slow) == pytest.approx(2 * start_seconds(SPEED))


def test_windows_are_counted_as_the_networks_see_them():
    """A head of 144 x 176 x 144 mm is one window of the brain network, a larger one several."""
    small = Grid((144, 176, 144), np.eye(4))
    larger = Grid((146, 176, 144), np.eye(4))
    more = seconds(larger, ("brain",)) - seconds(small, ("brain",))
    assert more == pytest.approx(SPEED.windows["brain"], rel=0.1)


def test_a_large_head_is_expected_to_stay_within_four_gib():
    assert 800 < memory_mib({"T1w": head(1.0, 256)}, specs()) < 1500
    assert memory_mib({"T1w": head(0.5, 256)}, specs()) < 4096
    assert memory_mib({}, specs()) < memory_mib({"T1w": head(2.0)}, specs())


def test_a_field_of_view_beyond_a_head_takes_more_memory_whatever_its_voxels():
    large = Grid((120, 120, 90), np.diag([4.6, 4.6, 4.6, 1]))
    tilted = Grid(large.shape, np.array([[3.25, -3.25, 0, 0], [3.25, 3.25, 0, 0], [0, 0, 4.6, 0],
                                         [0, 0, 0, 1.0]]))  # fmt: skip
    usual = memory_mib({"T1w": head(2.0, 240)}, specs(["brain"]))
    assert usual + 800 < memory_mib({"T1w": large}, specs(["brain"])) < 1800  # 1546 measured
    assert memory_mib({"T1w": tilted}, specs(["brain"])) > 2000


def test_the_speed_of_this_machine_is_measured(tiny_model: Path):
    bundles = {"brain": ModelBundle.open(tiny_model)}
    found = Speed.measure(bundles, threads=1, device="cpu", precision="float32")
    assert 0 < found.windows["brain"] < 60 and 0 < found.step < 60
    one, other = (
        predict({"T1w": head(edge, 200)}, specs(["brain"]), found).seconds for edge in (4.0, 2.0)
    )
    assert 0 < one < other

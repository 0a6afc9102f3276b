"""The checkpoint: read on any device, by later versions, and refused when it is another's."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from deepmrseg_bids.errors import TrainingError
from deepmrseg_bids.train.checkpoint import State, restore, save


def state(seed: int = 0, width: int = 3) -> State:
    """A small network after one step of Adam."""
    torch.manual_seed(seed)
    network = nn.Linear(width, 2)
    optimiser = torch.optim.AdamW(network.parameters())
    network(torch.ones(1, width)).sum().backward()
    optimiser.step()
    average = {name: value.clone() for name, value in network.state_dict().items()}
    return State(network, average, optimiser, step=7)


def values(kept: State) -> list[float]:
    tensors = [*kept.network.state_dict().values(), *kept.average.values()]
    moments = [m for s in kept.optimiser.state_dict()["state"].values() for m in s.values()]
    return [float(x) for tensor in (*tensors, *moments) for x in tensor.flatten()]


def test_what_was_saved_comes_back(tmp_path: Path) -> None:
    one, two = state(0), state(1)
    one.judge(0.8, keep=True, patience=3)
    one.step = 9
    one.judge(0.7, keep=True, patience=3)
    save(one, tmp_path / "c.pt")
    assert values(one) != values(two)
    restore(two, tmp_path / "c.pt", keep=True)
    assert values(one) == values(two)
    assert (two.step, two.best, two.best_step, two.waited) == (9, 0.8, 7, 1)
    assert two.kept()[1] == 7
    assert [p.name for p in tmp_path.iterdir()] == ["c.pt"]


@pytest.mark.parametrize("keep", [False, True])
def test_a_checkpoint_of_an_older_version_comes_back(tmp_path: Path, keep: bool) -> None:
    one, two = state(0), state(1)
    older = {
        "network": one.network.state_dict(),
        "average": one.average,
        "optimiser": one.optimiser.state_dict(),
        "step": 7,
        "best": 0.8,
    }
    torch.save(older, tmp_path / "c.pt")
    restore(two, tmp_path / "c.pt", keep=keep)
    assert values(one) == values(two)
    assert (two.step, two.stopped, two.waited) == (7, False, 0)
    two.judge(0.7, keep=keep, patience=0)
    assert (two.best_average is not None) == keep  # the weights of 0.8 are lost
    assert two.best == (0.7 if keep else 0.8)


def test_a_checkpoint_made_on_a_gpu_is_read_without_one(tmp_path: Path, monkeypatch) -> None:
    one, two = state(0), state(1)
    one.judge(0.8, keep=True, patience=0)
    with monkeypatch.context() as patch:
        patch.setattr(torch.serialization, "location_tag", lambda storage: "cuda:0")
        save(one, tmp_path / "c.pt")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(RuntimeError, match="CUDA"):
        torch.load(tmp_path / "c.pt", weights_only=True)
    restore(two, tmp_path / "c.pt", keep=True)
    assert values(one) == values(two)
    assert {v.device.type for v in (*two.average.values(), *two.kept()[0].values())} == {"cpu"}


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 torn", None])
def test_what_is_no_checkpoint_of_the_network_is_refused(tmp_path: Path, content) -> None:
    path = tmp_path / "c.pt"
    if content is None:
        save(state(width=4), path)
    else:
        path.write_bytes(content)
    with pytest.raises(TrainingError, match=r"c\.pt: not a checkpoint of this network"):
        restore(state(), path, keep=False)


def test_only_a_higher_dice_is_a_new_best(tmp_path: Path) -> None:
    kept = state()
    for step, mean in enumerate((0.5, 0.5, float("nan"), 0.4), start=1):
        kept.step = step
        kept.judge(mean, keep=True, patience=4)
    assert (kept.best_step, kept.waited, kept.stopped) == (1, 3, False)
    kept.judge(0.1, keep=True, patience=4)
    assert kept.stopped


def test_the_best_weights_are_a_copy() -> None:
    kept = state()
    kept.judge(0.5, keep=True, patience=0)
    before = kept.kept()[0]["bias"].clone()
    kept.average["bias"].add_(1)
    assert torch.equal(kept.kept()[0]["bias"], before)

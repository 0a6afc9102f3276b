"""The training loop: it learns, it resumes to the last bit, and it keeps its books."""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from deepmrseg_bids.bundle import ModelBundle
from deepmrseg_bids.errors import TrainingError
from deepmrseg_bids.intensity import normalise
from deepmrseg_bids.train import loop
from deepmrseg_bids.train.loop import train
from deepmrseg_bids.train.samples import load_samples
from tests.support import ball

BOOKS = ("step", "loss", "learning_rate")
AUGMENT = "[augment]\nrotate_deg = 10\nnoise = 0.1\ngamma = 0.2\nflip = 0.5\n"


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def books(out: Path) -> list[tuple[str, ...]]:
    """The log without what the clock says."""
    return [tuple(row[column] for column in BOOKS) for row in rows(out / "log.csv")]


def network_of(out: Path) -> dict[str, torch.Tensor]:
    return torch.load(out / "checkpoint.pt", weights_only=True)


def equal(a: object, b: object) -> bool:
    """Equal to the last bit, all the way down."""
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and torch.equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(equal(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(equal, a, b))
    return a == b


def test_it_learns_the_balls_and_its_bundle_finds_them(balls, toy, tmp_path: Path) -> None:
    samples = load_samples(balls(6))
    bundle = train(samples, toy(steps=60, folds=3, validate_every=30), tmp_path / "run")
    losses = np.array([float(row["loss"]) for row in rows(tmp_path / "run/log.csv")])
    assert losses[-10:].mean() < 0.5 * losses[:5].mean()
    network = ModelBundle.open(bundle).load()
    for person in (100, 101):
        image, labels = ball(person)
        with torch.inference_mode():
            x = torch.from_numpy(normalise(image, mode="crop"))[None, None]
            found = network(x).argmax(1)[0].numpy() > 0
        dice = 2 * np.sum(found & (labels > 0)) / (found.sum() + (labels > 0).sum())
        assert dice > 0.8
    scores = rows(tmp_path / "run/validation.csv")
    assert [row["step"] for row in scores] == ["30", "60"]
    assert list(scores[0]) == ["step", "mean", "Ball"]
    assert float(scores[-1]["mean"]) > 0.8
    assert (tmp_path / "run/curves.png").read_bytes().startswith(b"\x89PNG")


def test_the_folder_says_what_was_held_out_and_the_bundle_what_it_was_made_of(
    balls, toy, tmp_path: Path
) -> None:
    config = toy(steps=4, folds=2, fold=1, validate_every=2)
    bundle = ModelBundle.open(train(load_samples(balls(4)), config, tmp_path / "run"))
    assert bundle.task == "toy"
    assert bundle.labels == config.labels
    assert bundle.network == config.network
    assert bundle.facts["samples_trained_on"] == bundle.facts["samples_held_out"] == 2
    assert bundle.facts["steps"] == 4
    assert set(bundle.facts["dice_held_out"]) == {"mean", "Ball"}
    assert (bundle.path / "train.toml").read_text() == config.text
    assert "4 of 4 steps" in (bundle.path / "card.md").read_text()
    held_out = (tmp_path / "run/validation.tsv").read_text().splitlines()
    assert len(held_out) == 3


@pytest.mark.parametrize("fold", [0, 1])
def test_nobody_teaches_and_judges(balls, toy, tmp_path, monkeypatch, fold: int) -> None:
    seen: dict[str, set[str]] = {}

    def spy(samples, config):
        teaching, judging = split(samples, config)
        seen["both"] = {s.participant_id for s in teaching} & {s.participant_id for s in judging}
        seen["judging"] = {s.sample_id for s in judging}
        return teaching, judging

    split = loop._split
    monkeypatch.setattr(loop, "_split", spy)
    train(load_samples(balls(5)), toy(steps=1, folds=2, fold=fold), tmp_path / "run")
    assert seen["both"] == set()
    assert seen["judging"]


@pytest.mark.parametrize("stop", [1, 8])
def test_a_stopped_run_that_is_resumed_is_the_uninterrupted_run(
    balls, toy, tmp_path: Path, stop: int
) -> None:
    samples, config = load_samples(balls(3)), toy(AUGMENT, steps=12)
    train(samples, config, tmp_path / "whole")
    train(samples, config, tmp_path / "parts", stop_at=stop)
    assert len(books(tmp_path / "parts")) == stop
    train(samples, config, tmp_path / "parts", resume=True)
    assert equal(network_of(tmp_path / "whole"), network_of(tmp_path / "parts"))
    assert books(tmp_path / "whole") == books(tmp_path / "parts")
    whole, parts = (ModelBundle.open(tmp_path / name / "bundle") for name in ("whole", "parts"))
    assert whole.sha256 == parts.sha256


def test_a_killed_run_goes_on_from_its_checkpoint_to_the_same_weights(
    balls, toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples, config = load_samples(balls(4)), toy(AUGMENT, steps=12, folds=2, validate_every=4)
    train(samples, config, tmp_path / "whole")
    step: Callable = loop._one_step

    def killed(state, *rest):
        if state.step == 7:  # the checkpoint is at step 5, the log is at step 7
            raise KeyboardInterrupt
        return step(state, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "_one_step", killed)
        with pytest.raises(KeyboardInterrupt):
            train(samples, config, tmp_path / "killed")
    assert len(books(tmp_path / "killed")) == 7
    assert network_of(tmp_path / "killed")["step"] == 5
    train(samples, config, tmp_path / "killed", resume=True)
    assert equal(network_of(tmp_path / "whole"), network_of(tmp_path / "killed"))
    assert books(tmp_path / "whole") == books(tmp_path / "killed")
    assert rows(tmp_path / "whole/validation.csv") == rows(tmp_path / "killed/validation.csv")
    for name in ("bundle/weights.safetensors", "bundle/bundle.json"):
        whole, other = (tmp_path / run / name for run in ("whole", "killed"))
        assert whole.read_bytes() == other.read_bytes(), name


def test_a_kept_cache_changes_nothing(balls, toy, tmp_path: Path) -> None:
    samples, config = load_samples(balls(2)), toy(steps=3)
    for name in ("first", "second"):
        train(samples, config, tmp_path / name, cache=tmp_path / "cache")
    train(samples, config, tmp_path / "third")
    kept = [network_of(tmp_path / name) for name in ("first", "second", "third")]
    assert equal(kept[0], kept[1])
    assert equal(kept[0], kept[2])


def test_a_finished_run_that_is_resumed_does_nothing_more(balls, toy, tmp_path: Path) -> None:
    samples, config = load_samples(balls(2)), toy(steps=3)
    train(samples, config, tmp_path / "run")
    before = rows(tmp_path / "run/log.csv")
    assert train(samples, config, tmp_path / "run", resume=True) == tmp_path / "run/bundle"
    assert rows(tmp_path / "run/log.csv") == before


def test_a_run_is_never_overwritten_unasked(balls, toy, tmp_path: Path) -> None:
    samples, config = load_samples(balls(2)), toy(steps=2)
    train(samples, config, tmp_path / "run")
    before = network_of(tmp_path / "run")
    with pytest.raises(TrainingError, match="holds a run already: add --resume"):
        train(samples, config, tmp_path / "run")
    assert equal(before, network_of(tmp_path / "run"))


def test_the_log_has_a_row_a_step(balls, toy, tmp_path: Path) -> None:
    train(load_samples(balls(2)), toy(steps=6), tmp_path / "run")
    found = rows(tmp_path / "run/log.csv")
    assert list(found[0]) == ["step", "loss", "learning_rate", "seconds", "data_seconds"]
    assert [row["step"] for row in found] == [str(k) for k in range(1, 7)]
    assert all(float(row["seconds"]) >= float(row["data_seconds"]) > 0 for row in found)


def test_another_seed_is_another_network(balls, toy, tmp_path: Path) -> None:
    samples = load_samples(balls(2))
    for seed in (0, 1):
        train(samples, toy(steps=2, seed=seed), tmp_path / str(seed))
    assert not equal(network_of(tmp_path / "0")["network"], network_of(tmp_path / "1")["network"])


def test_label_maps_alone_are_enough_to_train_on(save, table, toy, tmp_path: Path) -> None:
    codes = np.zeros((20, 20, 20), np.int16)
    codes[4:16, 4:16, 4:16], codes[8:12, 8:12, 8:12] = 2, 5
    samples = load_samples(table([{"sample_id": "map", "dseg": save("d.nii.gz", codes)}]))
    bundle = train(samples, toy(steps=3), tmp_path / "run")
    assert ModelBundle.open(bundle).facts["steps"] == 3


def test_a_sample_of_no_weight_is_never_drawn(balls, toy, tmp_path, monkeypatch) -> None:
    first, second = load_samples(balls(2))
    drawn = []
    apply = loop.apply
    monkeypatch.setattr(loop, "apply", lambda p, *r: (drawn.append(p.weight), apply(p, *r))[1])
    train([first, dataclasses.replace(second, weight=0.0)], toy(steps=10), tmp_path / "run")
    assert set(drawn) == {1.0}


def test_the_paper_s_recipe_multiplies_the_rate_once_an_epoch(toy) -> None:
    config = toy(steps=100)
    paper = dataclasses.replace(config.loop, schedule="exponential", decay=0.5)
    config = dataclasses.replace(config, loop=paper)
    rates = [loop._rate(step, config, samples=4) for step in range(6)]  # 2 steps an epoch
    assert rates == pytest.approx([0.01, 0.01, 0.005, 0.005, 0.0025, 0.0025])


def test_one_cycle_warms_up_and_falls_to_nothing(toy) -> None:
    rates = [loop._rate(step, toy(steps=100), samples=4) for step in range(100)]
    assert rates.index(max(rates)) in (4, 5)
    assert max(rates) == pytest.approx(0.01)
    assert rates[0] == pytest.approx(0.002)
    assert rates[-1] < 1e-5
    assert rates[5:] == sorted(rates[5:], reverse=True)


def test_no_samples_and_too_few_people_are_refused(balls, toy, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="no samples"):
        train([], toy(), tmp_path / "run")
    with pytest.raises(TrainingError, match="5 folds need at least 5 people, found 2"):
        train(load_samples(balls(2)), toy(folds=5), tmp_path / "run")


def test_a_loss_that_is_no_number_stops_the_run_with_advice(
    balls, toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "deepmrseg_loss", lambda x, _: x.sum() * float("nan"))
    with pytest.raises(TrainingError, match="loss is nan at step 1: lower the learning rate"):
        train(load_samples(balls(2)), toy(), tmp_path / "run")
    assert not (tmp_path / "run/checkpoint.pt").exists()

"""The training loop: it learns, it resumes to the last bit, and it keeps its books."""

from __future__ import annotations

import csv
import dataclasses
import json
import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from deepmrseg_bids.errors import TrainingError
from deepmrseg_bids.imaging.intensity import normalise
from deepmrseg_bids.inference import precision
from deepmrseg_bids.inference.bundle import ModelBundle
from deepmrseg_bids.train import crops, loop, optimisation, training_run, validation
from deepmrseg_bids.train.config import load_config
from deepmrseg_bids.train.loop import TrainingRun, train
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


def facts(bundle: Path) -> dict:
    """The facts of a bundle, without what the clock says; strict JSON."""
    tree = json.loads((bundle / "bundle.json").read_text(), parse_constant=pytest.fail)
    assert 0 < tree["facts"].pop("network_share") < 1
    return tree["facts"]


def scripted(monkeypatch: pytest.MonkeyPatch, *means: Sequence[float] | float) -> None:
    """Let the validations on two held-out samples find these values of Dice, in this order."""
    answers = iter([np.atleast_1d(mean) for mean in means for _ in range(2)])
    monkeypatch.setattr(validation, "dice", lambda *_: next(answers))


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
    bundle = train(
        TrainingRun(samples, toy(steps=60, folds=3, validate_every=30), tmp_path / "run")
    )
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
    bundle = ModelBundle.open(train(TrainingRun(load_samples(balls(4)), config, tmp_path / "run")))
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


@pytest.mark.parametrize(("windows", "seen"), [(True, (16, 16, 16)), (False, (0, 0, 0))])
def test_a_trained_network_sees_windows_of_its_crop_or_the_whole_image(
    balls, toy, tmp_path: Path, windows: bool, seen: tuple[int, int, int]
) -> None:
    config = toy(steps=1, windows=windows)
    bundle = train(TrainingRun(load_samples(balls(2)), config, tmp_path / "run"))
    assert ModelBundle.open(bundle).preparation.window == seen


@pytest.mark.parametrize("fold", [0, 1])
def test_nobody_teaches_and_judges(balls, toy, tmp_path, fold: int) -> None:
    samples, config = load_samples(balls(5)), toy(steps=1, folds=2, fold=fold)
    run = TrainingRun(samples, config, tmp_path / "run")
    teaching, judging = run.split()
    assert not {s.participant_id for s in teaching} & {s.participant_id for s in judging}
    assert judging and len(teaching) + len(judging) == 5
    taught = facts(train(run))
    assert (taught["samples_trained_on"], taught["samples_held_out"]) == (
        len(teaching), len(judging),
    )  # fmt: skip
    kept_back = load_samples(tmp_path / "run/validation.tsv")
    assert [s.sample_id for s in kept_back] == [s.sample_id for s in judging]


@pytest.mark.parametrize("stop", [1, 8])
def test_a_stopped_run_that_is_resumed_is_the_uninterrupted_run(
    balls, toy, tmp_path: Path, stop: int
) -> None:
    samples, config = load_samples(balls(3)), toy(AUGMENT, steps=12)
    train(TrainingRun(samples, config, tmp_path / "whole"))
    train(TrainingRun(samples, config, tmp_path / "parts", stop_at=stop))
    assert len(books(tmp_path / "parts")) == stop
    train(TrainingRun(samples, config, tmp_path / "parts", resume=True))
    assert equal(network_of(tmp_path / "whole"), network_of(tmp_path / "parts"))
    assert books(tmp_path / "whole") == books(tmp_path / "parts")
    whole, parts = (ModelBundle.open(tmp_path / name / "bundle") for name in ("whole", "parts"))
    assert whole.sha256 == parts.sha256


def test_a_killed_run_goes_on_from_its_checkpoint_to_the_same_weights(
    balls, toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples, config = load_samples(balls(4)), toy(AUGMENT, steps=12, folds=2, validate_every=4)
    train(TrainingRun(samples, config, tmp_path / "whole"))
    step: Callable = loop.take_step

    def killed(state, *rest):
        if state.step == 7:  # the checkpoint is at step 5, the log is at step 7
            raise KeyboardInterrupt
        return step(state, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "take_step", killed)
        with pytest.raises(KeyboardInterrupt):
            train(TrainingRun(samples, config, tmp_path / "killed"))
    assert len(books(tmp_path / "killed")) == 7
    assert network_of(tmp_path / "killed")["step"] == 5
    train(TrainingRun(samples, config, tmp_path / "killed", resume=True))
    assert equal(network_of(tmp_path / "whole"), network_of(tmp_path / "killed"))
    assert books(tmp_path / "whole") == books(tmp_path / "killed")
    assert rows(tmp_path / "whole/validation.csv") == rows(tmp_path / "killed/validation.csv")
    for name in ("weights.safetensors", "card.md", "train.toml"):
        whole, other = (tmp_path / run / "bundle" / name for run in ("whole", "killed"))
        assert whole.read_bytes() == other.read_bytes(), name
    assert facts(tmp_path / "whole/bundle") == facts(tmp_path / "killed/bundle")


def test_crops_made_by_worker_processes_are_the_same_crops(balls, toy, tmp_path: Path) -> None:
    samples, config = load_samples(balls(3)), toy(AUGMENT, steps=7)
    train(TrainingRun(samples, config, tmp_path / "alone"))
    train(TrainingRun(samples, config, tmp_path / "helped", workers=2, stop_at=4))
    train(TrainingRun(samples, config, tmp_path / "helped", workers=2, resume=True))
    assert books(tmp_path / "alone") == books(tmp_path / "helped")
    assert equal(network_of(tmp_path / "alone"), network_of(tmp_path / "helped"))


def test_a_run_that_went_to_its_end_needs_no_checkpoint_any_more(
    balls, toy, tmp_path: Path
) -> None:
    samples, config = load_samples(balls(2)), toy(steps=3)
    bundle = train(TrainingRun(samples, config, tmp_path / "run"))
    (tmp_path / "run/checkpoint.pt").unlink()
    before = (bundle / "weights.safetensors").stat().st_mtime_ns
    assert train(TrainingRun(samples, config, tmp_path / "run", resume=True)) == bundle
    assert (bundle / "weights.safetensors").stat().st_mtime_ns == before
    with pytest.raises(TrainingError, match="other settings"):
        train(TrainingRun(samples, toy(AUGMENT, steps=3), tmp_path / "run", resume=True))
    train(TrainingRun(samples, toy(steps=5), tmp_path / "longer", stop_at=4))
    (tmp_path / "longer/checkpoint.pt").unlink()
    train(
        TrainingRun(samples, toy(steps=5), tmp_path / "longer", resume=True)
    )  # not at its end: anew
    assert len(books(tmp_path / "longer")) == 5


def test_a_kept_cache_changes_nothing(balls, toy, tmp_path: Path) -> None:
    samples, config = load_samples(balls(2)), toy(steps=3)
    for name in ("first", "second"):
        train(TrainingRun(samples, config, tmp_path / name, cache=tmp_path / "cache"))
    train(TrainingRun(samples, config, tmp_path / "third"))
    kept = [network_of(tmp_path / name) for name in ("first", "second", "third")]
    assert equal(kept[0], kept[1])
    assert equal(kept[0], kept[2])


def test_a_finished_run_that_is_resumed_does_nothing_more(
    balls, toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples, config = load_samples(balls(2)), toy(steps=3)
    train(TrainingRun(samples, config, tmp_path / "run"))
    before = rows(tmp_path / "run/log.csv")
    monkeypatch.setattr(crops, "prepare_sample", lambda *_: pytest.fail("there is nothing to do"))
    assert (
        train(TrainingRun(samples, config, tmp_path / "run", resume=True))
        == tmp_path / "run/bundle"
    )
    assert rows(tmp_path / "run/log.csv") == before


def test_a_run_is_never_overwritten_unasked(balls, toy, tmp_path: Path) -> None:
    samples, config = load_samples(balls(2)), toy(steps=2)
    train(TrainingRun(samples, config, tmp_path / "run"))
    before = network_of(tmp_path / "run")
    with pytest.raises(TrainingError, match="already contains a run: add --resume"):
        train(TrainingRun(samples, config, tmp_path / "run"))
    assert equal(before, network_of(tmp_path / "run"))


def test_the_log_has_a_row_a_step(balls, toy, tmp_path: Path) -> None:
    train(TrainingRun(load_samples(balls(2)), toy(steps=6), tmp_path / "run"))
    found = rows(tmp_path / "run/log.csv")
    assert list(found[0]) == ["step", "loss", "learning_rate", "seconds", "data_seconds"]
    assert [row["step"] for row in found] == [str(k) for k in range(1, 7)]
    assert all(float(row["seconds"]) >= float(row["data_seconds"]) > 0 for row in found)


def test_another_seed_is_another_network(balls, toy, tmp_path: Path) -> None:
    samples = load_samples(balls(2))
    for seed in (0, 1):
        train(TrainingRun(samples, toy(steps=2, seed=seed), tmp_path / str(seed)))
    assert not equal(network_of(tmp_path / "0")["network"], network_of(tmp_path / "1")["network"])


def test_label_maps_alone_are_enough_to_train_on(save, table, toy, tmp_path: Path) -> None:
    codes = np.zeros((20, 20, 20), np.int16)
    codes[4:16, 4:16, 4:16], codes[8:12, 8:12, 8:12] = 2, 5
    samples = load_samples(table([{"sample_id": "map", "dseg": save("d.nii.gz", codes)}]))
    config = dataclasses.replace(toy(steps=3), ignore=(2,))
    bundle = train(TrainingRun(samples, config, tmp_path / "run"))
    assert ModelBundle.open(bundle).facts["steps"] == 3


def test_a_sample_of_no_weight_is_never_drawn(balls, toy, tmp_path, monkeypatch) -> None:
    first, second = load_samples(balls(2))
    drawn = []
    apply = crops.apply
    monkeypatch.setattr(crops, "apply", lambda p, *r: (drawn.append(p.weight), apply(p, *r))[1])
    train(
        TrainingRun(
            [first, dataclasses.replace(second, weight=0.0)], toy(steps=10), tmp_path / "run"
        )
    )
    assert set(drawn) == {1.0}


def test_the_paper_s_recipe_multiplies_the_rate_once_an_epoch(toy) -> None:
    config = toy(steps=100)
    paper = dataclasses.replace(config.loop, schedule="exponential", decay=0.5)
    config = dataclasses.replace(config, loop=paper)
    rates = [
        optimisation.learning_rate(step, config, samples=4) for step in range(6)
    ]  # 2 steps an epoch
    assert rates == pytest.approx([0.01, 0.01, 0.005, 0.005, 0.0025, 0.0025])


def test_one_cycle_warms_up_and_falls_to_nothing(toy) -> None:
    rates = [optimisation.learning_rate(step, toy(steps=100), samples=4) for step in range(100)]
    assert rates.index(max(rates)) in (4, 5)
    assert max(rates) == pytest.approx(0.01)
    assert rates[0] == pytest.approx(0.002)
    assert rates[-1] < 1e-5
    assert rates[5:] == sorted(rates[5:], reverse=True)


def test_no_samples_and_too_few_people_are_refused(balls, toy, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="no samples"):
        train(TrainingRun([], toy(), tmp_path / "run"))
    with pytest.raises(TrainingError, match="5 folds require at least 5 participants, found 2"):
        train(TrainingRun(load_samples(balls(2)), toy(folds=5), tmp_path / "run"))


def test_a_loss_that_is_no_number_stops_the_run_with_advice(
    balls, toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(optimisation, "deepmrseg_loss", lambda x, _: x.sum() * float("nan"))
    with pytest.raises(TrainingError, match="loss is nan at step 1: lower the learning rate"):
        train(TrainingRun(load_samples(balls(2)), toy(), tmp_path / "run"))
    assert not (tmp_path / "run/checkpoint.pt").exists()


# --- best weights and early stopping

JUDGED = {"folds": 2, "validate_every": 2, "checkpoint_every": 1}


def weights_of(bundle: Path) -> dict[str, torch.Tensor]:
    return ModelBundle.open(bundle).load().state_dict()


def halved(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """As they come back from a bundle."""
    return {k: v.half().float() if v.is_floating_point() else v for k, v in state.items()}


@pytest.mark.parametrize(("keep", "step", "dice"), [("best", 4, 0.9), ("last", 6, 0.5)])
def test_the_bundle_holds_the_weights_to_keep_and_says_which(
    balls, toy, tmp_path: Path, monkeypatch, keep, step, dice
) -> None:
    samples = load_samples(balls(4))
    config = toy(AUGMENT, steps=6, keep=keep, **JUDGED)
    averages = {}
    validate = loop.validate

    def spy(state, *rest):
        averages[state.step] = {name: value.clone() for name, value in state.average.items()}
        return validate(state, *rest)

    monkeypatch.setattr(loop, "validate", spy)
    scripted(monkeypatch, 0.3, 0.9, 0.5)
    bundle = train(TrainingRun(samples, config, tmp_path / "run"))
    assert set(averages) == {2, 4, 6}
    assert equal(weights_of(bundle), halved(averages[step]))
    assert not equal(weights_of(bundle), halved(averages[10 - step]))
    found = facts(bundle)
    assert (found["steps"], found["kept_step"], found["stopped_early"]) == (6, step, False)
    assert found["dice_held_out"] == {"mean": dice, "Ball": dice}
    assert ("the weights are those of step 4" in (bundle / "card.md").read_text().lower()) == (
        keep == "best"
    )


def test_the_best_weights_and_the_patience_survive_a_kill(
    balls, toy, tmp_path: Path, monkeypatch
) -> None:
    samples = load_samples(balls(4))
    config = toy(AUGMENT, steps=20, keep="best", patience=2, **JUDGED)
    scripted(monkeypatch, 0.9, 0.5)
    train(TrainingRun(samples, config, tmp_path / "run", stop_at=2))
    best = network_of(tmp_path / "run")["average"]
    train(TrainingRun(samples, config, tmp_path / "run", stop_at=5, resume=True))
    scripted(monkeypatch, 0.4)
    bundle = train(TrainingRun(samples, config, tmp_path / "run", resume=True))
    assert equal(weights_of(bundle), halved(best))
    assert network_of(tmp_path / "run")["step"] == 6
    found = facts(bundle)
    assert (found["steps"], found["kept_step"], found["stopped_early"]) == (6, 2, True)


def test_a_run_stops_when_its_patience_is_at_an_end_and_stays_stopped(
    balls, toy, tmp_path: Path, monkeypatch, caplog
) -> None:
    samples, config = load_samples(balls(4)), toy(steps=20, patience=2, **JUDGED)
    scripted(monkeypatch, 0.5, 0.4, 0.6, 0.6, 0.1)
    with caplog.at_level(logging.INFO):
        bundle = train(TrainingRun(samples, config, tmp_path / "run"))
    assert "step 10: no higher Dice than 0.6000 (step 6) in 2 validations: stopped" in caplog.text
    assert len(books(tmp_path / "run")) == 10
    found = facts(bundle)
    assert (found["steps"], found["kept_step"], found["stopped_early"]) == (10, 10, True)
    card = (bundle / "card.md").read_text()
    assert "10 of 20 steps" in card
    assert "stopped early: 2 validations" in card
    assert train(TrainingRun(samples, config, tmp_path / "run", resume=True)) == bundle
    assert len(books(tmp_path / "run")) == 10


def test_a_run_that_reached_its_end_was_not_stopped_early(
    balls, toy, tmp_path: Path, monkeypatch
) -> None:
    scripted(monkeypatch, 0.9, 0.5)
    bundle = train(
        TrainingRun(load_samples(balls(4)), toy(steps=4, patience=1, **JUDGED), tmp_path / "run")
    )
    assert facts(bundle)["stopped_early"] is False
    assert "stopped" not in (bundle / "card.md").read_text()


@pytest.mark.parametrize("asked", [{"keep": "best"}, {"patience": 1}])
def test_what_validation_decides_is_refused_without_one(balls, toy, tmp_path: Path, asked) -> None:
    with pytest.raises(TrainingError, match="require samples for validation: set folds"):
        train(TrainingRun(load_samples(balls(2)), toy(folds=0, **asked), tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_a_label_that_nobody_has_leaves_the_mean_a_number(
    balls, settings_file, tmp_path: Path, monkeypatch
) -> None:
    two = ('name = "Ball" }', 'name = "Ball" }, { index = 6, name = "Cube" }')
    path = settings_file(two, ("classes = 2", "classes = 3"))
    config = load_config(path, steps=6, keep="best", **JUDGED)
    scripted(monkeypatch, [0.4, np.nan], [0.8, np.nan], [np.nan, np.nan])
    bundle = train(TrainingRun(load_samples(balls(4)), config, tmp_path / "run"))
    found = rows(tmp_path / "run/validation.csv")
    assert [row["mean"] for row in found] == ["0.4000", "0.8000", "nan"]
    assert {row["Cube"] for row in found} == {"nan"}
    assert facts(bundle)["kept_step"] == 4
    assert facts(bundle)["dice_held_out"] == {"mean": 0.8, "Ball": 0.8, "Cube": None}


def test_a_label_on_neither_side_has_no_dice(balls, toy, tmp_path: Path) -> None:
    config = toy(steps=1)
    sample = crops.prepare_sample(load_samples(balls(1))[0], config)
    empty = dataclasses.replace(sample, target=np.zeros_like(sample.target))

    def nothing(x: torch.Tensor) -> torch.Tensor:
        return torch.cat([torch.ones_like(x), torch.zeros_like(x)], 1)

    plan = training_run.validated(TrainingRun(load_samples(balls(1)), config, tmp_path / "run"))
    assert plan is not None
    assert np.isnan(validation.dice(nothing, empty, plan)).all()
    assert validation.dice(nothing, sample, plan).tolist() == [0]


# --- precision


@pytest.mark.parametrize(
    ("asked", "capable", "used"),
    [
        ("bfloat16", False, torch.bfloat16),
        ("auto", True, torch.bfloat16),
        ("auto", False, torch.float32),
        ("float32", True, torch.float32),
    ],
)
def test_the_network_runs_in_the_precision_and_the_loss_in_float32(
    balls, toy, tmp_path: Path, monkeypatch, asked, capable, used
) -> None:
    networks, losses = set(), set()
    build, criterion = optimisation.build_network, optimisation.deepmrseg_loss

    def watched(config):
        network = build(config)
        network.register_forward_hook(lambda module, given, out: networks.add(out.dtype))
        return network

    def spy(logits, target):
        losses.add(logits.dtype)
        return criterion(logits, target)

    monkeypatch.setattr(precision, "cpu_has_bfloat16", lambda: capable)
    for module in (optimisation, validation):
        monkeypatch.setattr(module, "build_network", watched)
    monkeypatch.setattr(optimisation, "deepmrseg_loss", spy)
    config = toy(steps=2, precision=asked, **JUDGED)
    bundle = train(TrainingRun(load_samples(balls(4)), config, tmp_path / "run"))
    assert (networks, losses) == ({used}, {torch.float32})
    kept = network_of(tmp_path / "run")
    assert all(v.dtype == torch.float32 for v in kept["average"].values() if v.is_floating_point())
    assert facts(bundle)["precision"] == str(used).removeprefix("torch.")


def test_it_learns_in_bfloat16_too(balls, toy, tmp_path: Path) -> None:
    train(
        TrainingRun(load_samples(balls(4)), toy(steps=30, precision="bfloat16"), tmp_path / "run")
    )
    losses = [float(row["loss"]) for row in rows(tmp_path / "run/log.csv")]
    assert np.mean(losses[-5:]) < 0.7 * np.mean(losses[:5])


# --- settings


def test_the_settings_in_force_are_in_the_folder_and_in_the_bundle(
    balls, toy, tmp_path: Path
) -> None:
    config = toy(steps=2, folds=2, fold=1)
    bundle = train(TrainingRun(load_samples(balls(4)), config, tmp_path / "run"))
    for path in (tmp_path / "run/settings.toml", bundle / "train.toml"):
        found = load_config(path)
        assert found == config
        assert (found.loop.steps, found.loop.folds, found.loop.fold) == (2, 2, 1)


def test_a_run_does_not_go_on_with_other_settings(balls, toy, tmp_path: Path) -> None:
    samples = load_samples(balls(2))
    train(TrainingRun(samples, toy(steps=4), tmp_path / "run", stop_at=2))
    before = {path: path.read_bytes() for path in (tmp_path / "run").iterdir() if path.is_file()}
    told = r"other settings: augment.flip \(was 0.0, now 0.5\), loop.steps \(was 4, now 6\);"
    with pytest.raises(TrainingError, match=told):
        train(
            TrainingRun(
                samples, toy("[augment]\nflip = 0.5\n", steps=6), tmp_path / "run", resume=True
            )
        )
    assert before == {path: path.read_bytes() for path in before}


def test_what_changes_no_network_may_change_on_the_way(balls, toy, tmp_path: Path) -> None:
    samples = load_samples(balls(2))
    train(TrainingRun(samples, toy(steps=3), tmp_path / "run", stop_at=2))
    train(TrainingRun(samples, toy(steps=3, checkpoint_every=1), tmp_path / "run", resume=True))
    assert load_config(tmp_path / "run/settings.toml").loop.checkpoint_every == 1
    assert len(books(tmp_path / "run")) == 3


def test_a_folder_from_before_settings_were_kept_is_resumed_and_gets_them(
    balls, toy, tmp_path: Path
) -> None:
    samples, config = load_samples(balls(2)), toy(steps=3)
    train(TrainingRun(samples, config, tmp_path / "run", stop_at=2))
    (tmp_path / "run/settings.toml").unlink()
    train(TrainingRun(samples, config, tmp_path / "run", resume=True))
    assert load_config(tmp_path / "run/settings.toml") == config


def test_a_folder_from_before_settings_were_kept_is_left_alone_by_another_network(
    balls, settings_file, tmp_path: Path
) -> None:
    samples = load_samples(balls(2))
    train(TrainingRun(samples, load_config(settings_file(), steps=3), tmp_path / "run", stop_at=1))
    (tmp_path / "run/settings.toml").unlink()
    other = load_config(settings_file(("width = 4", "width = 8")), steps=3)
    with pytest.raises(TrainingError, match="not a checkpoint of this network"):
        train(TrainingRun(samples, other, tmp_path / "run", resume=True))
    assert not (tmp_path / "run/settings.toml").exists()


def test_a_folder_without_a_checkpoint_may_begin_with_other_settings(
    balls, toy, tmp_path: Path
) -> None:
    samples = load_samples(balls(2))
    train(TrainingRun(samples, toy(steps=3), tmp_path / "run", stop_at=1))
    (tmp_path / "run/checkpoint.pt").unlink()
    train(TrainingRun(samples, toy(steps=2), tmp_path / "run", resume=True))
    assert [row[0] for row in books(tmp_path / "run")] == ["1", "2"]


# --- what a kill leaves behind


@pytest.mark.parametrize("left", ["", "ste"])
def test_tables_that_were_torn_by_a_kill_are_mended(balls, toy, tmp_path: Path, left: str) -> None:
    samples = load_samples(balls(4))
    config = toy(steps=6, folds=2, validate_every=6, checkpoint_every=2)
    train(TrainingRun(samples, config, tmp_path / "whole"))
    train(TrainingRun(samples, config, tmp_path / "torn", stop_at=4))
    with (tmp_path / "torn/log.csv").open("a") as stream:
        stream.write("5,2.1")
    (tmp_path / "torn/validation.csv").write_text(left)
    train(TrainingRun(samples, config, tmp_path / "torn", resume=True))
    assert books(tmp_path / "whole") == books(tmp_path / "torn")
    assert rows(tmp_path / "whole/validation.csv") == rows(tmp_path / "torn/validation.csv")


def test_a_run_killed_before_its_first_row_begins_again(balls, toy, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run/log.csv").touch()
    train(TrainingRun(load_samples(balls(2)), toy(steps=2), tmp_path / "run", resume=True))
    assert len(books(tmp_path / "run")) == 2


# --- the share of the networks, and pictures


@pytest.mark.parametrize("folds", [0, 2])
def test_it_tells_what_share_of_the_time_the_networks_take(
    balls, toy, tmp_path: Path, caplog, folds: int
) -> None:
    config = toy(steps=3, folds=folds, validate_every=2)
    with caplog.at_level(logging.INFO):
        bundle = train(TrainingRun(load_samples(balls(4)), config, tmp_path / "run"))
    told = [text for text in caplog.messages if "networks" in text]
    found = rows(tmp_path / "run/log.csv")
    assert [text.split(":")[0] for text in told] == ["step 2", "step 3"]
    data, seconds = (sum(float(r[k]) for r in found) for k in ("data_seconds", "seconds"))
    assert told[-1].endswith(f"networks {100 * (1 - data / seconds):.0f} % of the time")
    share = ModelBundle.open(bundle).facts["network_share"]
    assert share == pytest.approx(1 - data / seconds, abs=1e-3)
    assert (tmp_path / "run/curves.png").read_bytes().startswith(b"\x89PNG")


# --- TensorBoard


def test_tensorboard_that_is_not_there_is_told_before_anything_is_trained(
    balls, toy, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(TrainingError, match=r"pip install 'deepmrseg-bids\[tensorboard\]'"):
        train(TrainingRun(load_samples(balls(2)), toy(steps=2), tmp_path / "run", tensorboard=True))
    assert not (tmp_path / "run").exists()


def test_loss_rate_and_dice_are_told_to_tensorboard(
    balls, toy, tmp_path: Path, monkeypatch
) -> None:
    told: list[tuple[str, float, int]] = []

    class Board:
        def __init__(self, folder: str, purge_step: int) -> None:
            assert folder == str(tmp_path / "run/tensorboard")
            told.append(("from", 0.0, purge_step))

        def add_scalar(self, *value) -> None:
            told.append(value)

        def close(self) -> None:
            told.append(("closed", 0.0, 0))

    monkeypatch.setattr(training_run, "find_tensorboard", lambda: Board)
    samples, config = load_samples(balls(4)), toy(steps=3, **JUDGED)
    train(TrainingRun(samples, config, tmp_path / "run", tensorboard=True, stop_at=2))
    train(TrainingRun(samples, config, tmp_path / "run", tensorboard=True, resume=True))
    assert [(name, step) for name, _, step in told] == [
        ("from", 1), ("loss", 1), ("learning_rate", 1), ("loss", 2), ("learning_rate", 2),
        ("dice/mean", 2), ("dice/Ball", 2), ("closed", 0),
        ("from", 3), ("loss", 3), ("learning_rate", 3), ("dice/mean", 3), ("dice/Ball", 3),
        ("closed", 0),
    ]  # fmt: skip
    losses = [f"{value:.5f}" for name, value, _ in told if name == "loss"]
    assert losses == [row["loss"] for row in rows(tmp_path / "run/log.csv")]


def test_a_run_that_starts_from_a_bundle_goes_on_from_what_it_knows(
    balls, toy, tmp_path: Path
) -> None:
    samples = load_samples(balls(3))
    known = train(TrainingRun(samples, toy(steps=30, folds=0), tmp_path / "first"))
    tuned = train(TrainingRun(samples, toy(steps=2, folds=0), tmp_path / "second", init=known))
    before, after = (float(rows(tmp_path / f"{run}/log.csv")[0]["loss"])
                     for run in ("first", "second"))  # fmt: skip
    assert after < 0.6 * before
    bundle = ModelBundle.open(known)
    assert facts(tuned)["started_from"] == {"version": bundle.version, "sha256": bundle.sha256}
    assert "started_from" not in facts(known)


def test_the_weights_of_another_network_are_refused(balls, toy, tmp_path: Path) -> None:
    samples = load_samples(balls(3))
    known = train(TrainingRun(samples, toy(steps=1, folds=0), tmp_path / "first"))
    other = toy(steps=1, folds=0)
    other = dataclasses.replace(other, network=dataclasses.replace(other.network, width=8))
    with pytest.raises(TrainingError, match="different network"):
        train(TrainingRun(samples, other, tmp_path / "second", init=known))
    assert not (tmp_path / "second").exists()


def test_a_network_with_coordinates_is_trained_and_judged_and_says_so_in_its_bundle(
    balls, settings_file, tmp_path: Path
) -> None:
    path = settings_file(
        ("in_channels = 1", "in_channels = 4"),
        ('intensity = "crop"', 'intensity = "brain"\ncoordinates = true'),
    )
    samples, config = load_samples(balls(4)), load_config(path, steps=3, **JUDGED)
    train(TrainingRun(samples, config, tmp_path / "run", stop_at=2))
    bundle = ModelBundle.open(train(TrainingRun(samples, config, tmp_path / "run", resume=True)))
    assert bundle.preparation.coordinates
    assert bundle.network.in_channels == 4
    assert len(rows(tmp_path / "run/validation.csv")) == 2

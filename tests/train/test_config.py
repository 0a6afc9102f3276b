"""Settings of a training run: presets, files, and each mistake refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from deepmrseg_bids.errors import TrainingError
from deepmrseg_bids.network import build_network
from deepmrseg_bids.train.config import AugmentConfig, LoopConfig, load_config, preset_names
from deepmrseg_bids.train.samples import class_map


def test_the_presets_are_the_tasks_networks() -> None:
    assert {"brain", "deepbrain", "hippocampus"} <= set(preset_names())


@pytest.mark.parametrize("name", preset_names())
def test_a_preset_loads_and_its_parts_fit_together(name: str) -> None:
    config = load_config(name)
    assert config.task == ("hippocampus" if name == "paper" else name)
    assert build_network(config.network).config.classes == len(config.labels) + 1
    assert all(edge % config.network.patch == 0 for edge in config.loop.crop)
    assert f'task = "{config.task}"' in config.text


def test_the_paper_preset_has_the_recipe_of_the_paper() -> None:
    config = load_config("paper")
    loop = config.loop
    assert (loop.optimiser, loop.learning_rate) == ("adam", 0.05)
    assert (loop.schedule, loop.decay) == ("exponential", 0.98)
    assert (config.network.transition_kernel, config.network.patch) == (1, 1)


@pytest.mark.parametrize("name", preset_names())
def test_each_protocol_of_a_preset_knows_every_class_and_uses_a_code_once(name: str) -> None:
    config = load_config(name)
    for protocol, entries in config.protocols.items():
        assert set(entries) == {str(k) for k in range(1, config.network.classes)}
        assert set(class_map(config, protocol)) == set(range(config.network.classes))
        codes = [code for value in entries.values() if value != "rest" for code in value]
        assert len(set(codes)) == len(codes)


@pytest.mark.parametrize("name", preset_names())
def test_a_preset_that_flips_has_a_partner_for_each_label_with_a_side(name: str) -> None:
    config = load_config(name)
    if config.augment.flip:
        names = set(config.labels.names)
        for label in names:
            for one, other in (("Left", "Right"), ("Right", "Left")):
                assert not label.startswith(one) or other + label[len(one) :] in names


def test_deepbrain_maps_both_protocols_to_the_same_structures() -> None:
    config = load_config("deepbrain")
    lookup = class_map(config, "muse")
    for number, label in enumerate(config.labels, start=1):
        assert lookup[label.index] == number
    freesurfer = class_map(config, "freesurfer")
    sides = [config.labels.names[freesurfer[code] - 1] for code in (17, 53, 10, 49)]
    assert sides == [
        "Left-Hippocampus", "Right-Hippocampus", "Left-Thalamus-Proper", "Right-Thalamus-Proper",
    ]  # fmt: skip


def test_changes_replace_fields_of_the_loop_and_none_leaves_them(settings_file) -> None:
    config = load_config(settings_file(), steps=7, seed=3, folds=None)
    assert (config.loop.steps, config.loop.seed, config.loop.folds) == (7, 3, 0)


def test_the_text_of_the_file_is_kept(settings_file) -> None:
    path = settings_file()
    assert load_config(path).text == path.read_text()


def test_an_unknown_preset_is_refused_with_the_known_ones() -> None:
    with pytest.raises(TrainingError, match=r"nowhere: neither .* brain, deepbrain, hippocampus"):
        load_config("nowhere")


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("task =", "task ", "cannot be used"),
        ('task = "toy"', "", "'task' is missing"),
        ("[loop]", "[pool]", "'loop' is missing"),
        ("steps = 40", "", "steps"),
        ("steps = 40", "steps = 0", "loop steps must be at least 1, got 0"),
        ("batch = 2", "batches = 2", "batches"),
        ("batch = 2", "batch = 0", "loop batch"),
        ("batch = 2", 'batch = "two"', "cannot be used"),
        ("folds = 0", "folds = 1", "loop folds must be 0 or at least 2"),
        ("folds = 0", "folds = 3\nfold = 3", "loop fold must be below folds, got 3"),
        ("crop = [16, 16, 16]", "crop = [16, 16]", "loop crop must be three edges"),
        ("crop = [16, 16, 16]", "crop = [16, 0, 16]", "loop crop"),
        ("learning_rate = 0.01", "learning_rate = 0", "learning_rate"),
        ("batch = 2", 'optimiser = "sgd"', "optimiser must be adam or adamw, got 'sgd'"),
        ("batch = 2", 'schedule = "steps"', "schedule must be onecycle or exponential"),
        ("batch = 2", "ema = 1", "ema"),
        ("width = 4", "width = 5", "network width"),
        ("classes = 2", "classes = 3", "3 classes, the label table asks for 2"),
        ("spacing = 1.0", "spacing = 0", "spacing"),
        ('intensity = "crop"', 'intensity = "loud"', "intensity"),
        ("index = 5", "index = 0", "at least 1"),
        ("index = 5, ", "", "index"),
        ("[loop]", "[augment]\nflip = 2\n[loop]", "augment flip must be a chance"),
        ("[loop]", "[augment]\nnoise = -1\n[loop]", "augment noise must be at least 0"),
        ("[loop]", "[augment]\nflop = 1\n[loop]", "flop"),
        ("[loop]", "[other]\n[loop]", r"unknown tables \['other'\]"),
        ("[loop]", "[text]\n[loop]", r"unknown tables \['text'\]"),
    ],
)
def test_a_mistake_is_refused_with_the_file_and_the_field(settings_file, old, new, told) -> None:
    with pytest.raises(TrainingError, match=told) as caught:
        load_config(settings_file((old, new)))
    if "classes" not in new:
        assert "settings.toml" in str(caught.value)


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(TrainingError, match=r"x\.toml: cannot be read"):
        load_config(tmp_path / "x.toml")


def test_no_augmentation_is_the_default() -> None:
    assert set(vars(AugmentConfig()).values()) == {0.0}


def test_the_defaults_of_the_loop_are_sound() -> None:
    assert LoopConfig(steps=1, crop=(8, 8, 8)).fold == 0

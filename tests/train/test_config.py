"""Settings of a training run: presets, files, and each mistake refused."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from deepmrseg_bids.errors import TrainingError
from deepmrseg_bids.network import build_network
from deepmrseg_bids.train.config import (
    AugmentConfig,
    LoopConfig,
    changed_settings,
    load_config,
    preset_names,
)
from deepmrseg_bids.train.label_codes import class_map


def test_the_presets_are_the_tasks_networks() -> None:
    assert {"brain", "deepbrain", "hippocampus"} <= set(preset_names())


@pytest.mark.parametrize("name", preset_names())
def test_a_preset_loads_and_its_parts_fit_together(name: str) -> None:
    config = load_config(name)
    assert config.task == ("hippocampus" if name == "paper" else name.partition("-")[0])
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
        assert set(entries) - {"ignore"} == {str(k) for k in range(1, config.network.classes)}
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


@pytest.mark.parametrize("name", preset_names())
def test_the_text_is_the_settings_in_force_and_reads_back_as_them(name, tmp_path: Path) -> None:
    config = load_config(name, steps=7, folds=4, fold=1, keep="best", precision="float32")
    path = tmp_path / "again.toml"
    path.write_text(config.text, encoding="utf-8")
    again = load_config(path)
    assert again == config
    assert (again.loop.steps, again.loop.fold) == (7, 1)
    assert again.text == config.text
    assert not changed_settings(config, again)


def test_the_text_follows_a_change_made_in_python(settings_file) -> None:
    config = load_config(settings_file())
    shorter = dataclasses.replace(config, loop=dataclasses.replace(config.loop, steps=3))
    assert "steps = 40" in config.text
    assert "steps = 3" in shorter.text


def test_the_text_says_the_defaults(settings_file) -> None:
    text = load_config(settings_file()).text
    assert 'optimiser = "adamw"' in text
    assert 'keep = "last"' in text
    assert "flip = 0.0" in text


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("steps = 40", "steps = 41", ["loop.steps (was 40, now 41)"]),
        ("width = 4", "width = 8", ["network.width (was 4, now 8)"]),
        ("spacing = 1.0", "spacing = 1", []),
        ("spacing = 1.0", "spacing = 1.0\nshape = [8, 8, 8]",
         ["preparation.shape (was None, now (8, 8, 8))"]),
        ("batch = 2", "batch = 2\nprecision = 'float32'",
         ["loop.precision (was 'auto', now 'float32')"]),
        ("checkpoint_every = 5", "checkpoint_every = 6", []),
        ('name = "Ball"', 'name = "Ball", color = "#000000", abbreviation = "B"', []),
        ('name = "Ball"', 'name = "Bell"', ["labels (was [(5, 'Ball')], now [(5, 'Bell')])"]),
        ("[loop]", "[protocols.p]\n1 = [3]\n[loop]",
         ["protocols.p (was None, now {'1': [3]})"]),
        ("steps = 40\n", "steps = 1\nseed = 2\n",
         ["loop.seed (was 0, now 2)", "loop.steps (was 40, now 1)"]),
    ],
)  # fmt: skip
def test_settings_that_make_another_network_are_named(settings_file, old, new, told) -> None:
    before = load_config(settings_file())
    assert changed_settings(before, load_config(settings_file((old, new)))) == told


def test_an_unknown_preset_is_refused_with_the_known_ones() -> None:
    with pytest.raises(TrainingError, match=r"nowhere: neither .* brain, deepbrain, .*wml"):
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
        ("batch = 2", 'keep = "first"', "loop keep must be last or best, got 'first'"),
        ("batch = 2", "patience = -1", "loop patience must be at least 0, got -1"),
        ("batch = 2", 'precision = "half"', "precision must be auto, float32 or bfloat16"),
        ("width = 4", "width = 5", "network width"),
        ("classes = 2", "classes = 3", "3 classes, the label table requires 2"),
        ("spacing = 1.0", "spacing = 0", "spacing"),
        ('intensity = "crop"', 'intensity = "loud"', "intensity"),
        ("index = 5", "index = 0", "at least 1"),
        ("index = 5, ", "", "index"),
        ("[loop]", "[augment]\nflip = 2\n[loop]", "augment flip must be a probability"),
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


COORDINATES = ('intensity = "crop"', 'intensity = "brain"\ncoordinates = true')


@pytest.mark.parametrize(("position", "coordinates"), [(p, c) for p in (0, 1) for c in (0, 1)])
@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5])
def test_a_network_in_3d_has_a_channel_for_all_that_it_sees(
    settings_file, position, coordinates, channels
) -> None:
    seen = f"position = {bool(position)}\ncoordinates = {bool(coordinates)}".lower()
    path = settings_file(
        ("in_channels = 1", f"in_channels = {channels}"),
        ('intensity = "crop"', f'intensity = "brain"\n{seen}'),
    )
    expected = 1 + position + 3 * coordinates
    if channels == expected:
        assert load_config(path).network.in_channels == channels
        return
    with pytest.raises(TrainingError, match=f"needs in_channels = {expected}: .* got {channels}"):
        load_config(path)


@pytest.mark.parametrize(
    "wrong",
    [
        (COORDINATES[0], 'intensity = "crop"\ncoordinates = true'),
        (COORDINATES[0], 'intensity = "head"\ncoordinates = true'),
        (COORDINATES[0], COORDINATES[1] + "\nshape = [8, 8, 8]"),
    ],
)
def test_coordinates_need_the_whole_brain(settings_file, wrong) -> None:
    with pytest.raises(TrainingError, match=r'need intensity = "brain" and no shape'):
        load_config(settings_file(("in_channels = 1", "in_channels = 4"), wrong))


@pytest.mark.parametrize("extra", ["position = true", "coordinates = true"])
def test_a_network_in_2d_sees_flair_and_t1w_alone(settings_file, extra) -> None:
    path = settings_file(
        ("spatial_dims = 3", "spatial_dims = 2"), ("in_channels = 1", "in_channels = 2"),
        ("crop = [16, 16, 16]", "crop = [16, 16]"), ("spacing = 1.0", f"spacing = 1.0\n{extra}"),
    )  # fmt: skip
    with pytest.raises(TrainingError, match=r"a 2D network has slices .* neither position nor"):
        load_config(path)


def test_settings_from_before_there_were_coordinates_are_those_without(
    settings_file, tmp_path: Path
) -> None:
    config = load_config(settings_file())
    before = config.text.replace("coordinates = false\n", "")
    assert before != config.text
    (tmp_path / "before.toml").write_text(before)
    assert not changed_settings(load_config(tmp_path / "before.toml"), config)


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(TrainingError, match=r"x\.toml: cannot be read"):
        load_config(tmp_path / "x.toml")


def test_no_augmentation_is_the_default() -> None:
    assert set(vars(AugmentConfig()).values()) == {0.0}


def test_the_defaults_of_the_loop_are_sound() -> None:
    assert LoopConfig(steps=1, crop=(8, 8, 8)).fold == 0


def test_what_is_stated_about_a_model_is_kept_and_may_change(tmp_path):
    path = tmp_path / "mine.toml"
    text = load_config("hippocampus").text
    path.write_text(text + '\n[about]\nlicence = "mine"\n')
    settings = load_config(path)
    assert settings.about == {"licence": "mine"}
    assert changed_settings(load_config("hippocampus"), settings) == []
    path.write_text(settings.text)
    assert load_config(path).about == {"licence": "mine"}


@pytest.mark.parametrize("line", ['terms = "mine"', "licence = 3", 'title = " "'])
def test_what_a_model_cannot_state_is_refused(tmp_path, line):
    path = tmp_path / "mine.toml"
    path.write_text(f"{load_config('hippocampus').text}\n[about]\n{line}\n")
    with pytest.raises(TrainingError, match="about"):
        load_config(path)


@pytest.mark.parametrize("name", ["my-task", "thalamus 2", "", "thälamus"])
def test_a_name_that_no_file_can_have_is_refused(tmp_path, name):
    path = tmp_path / "mine.toml"
    text = load_config("hippocampus").text
    path.write_text(text.replace('task = "hippocampus"', f'task = "{name}"'), encoding="utf-8")
    with pytest.raises(TrainingError, match="letters and digits"):
        load_config(path)

"""The library's command line, as far as it needs no network."""

import json
from types import SimpleNamespace

import pytest

from deepmrseg_bids import __version__
from deepmrseg_bids.cli import deepmrseg as command
from deepmrseg_bids.inference import bundle
from deepmrseg_bids.inference.bundle import NewBundle, Preparation, file_sha256
from deepmrseg_bids.network import build_network


@pytest.fixture(autouse=True)
def plain_process(monkeypatch):
    """A command in this process leaves its settings alone."""
    monkeypatch.setattr(command, "prepare_process", lambda: None)
    monkeypatch.setattr(command, "set_up_logging", lambda _: None)


@pytest.fixture
def models(tmp_path, monkeypatch, toy_network, two_sides):
    """A folder with one toy bundle in the place of the shipped ones."""
    from dataclasses import replace

    config = replace(toy_network, classes=3)
    folder = tmp_path / "models"
    NewBundle(
        task="brain",
        network=config,
        preparation=Preparation(spacing=1.0, intensity="head"),
        labels=two_sides,
        state=build_network(config).state_dict(),
        version="7",
        settings="",
        card="",
        facts={"licence": "CC0", "training_data": "balls", "dice_held_out": {"mean": 0.5}},
    ).write(folder / "brain")
    monkeypatch.setattr(bundle, "_MODELS", folder)
    return folder


def test_the_version_is_that_of_the_package(capsys):
    with pytest.raises(SystemExit) as ended:
        command.main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"deepmrseg {__version__}\n"


def test_a_command_is_needed(capsys):
    with pytest.raises(SystemExit) as ended:
        command.main([])
    assert ended.value.code == 2


def test_models_lists_what_the_package_holds(capsys):
    assert command.main(["models", "--json"]) == 0
    entries = json.loads(capsys.readouterr().out)
    shipped = {path.parent.name: path for path in bundle._MODELS.glob("*/bundle.json")}
    assert [entry["task"] for entry in entries] == sorted(shipped)
    for entry in entries:
        weights = shipped[entry["task"]].parent / "weights.safetensors"
        assert entry["sha256"] == file_sha256(weights)
        assert entry["labels"] and entry["version"]


def test_models_as_json_say_what_the_bundle_says(models, capsys):
    assert command.main(["models", "--json"]) == 0
    (entry,) = json.loads(capsys.readouterr().out)
    weights = models / "brain" / "weights.safetensors"
    assert entry.pop("megabytes") == pytest.approx(weights.stat().st_size / 1e6, abs=0.01)
    assert entry == {
        "task": "brain",
        "version": "7",
        "labels": ["Left-Blob", "Right-Blob"],
        "sha256": file_sha256(weights),
        "licence": "CC0",
        "training_data": "balls",
        "dice_held_out": {"mean": 0.5},
    }


def test_models_for_people_name_licence_and_accuracy(models, capsys):
    assert command.main(["models"]) == 0
    text = capsys.readouterr().out
    for part in ("brain 7", "Left-Blob, Right-Blob", "CC0", "balls", "0.5"):
        assert part in text


def test_models_that_are_whole_pass_verify(models, capsys):
    assert command.main(["models", "verify"]) == 0
    digest = file_sha256(models / "brain" / "weights.safetensors")
    assert capsys.readouterr().out == f"brain: ok, SHA-256 {digest}\n"


def test_changed_weights_do_not_pass_verify(models, capsys):
    weights = models / "brain" / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    assert command.main(["models", "verify"]) == 1
    captured = capsys.readouterr()
    assert "ok" not in captured.out
    assert "the weights have changed" in captured.err


def test_one_flair_goes_with_one_t1w(tmp_path, capsys):
    code = command.main(
        ["predict", "--task", "wml", "--flair", "f.nii", "-o", str(tmp_path / "o"), "--", "a.nii",
         "b.nii"]
    )  # fmt: skip
    assert code == 2
    assert "--flair requires exactly one T1w" in capsys.readouterr().err


def test_two_images_of_one_name_are_refused_before_any_work(tmp_path, capsys):
    out = tmp_path / "o"
    images = ["a/s_T1w.nii.gz", "b/s.nii"]
    assert command.main(["predict", *images, "--task", "brain", "-o", str(out)]) == 2
    assert "the same file name" in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.parametrize("which", [[], ["--task", "brain", "--model", "m"]])
def test_evaluate_takes_a_task_or_a_model(which, tmp_path, capsys):
    assert command.main(["evaluate", "s.tsv", "-o", str(tmp_path / "o"), *which]) == 2
    assert "either --task (the shipped model) or --model" in capsys.readouterr().err


@pytest.mark.parametrize("flag", ["--omp-nthreads", "--omp_nthreads"])
def test_both_spellings_of_threads_mean_the_same(flag):
    parser = command.build_parser()
    args = parser.parse_args(["train", "s.tsv", "--config", "c", "-o", "o", flag, "2"])
    assert args.omp_nthreads == 2


def test_evaluate_prints_a_structure_that_no_sample_has(monkeypatch, models, tmp_path, capsys):
    """A structure absent everywhere has no Dice, and its mean is None."""
    from deepmrseg_bids.train import config, evaluation, samples

    structure = {"name": "Left-Blob", "n": 0, "f1_mean": None}
    summary = {"samples": 1, "f1_mean": None, "structures": [structure]}
    monkeypatch.setattr(samples, "load_samples", lambda _: [])
    monkeypatch.setattr(config, "load_config", lambda _: SimpleNamespace())
    monkeypatch.setattr(evaluation, "evaluate", lambda *_, **__: [])
    monkeypatch.setattr(evaluation, "write_tables", lambda *_: summary)
    assert command.main(["evaluate", "s.tsv", "--task", "brain", "-o", str(tmp_path)]) == 0
    assert "Left-Blob" in capsys.readouterr().out

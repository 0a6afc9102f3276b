"""Model bundles: a round trip, and each broken one refused before its weights are used."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from deepmrseg_bids.errors import BundleError
from deepmrseg_bids.imaging.labels import Label, LabelTable
from deepmrseg_bids.inference.bundle import (
    FORMAT,
    ModelBundle,
    NewBundle,
    Preparation,
    file_sha256,
    shipped_bundles,
)
from deepmrseg_bids.network import Frame, NetworkConfig, build_network

PREPARATION = Preparation(spacing=1.5, intensity="crop", shape=(8, 9, 10), margin=2)
LABELS = LabelTable((Label(48, "Left-Hippocampus", "L-HIP", "#f5e04c"),))


@pytest.fixture
def network(toy_network: NetworkConfig) -> Frame:
    torch.manual_seed(0)
    made = build_network(toy_network)
    made(torch.randn(2, 1, 8, 8, 8))  # so that the running averages are not the first ones
    return made.eval()


@pytest.fixture
def folder(tmp_path: Path, network: Frame) -> Path:
    path = tmp_path / "bundle"
    NewBundle(
        task="toy",
        network=network.config,
        preparation=PREPARATION,
        labels=LABELS,
        state=network.state_dict(),
        version="1.2.3",
        settings='task = "toy"\n',
        card="# toy\n",
        facts={"licence": "CC0-1.0", "accents": "é"},
    ).write(path)
    return path


def change(folder: Path, **entries: object) -> None:
    path = folder / "bundle.json"
    tree = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(tree | entries), encoding="utf-8")


def test_a_bundle_opens_as_it_was_written(folder: Path, network: Frame) -> None:
    bundle = ModelBundle.open(folder)
    assert (bundle.task, bundle.version, bundle.path) == ("toy", "1.2.3", folder)
    assert bundle.network == network.config
    assert bundle.preparation == PREPARATION
    assert bundle.labels == LABELS
    assert bundle.facts == {"licence": "CC0-1.0", "accents": "é"}
    assert bundle.sha256 == file_sha256(folder / "weights.safetensors")


def test_a_loaded_network_answers_as_the_saved_one_to_half_precision(
    folder: Path, network: Frame
) -> None:
    loaded = ModelBundle.open(folder).load()
    assert not loaded.training
    assert {value.dtype for value in loaded.parameters()} == {torch.float32}
    x = torch.randn(1, 1, 9, 10, 11)
    with torch.inference_mode():
        expected, found = network(x).softmax(1), loaded(x).softmax(1)
    assert (expected - found).abs().max() < 5e-3
    for name, value in network.state_dict().items():
        kept = loaded.state_dict()[name]
        assert torch.equal(kept, value.half().float() if value.is_floating_point() else value)


def test_writing_a_loaded_network_again_loses_nothing_more(folder: Path, tmp_path: Path) -> None:
    bundle = ModelBundle.open(folder)
    NewBundle(
        task="toy",
        network=bundle.network,
        preparation=bundle.preparation,
        labels=bundle.labels,
        state=bundle.load().state_dict(),
        version="1.2.3",
        settings="",
        card="",
        facts={},
    ).write(tmp_path / "again")
    assert ModelBundle.open(tmp_path / "again").sha256 == bundle.sha256


def test_the_weights_are_stored_in_half_precision(folder: Path) -> None:
    kept = load_file(folder / "weights.safetensors").values()
    assert {value.dtype for value in kept} == {torch.float16, torch.int64}  # int64: counters


def test_one_changed_byte_is_refused_with_both_hashes(folder: Path) -> None:
    expected = ModelBundle.open(folder).sha256
    weights = folder / "weights.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    with pytest.raises(BundleError) as caught:
        ModelBundle.open(folder)
    assert expected in str(caught.value)
    assert hashlib.sha256(data).hexdigest() in str(caught.value)


def test_truncated_weights_are_refused(folder: Path) -> None:
    weights = folder / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(BundleError, match="have changed"):
        ModelBundle.open(folder)


def test_a_newer_format_is_refused_with_both_numbers(folder: Path) -> None:
    change(folder, format=FORMAT + 1)
    with pytest.raises(BundleError, match=f"format {FORMAT + 1}.* up to {FORMAT}"):
        ModelBundle.open(folder)


@pytest.mark.parametrize("name", ["bundle.json", "weights.safetensors", "labels.tsv"])
def test_a_missing_part_is_refused_by_name(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(BundleError, match=name):
        ModelBundle.open(folder)


def test_a_folder_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="not a model bundle"):
        ModelBundle.open(tmp_path / "nowhere")
    (tmp_path / "file").write_text("x")
    with pytest.raises(BundleError, match="not a model bundle"):
        ModelBundle.open(tmp_path / "file")


class _Trap:
    """Unpickling this writes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return Path.write_text, (self.path, "executed")


def test_a_pickle_in_the_place_of_the_weights_is_refused_and_never_executed(
    folder: Path, tmp_path: Path
) -> None:
    weights = folder / "weights.safetensors"
    weights.write_bytes(pickle.dumps(_Trap(tmp_path / "trap")))
    change(folder, sha256=file_sha256(weights))
    with pytest.raises(BundleError, match="cannot be read"):
        ModelBundle.open(folder).load()
    assert not (tmp_path / "trap").exists()


def test_a_pickle_beside_no_weights_is_refused(folder: Path) -> None:
    (folder / "weights.safetensors").rename(folder / "weights.pt")
    with pytest.raises(BundleError, match=r"no weights\.safetensors"):
        ModelBundle.open(folder)


@pytest.mark.parametrize("text", ["", "not json", "[]", '{"task": "toy"}', '{"format": "1"}'])
def test_a_broken_description_is_refused(folder: Path, text: str) -> None:
    (folder / "bundle.json").write_text(text, encoding="utf-8")
    with pytest.raises(BundleError):
        ModelBundle.open(folder)


@pytest.mark.parametrize("key", ["task", "version", "network", "preparation", "sha256", "facts"])
def test_a_missing_entry_is_refused_by_name(folder: Path, key: str) -> None:
    path = folder / "bundle.json"
    tree = json.loads(path.read_text(encoding="utf-8"))
    del tree[key]
    path.write_text(json.dumps(tree), encoding="utf-8")
    with pytest.raises(BundleError, match=key):
        ModelBundle.open(folder)


@pytest.mark.parametrize(
    "entries",
    [
        {"network": {"kind": "deepmrseg"}},
        {"network": {"unheard": 1}},
        {"network": []},
        {"preparation": 3},
        {"preparation": {"spacing": 1.0, "intensity": "crop"}},
        {"preparation": {"spacing": 99.0, "intensity": "crop", "shape": [0, 0, 0]}},
        {"preparation": {"spacing": 1.0, "intensity": "loud", "shape": [0, 0, 0]}},
        {"facts": 7},
    ],
)
def test_entries_that_make_no_sense_are_refused(folder: Path, entries: dict) -> None:
    change(folder, **entries)
    with pytest.raises(BundleError, match="cannot be used"):
        ModelBundle.open(folder)


def test_a_broken_label_table_is_refused_as_a_part_of_the_bundle(folder: Path) -> None:
    (folder / "labels.tsv").write_text("index\tname\n0\tA\n")
    with pytest.raises(BundleError, match=r"labels\.tsv"):
        ModelBundle.open(folder)


def test_weights_of_another_network_are_refused(folder: Path, toy_network: NetworkConfig) -> None:
    change(folder, network=dataclasses.asdict(dataclasses.replace(toy_network, width=8)))
    with pytest.raises(BundleError, match="different network"):
        ModelBundle.open(folder).load()


def test_the_hash_of_a_file_is_that_of_its_bytes(tmp_path: Path) -> None:
    data = bytes(range(256)) * 12_345  # more than one part
    (tmp_path / "x").write_bytes(data)
    assert file_sha256(tmp_path / "x") == hashlib.sha256(data).hexdigest()


def test_every_shipped_bundle_opens_and_is_of_its_folders_task() -> None:
    for task, path in shipped_bundles().items():
        bundle = ModelBundle.shipped(task)
        assert bundle.task == task
        assert bundle.path == path
        assert bundle.network.classes == len(bundle.labels) + 1


def test_shipped_bundles_keep_to_their_sizes() -> None:
    sizes = [
        sum(part.stat().st_size for part in path.iterdir()) for path in shipped_bundles().values()
    ]
    assert max(sizes, default=0) <= 12_000_000
    assert sum(sizes) <= 40_000_000


def test_a_task_without_a_bundle_is_refused() -> None:
    with pytest.raises(BundleError, match="not a model bundle"):
        ModelBundle.shipped("no-such-task")

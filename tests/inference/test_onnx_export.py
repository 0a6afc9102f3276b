"""ONNX files: they answer as PyTorch does at any size, describe themselves, or are not written."""

from __future__ import annotations

import gzip
import json
import re
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from deepmrseg_bids.cli.deepmrseg import main
from deepmrseg_bids.errors import BundleError, UsageError
from deepmrseg_bids.imaging.grid import centred_grid, resample
from deepmrseg_bids.imaging.intensity import normalise
from deepmrseg_bids.imaging.labels import Label, LabelTable
from deepmrseg_bids.inference import onnx_export
from deepmrseg_bids.inference.bundle import ModelBundle, NewBundle, Preparation, shipped_bundles
from deepmrseg_bids.inference.onnx_export import (
    MOST_DIFFERENT,
    PROPERTY,
    export_onnx,
    largest_difference,
    model_bytes,
)
from deepmrseg_bids.network import NetworkConfig, build_network
from tests.field.real_head import head

DOCS = Path(__file__).parents[2] / "docs" / "onnx.md"
NETWORKS = {
    "paper": NetworkConfig("deepmrseg", 3, 1, 2, width=4, depth=2, transition_kernel=1),
    "folded": NetworkConfig("deepmrseg", 3, 2, 3, width=4, depth=1, patch=2),
    "slices": NetworkConfig("deepmrseg", 2, 2, 2, width=4, depth=2, patch=2),
    "unet": NetworkConfig("unet", 3, 1, 2, width=4, depth=2),
    "unet of slices": NetworkConfig("unet", 2, 3, 4, width=4, depth=1, patch=3),
}


def write_bundle(path: Path, config: NetworkConfig, *, position: bool = False) -> ModelBundle:
    """A bundle of random weights whose normalisations have seen something."""
    torch.manual_seed(0)
    network = build_network(config)
    network(3 + 2 * torch.randn(4, config.in_channels, *([16] * config.spatial_dims)))
    labels = LabelTable(tuple(Label(10 * k, f"Part-{k}") for k in range(1, config.classes)))
    NewBundle(
        task="toy",
        network=config,
        preparation=Preparation(spacing=1.5, intensity="crop", position=position),
        labels=labels,
        state=network.state_dict(),
        version="1.2.3",
        settings="",
        card="",
        facts={"licence": "CC0-1.0 é"},
    ).write(path)
    return ModelBundle.open(path)


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("name", NETWORKS)
def test_every_kind_of_network_answers_as_in_pytorch_at_any_size(
    name: str, half: bool, tmp_path: Path
) -> None:
    config = NETWORKS[name]
    bundle = write_bundle(tmp_path / "bundle", config, position=name == "folded")
    file = tmp_path / "toy.onnx"
    assert export_onnx(bundle, file, half=half) < 1e-5
    channels = config.in_channels - (name == "folded")
    rng = np.random.default_rng(1)
    kinds = {node.op_type for node in onnx.load(file).graph.node}
    assert {"Conv", "Softmax"} <= kinds and "BatchNormalization" not in kinds
    sizes = [(1, channels, 16, 16, 16), (3, channels, 9, 21, 5), (2, channels, 1, 40, 13)]
    images = [rng.normal(1, 2, size[: 2 + config.spatial_dims]) for size in sizes]
    images = [image.astype(np.float32) for image in images]
    assert largest_difference(bundle, file.read_bytes(), images) < 1e-5


@pytest.mark.parametrize("name", shipped_bundles())
def test_the_shipped_models_answer_as_in_pytorch_on_a_real_head(name: str, tmp_path: Path) -> None:
    bundle = ModelBundle.shipped(name)
    file = tmp_path / "model.onnx"
    assert export_onnx(bundle, file, half=True) <= MOST_DIFFERENT
    grid = centred_grid((25, -20, -5), (40, 48, 24), bundle.preparation.spacing)
    image = normalise(resample(head().data, head().grid, grid), mode="crop")
    channels = bundle.network.in_channels - bundle.preparation.position
    image = image if bundle.network.spatial_dims == 3 else image[..., 12]
    seen = np.repeat(image[None, None], channels, axis=1)
    assert largest_difference(bundle, file.read_bytes(), [seen]) <= MOST_DIFFERENT


def test_the_parts_of_a_network_answer_together_as_the_whole(tmp_path: Path) -> None:
    config = NetworkConfig("deepmrseg", 3, 1, 3, width=4, depth=1, patch=2)
    bundle = write_bundle(tmp_path / "bundle", config)
    whole, features, head = (
        onnxruntime.InferenceSession(model_bytes(bundle, part=part))
        for part in ("whole", "features", "head")
    )
    image = np.random.default_rng(0).normal(0, 1, (1, 1, 10, 9, 12)).astype(np.float32)
    (expected,) = whole.run(None, {"image": image})
    (wide,) = features.run(None, {"image": image})
    assert wide.shape == (1, 8, 6, 6, 6)  # of an image padded to 12 x 12 x 12, at half of it
    slabs = [head.run(None, {"features": wide[:, :, n : n + 2]})[0] for n in (0, 2, 4)]
    found = np.concatenate(slabs, axis=2)[:, :, :10, :9]
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("network", ["folded", "shipped"])
def test_coarse_weights_answer_nearly_the_same_in_half_the_size(
    network: str, tmp_path: Path
) -> None:
    if network == "shipped":
        bundle, most = ModelBundle.open(shipped_bundles()["outline"]), 0.02
    else:
        bundle, most = write_bundle(tmp_path / "bundle", NETWORKS[network], position=True), 0.05
    image = np.random.default_rng(0).normal(0, 1, (1, 1, 16, 16, 16)).astype(np.float32)
    exact, small = (model_bytes(bundle, weights=weights) for weights in ("float16", "coarse"))
    assert 0 < largest_difference(bundle, small, [image]) < most
    if network == "shipped":  # the toy is mostly biases
        assert len(gzip.compress(small)) < 0.6 * len(gzip.compress(exact))


def test_a_file_of_half_precision_has_half_the_size(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "bundle", NetworkConfig("deepmrseg", 3, 1, 2, depth=2))
    sizes = []
    for half in (False, True):
        export_onnx(bundle, tmp_path / "x.onnx", half=half)
        sizes.append((tmp_path / "x.onnx").stat().st_size)
    assert 0.45 < sizes[1] / sizes[0] < 0.6


def test_a_file_says_what_it_is_and_equal_bundles_are_equal_files(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "bundle", NETWORKS["folded"], position=True)
    files = tmp_path / "a.onnx", tmp_path / "b.onnx"
    for file in files:
        export_onnx(bundle, file)
    assert files[0].read_bytes() == files[1].read_bytes()
    session = onnxruntime.InferenceSession(files[0])
    about = json.loads(session.get_modelmeta().custom_metadata_map[PROPERTY])
    assert about["sha256"] == bundle.sha256 and about["version"] == "1.2.3"
    assert about["preparation"]["spacing"] == 1.5 and about["preparation"]["position"] is True
    assert [label["name"] for label in about["labels"]] == ["Part-1", "Part-2"]
    assert about["facts"] == {"licence": "CC0-1.0 é"}
    (seen,), (answered,) = session.get_inputs(), session.get_outputs()
    assert (seen.name, answered.name) == ("image", "posteriors")
    assert seen.shape == ["n", 1, "i", "j", "k"] and answered.shape == ["n", 3, "i", "j", "k"]


def test_a_file_that_answers_otherwise_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = write_bundle(tmp_path / "one", NETWORKS["paper"])
    other = tmp_path / "other"
    network = build_network(NETWORKS["paper"])
    NewBundle("toy", one.network, one.preparation, one.labels, network.state_dict(), "1", "", "",
              {}).write(other)  # fmt: skip
    real = onnx_export.model_bytes
    wrong = ModelBundle.open(other)
    monkeypatch.setattr(onnx_export, "model_bytes", lambda _, weights: real(wrong, weights=weights))
    with pytest.raises(BundleError, match=r"differ from those in PyTorch by 0\.\d+ .*nothing was"):
        export_onnx(one, tmp_path / "x.onnx")
    assert not (tmp_path / "x.onnx").exists()


@pytest.mark.parametrize("package", ["onnx", "onnxruntime"])
def test_without_the_packages_the_command_names_them(
    package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = write_bundle(tmp_path / "bundle", NETWORKS["paper"])
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules, "deepmrseg_bids.inference.onnx_graph", raising=False)
    with pytest.raises(UsageError, match=r"pip install 'deepmrseg-bids\[onnx\]'"):
        export_onnx(bundle, tmp_path / "x.onnx")


def test_the_command_exports_a_folder_and_refuses_what_is_no_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_bundle(tmp_path / "bundle", NETWORKS["unet"])
    file = tmp_path / "x.onnx"
    assert main(["export", str(tmp_path / "bundle"), "-o", str(file), "--format", "onnx"]) == 0
    assert file.exists() and "largest difference from PyTorch" in capsys.readouterr().out
    assert main(["export", str(tmp_path / "bundle"), "-o", str(tmp_path)]) == 2
    assert f"{tmp_path}: a folder; -o is the file to write, such as bundle.onnx" in (
        capsys.readouterr().err
    )
    assert main(["export", "nobrain", "-o", str(tmp_path / "y.onnx")]) == 2
    assert "nobrain: neither a shipped model (brain, deepbrain" in capsys.readouterr().err


def test_the_example_of_the_documentation_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    export_onnx(ModelBundle.shipped("hippocampus"), tmp_path / "hippocampus.onnx", half=True)
    rng = np.random.default_rng(0)
    np.save(tmp_path / "crop.npy", rng.gamma(9, 20, (30, 44, 32)).astype(np.float32))
    exec(compile(example, str(DOCS), "exec"), {})
    assert re.search(r"hippocampus-anterior: \d+ voxels", capsys.readouterr().out)

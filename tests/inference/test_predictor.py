import dataclasses
from dataclasses import fields

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from deepmrseg_bids.errors import BundleError, DeviceError, SkippedTask, UsageError
from deepmrseg_bids.imaging.labels import Label, LabelTable
from deepmrseg_bids.inference import predictor as predicting
from deepmrseg_bids.inference.bundle import ModelBundle, NewBundle, Preparation
from deepmrseg_bids.inference.predictor import (
    Predictor,
    PredictorPool,
    fold,
    resolve_device,
    resolve_precision,
    use_onednn,
    window_places,
)
from deepmrseg_bids.network import NetworkConfig, build_network


def trained_like(config):
    """A network whose batch normalisations have statistics of their own."""
    torch.manual_seed(3)
    network = build_network(config)
    for module in network.modules():
        if isinstance(module, (torch.nn.BatchNorm2d, torch.nn.BatchNorm3d)):
            module.running_mean.uniform_(-1, 1)
            module.running_var.uniform_(0.5, 2)
            torch.nn.init.uniform_(module.weight, 0.5, 2)
            torch.nn.init.uniform_(module.bias, -1, 1)
    return network.eval()


@pytest.fixture
def bundle(tmp_path, toy_network, two_sides):
    config = NetworkConfig(**{**toy_network.__dict__, "classes": 3})
    NewBundle(
        task="brain",
        network=config,
        preparation=Preparation(spacing=1.0, intensity="crop"),
        labels=two_sides,
        state=trained_like(config).state_dict(),
        version="1",
        settings="",
        card="",
        facts={},
    ).write(tmp_path / "toy")
    return ModelBundle.open(tmp_path / "toy")


@pytest.mark.parametrize("kind", ["deepmrseg", "unet"])
@pytest.mark.parametrize("dims", [2, 3])
def test_folding_batch_normalisation_keeps_the_function(kind, dims):
    config = NetworkConfig(kind=kind, spatial_dims=dims, in_channels=1, classes=3, width=8, depth=2)
    network = trained_like(config)
    x = torch.randn(2, 1, *([16] * dims))
    with torch.inference_mode():
        before = network(x)
        after = fold(network)(x)
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-4)
    kinds = (torch.nn.BatchNorm2d, torch.nn.BatchNorm3d)
    assert not any(isinstance(module, kinds) for module in network.modules())


@pytest.mark.parametrize("kind", ["deepmrseg", "unet"])
@pytest.mark.parametrize("dims", [2, 3])
def test_convolutions_of_onednn_are_the_same_function(kind, dims):
    config = NetworkConfig(kind=kind, spatial_dims=dims, in_channels=1, classes=3, width=8, depth=2)
    network = fold(trained_like(config))
    x = torch.randn(1, 1, *([16] * dims))
    seen = Convolutions()
    with torch.inference_mode():
        expected = network(x)
        with seen:
            found = use_onednn(network)(x)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert seen.names == {"aten.mkldnn_convolution", f"aten.conv_transpose{dims}d"}


class Convolutions(TorchDispatchMode):
    """The names of the convolutions that are called."""

    def __init__(self):
        super().__init__()
        self.names = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if "conv" in (name := str(func.overloadpacket)):
            self.names.add(name)
        return func(*args, **(kwargs or {}))


def test_posteriors_have_the_size_of_the_image_and_sum_to_one(bundle, fastest):
    posteriors = Predictor(bundle)(np.random.default_rng(0).normal(size=(13, 10, 9)))
    assert posteriors.shape == (3, 13, 10, 9)
    np.testing.assert_allclose(posteriors.sum(axis=0), 1, atol=1e-5)


@pytest.mark.parametrize("slabs", [2**24, 500])
@pytest.mark.parametrize("flips", [False, True])
@pytest.mark.parametrize("window", [(0, 0, 0), (16, 16, 16)])
def test_packed_posteriors_are_the_same_in_65535ths(bundle, monkeypatch, slabs, window, flips):
    monkeypatch.setattr(predicting, "_AT_ONCE", slabs)
    preparation = dataclasses.replace(bundle.preparation, window=window, mirrors=True)
    predictor = Predictor(dataclasses.replace(bundle, preparation=preparation), flips=flips)
    image = np.random.default_rng(0).random((24, 16, 16), dtype=np.float32)
    packed = predictor.packed(image)
    assert packed.dtype == np.uint16
    np.testing.assert_allclose(packed, 65535 * predictor(image), atol=1.01)


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(2, 15, 20, 21, 18), (1, 3, 64, 40, 33), (3, 2, 50, 60)])
@pytest.mark.parametrize("cut", [0, 1])
def test_the_softmax_is_that_of_a_copy(kind, shape, cut):
    logits = (5 * torch.randn(shape, generator=torch.Generator().manual_seed(1))).to(kind)
    logits = logits.narrow(2, 0, shape[2] - cut)
    expected = torch.softmax(logits.clone(), 1, dtype=torch.float32)
    assert torch.equal(predicting._softmax(logits, 1), expected)


def test_bfloat16_gives_nearly_the_posteriors_of_float32(bundle):
    image = np.random.default_rng(0).normal(size=(16, 16, 16))
    exact = Predictor(bundle, precision="float32")(image)
    rough = Predictor(bundle, precision="bfloat16")(image)
    assert 0 < np.abs(exact - rough).max() < 0.1


def test_flip_averaging_treats_a_mirrored_image_as_the_mirror_image(bundle):
    image = np.random.default_rng(1).normal(size=(16, 16, 16))
    predictor = Predictor(bundle, precision="float32", flips=True)
    straight, mirrored = predictor(image), predictor(image[::-1])
    exchanged = mirrored[[0, 2, 1], ::-1]  # left and right change places
    np.testing.assert_allclose(straight, exchanged, atol=1e-4)


def test_a_mirror_exchanges_left_and_right_and_keeps_the_rest():
    table = LabelTable(
        (Label(1, "Stem"), Label(2, "Left-X"), Label(3, "Right-X"), Label(4, "Left-Y"))
    )
    assert table.mirrored == (0, 1, 3, 2, 4)


def test_the_predictor_counts_the_time_spent_in_its_network(bundle):
    predictor = Predictor(bundle)
    predictor(np.zeros((16, 16, 16)))
    assert predictor.seconds > 0


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
@pytest.mark.parametrize("name", ["cuda", "cuda:1"])
def test_a_gpu_that_is_not_there_is_an_error(name):
    with pytest.raises(UsageError, match=r"no such GPU"):
        resolve_device(name)


@pytest.mark.parametrize("name", ["gpu", "", "mps:x", "meta"])
def test_a_device_that_means_nothing_is_an_error(name):
    with pytest.raises(UsageError, match="--device must be"):
        resolve_device(name)


def test_precision_is_what_was_asked_for():
    cpu = torch.device("cpu")
    assert resolve_precision("float32", cpu) is torch.float32
    assert resolve_precision("bfloat16", cpu) is torch.bfloat16


def test_a_pool_loads_a_model_once(bundle):
    pool = PredictorPool({"brain": bundle.path})
    assert pool("brain") is pool("brain")


def test_a_pool_refuses_a_model_of_another_task(bundle):
    with pytest.raises(BundleError, match="this model is for the task 'brain', not 'deepbrain'"):
        PredictorPool({"deepbrain": bundle.path})("deepbrain")


@pytest.mark.parametrize(("edge", "window"), [(96, 80), (120, 72), (200, 72), (81, 80), (7, 2)])
def test_windows_cover_an_axis_and_overlap_by_half(edge, window):
    places = window_places(edge, window)
    assert places[0].start == 0 and places[-1].stop in (edge, edge + 1)
    assert all(place.stop - place.start == window for place in places)
    steps = np.diff([place.start for place in places])
    assert steps.min() > 0 and steps.max() <= (window + 1) // 2 + 1


@given(window=st.integers(4, 90), longer=st.integers(1, 150))
def test_windows_begin_at_even_and_odd_voxels_in_turn(window, longer):
    starts = [place.start for place in window_places(window + longer, window)]
    assert [start % 2 for start in starts] == [k % 2 for k in range(len(starts))]


@pytest.mark.parametrize(("edge", "window"), [(80, 80), (40, 80), (30, 0)])
def test_an_image_no_larger_than_the_window_is_seen_at_once(edge, window):
    assert window_places(edge, window) == [slice(0, edge)]


def with_network(bundle, network):
    """The same bundle, but that its network is this one."""

    class Given(ModelBundle):
        def load(self):
            return network

    return Given(**{field.name: getattr(bundle, field.name) for field in fields(bundle)})


class VoxelByVoxel(torch.nn.Module):
    """The logits of posteriors x, 1 - x and 0."""

    def forward(self, x):
        return torch.cat([x, 1 - x, 0 * x], dim=1).clamp(min=1e-9).log()


def test_windows_put_each_voxel_back_in_its_place(bundle):
    """A network that answers voxel by voxel gives the same with windows and without."""
    predictor = Predictor(with_network(bundle, VoxelByVoxel()), precision="float32")
    image = np.random.default_rng(0).random((21, 13, 17)).astype(np.float32)
    other = image[::-1].copy()
    whole = predictor.many([image, other])
    small = dataclasses.replace(bundle.preparation, window=(8, 13, 6))
    predictor = Predictor(dataclasses.replace(predictor.bundle, preparation=small),
                          precision="float32")  # fmt: skip
    for expected, found in zip(whole, predictor.many([image, other]), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_posteriors_of_windows_still_sum_to_one(bundle, fastest):
    small = dataclasses.replace(bundle.preparation, window=(8, 8, 8))
    predictor = Predictor(dataclasses.replace(bundle, preparation=small))
    posteriors = predictor(np.random.default_rng(0).normal(size=(13, 10, 9)))
    np.testing.assert_allclose(posteriors.sum(axis=0), 1, atol=1e-5)


class SmallGpu(torch.nn.Module):
    """A network whose device has room for ``room`` images at once, until it leaves it."""

    def __init__(self, network, room):
        super().__init__()
        self.network, self.room, self.batches = network, room, []

    def forward(self, x):
        if len(x) > self.room:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        self.batches.append(len(x))
        return self.network(x)

    def to(self, device, memory_format=None):
        if memory_format is None:  # it is told to leave the place where it began
            self.room = 100
        return self


@pytest.fixture
def crowded(bundle):
    """A predictor on such a device, two images for it, and what they should give."""
    images = list(np.random.default_rng(0).normal(size=(2, 8, 8, 8)).astype(np.float32))
    expected = Predictor(bundle, precision="float32").many(images)

    def make(room, **changes):
        network = SmallGpu(bundle.load(), room)
        predictor = Predictor(with_network(bundle, network), precision="float32", **changes)
        return predictor, network, images, expected

    return make


@pytest.mark.robustness(
    "GPU memory too small", tried="simulated: a device with memory for one image, then for none"
)
def test_a_gpu_that_is_too_small_for_one_image_is_left_with_a_warning(crowded, caplog, came_out):
    predictor, network, images, expected = crowded(room=1)
    np.testing.assert_allclose(predictor.many(images), expected, atol=1e-5)
    assert network.batches == [1, 1]
    predictor, _, images, expected = crowded(room=0, fallback=True)
    np.testing.assert_allclose(predictor.many(images), expected, atol=1e-5)
    assert predictor.device.type == "cpu"
    [said] = caplog.messages
    came_out(f"one image at a time; then the CPU, with a warning: {said}")


def test_a_gpu_that_was_asked_for_is_not_left(crowded):
    predictor, _, images, _ = crowded(room=0)
    with pytest.raises(DeviceError, match="too small for the brain network; use --device auto"):
        predictor.many(images)


@pytest.fixture
def flat(tmp_path):
    """A network of slices with two channels."""
    config = NetworkConfig(kind="deepmrseg", spatial_dims=2, in_channels=2, classes=2, width=8,
                           depth=2, patch=2)  # fmt: skip
    NewBundle( task="wml", network=config,
        preparation=Preparation(spacing=1.0, intensity="brain"),
        labels=LabelTable((Label(1, "Lesion"),)), state=trained_like(config).state_dict(),
        version="1", settings="", card="", facts={},
    ).write(tmp_path / "flat")  # fmt: skip
    return ModelBundle.open(tmp_path / "flat")


@pytest.mark.parametrize(("edges", "batches"), [((24, 16), [5]), ((480, 400), [2, 2, 1])])
def test_slices_are_answered_one_by_one_however_many_are_seen_at_once(flat, edges, batches):
    """Half a million voxels are seen at once at most."""
    image = np.random.default_rng(0).normal(size=(2, 5, *edges)).astype(np.float32)
    network = SmallGpu(flat.load(), room=100)
    predictor = Predictor(with_network(flat, network), precision="float32")
    whole = predictor.slices(image, mirrored=True)
    assert network.batches == batches
    assert whole.shape == (2, 5, *edges)
    np.testing.assert_allclose(whole.sum(axis=0), 1, atol=1e-5)
    for place in range(5):
        np.testing.assert_allclose(predictor(image[:, place]), whole[:, place], atol=1e-5)


def test_slices_are_mirrored_only_where_left_and_right_lie_in_them(flat):
    image = np.random.default_rng(1).normal(size=(2, 3, 16, 16)).astype(np.float32)
    plain = Predictor(flat, precision="float32").slices(image, mirrored=True)
    predictor = Predictor(flat, precision="float32", flips=True)
    np.testing.assert_allclose(predictor.slices(image, mirrored=False), plain, atol=1e-6)
    averaged = predictor.slices(image, mirrored=True)
    assert np.abs(averaged - plain).max() > 1e-3
    turned = predictor.slices(image[:, :, ::-1], mirrored=True)
    np.testing.assert_allclose(turned[:, :, ::-1], averaged, atol=1e-5)


def test_a_model_that_is_neither_given_nor_shipped_skips_its_task(monkeypatch):
    monkeypatch.setattr(predicting, "shipped_bundles", dict)
    with pytest.raises(SkippedTask, match="wml: no model is installed"):
        PredictorPool()("wml")

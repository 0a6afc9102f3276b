"""The networks and the loss against the paper's text and against numbers worked by hand."""

from __future__ import annotations

import ast
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import deepmrseg_bids
from deepmrseg_bids.network import NetworkConfig, build_network, deepmrseg_loss
from deepmrseg_bids.network.blocks import (
    ConvNorm,
    ResBlock,
    ResInc,
    TransitionDown,
    TransitionUp,
)
from deepmrseg_bids.network.losses import (
    cross_entropy,
    mean_squared_error,
    one_hot,
    soft_iou_loss,
)


def config(**changes) -> NetworkConfig:
    values = {
        "kind": "deepmrseg", "spatial_dims": 3, "in_channels": 1, "classes": 3,
        "width": 4, "depth": 2,
    }  # fmt: skip
    return NetworkConfig(**(values | changes))


def weights(module: nn.Module) -> int:
    return sum(value.numel() for value in module.parameters())


def convolutions(module: nn.Module, kernel: int) -> list[nn.Conv2d | nn.Conv3d]:
    found = [m for m in module.modules() if isinstance(m, nn.Conv2d | nn.Conv3d)]
    return [m for m in found if m.kernel_size == (kernel,) * len(m.kernel_size)]


def image(dims: int, edge: int = 8, channels: int = 1) -> torch.Tensor:
    torch.manual_seed(1)
    return torch.randn(2, channels, *(edge + k for k in range(dims)))


# --- both networks


@pytest.mark.parametrize("kind", ["deepmrseg", "unet"])
@pytest.mark.parametrize("patch", [1, 2])
@pytest.mark.parametrize("thickness", [1, 5, 100])
def test_slabs_together_are_the_whole_answer(kind: str, patch: int, thickness: int) -> None:
    network = build_network(config(kind=kind, patch=patch)).eval()
    x = image(3, edge=9)
    with torch.inference_mode():
        slabs = list(network.slabs(x, thickness))
        assert {slab.shape[2] for slab in slabs[:-1]} <= {max(patch, thickness // patch * patch)}
        torch.testing.assert_close(torch.cat(slabs, dim=2), network(x), rtol=0, atol=1e-5)


# --- blocks


@pytest.mark.parametrize("dims", [2, 3])
def test_each_branch_of_a_resinc_block_has_a_quarter_of_the_features(dims: int) -> None:
    block = ResInc(32, spatial_dims=dims)
    for branch in block.branches:
        assert branch[0][0].in_channels == 32
        assert branch[0][0].kernel_size == (1,) * dims
        for layer in branch:
            assert layer[0].out_channels == 8


@pytest.mark.parametrize("dims", [2, 3])
def test_the_branches_have_0_1_2_and_3_convolutions_of_3x3(dims: int) -> None:
    block = ResInc(16, spatial_dims=dims)
    assert [len(convolutions(branch, 3)) for branch in block.branches] == [0, 1, 2, 3]
    assert [len(convolutions(branch, 1)) for branch in block.branches] == [1, 1, 1, 1]


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("features", [16, 32, 64, 128])
def test_a_resinc_block_has_less_than_a_third_of_a_resblocks_weights(
    dims: int, features: int
) -> None:
    inception = ResInc(features, spatial_dims=dims)
    assert weights(inception) < weights(ResBlock(features, spatial_dims=dims)) / 3


@pytest.mark.parametrize("block", [ResBlock, ResInc])
@pytest.mark.parametrize("dims", [2, 3])
def test_a_block_adds_the_identity(block: type[nn.Module], dims: int) -> None:
    unit = block(8, spatial_dims=dims).eval()
    last = unit.merge if isinstance(unit, ResInc) else unit.body[-1]
    nn.init.zeros_(last[0].weight)
    x = image(dims, channels=8)
    assert torch.equal(unit(x), torch.relu(x))


def test_resinc_refuses_features_that_are_no_multiple_of_four() -> None:
    with pytest.raises(ValueError, match="multiple of 4 features, got 6"):
        ResInc(6, spatial_dims=2)


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("kernel", [1, 2])
def test_transition_down_halves_the_size_and_sees_kernel_voxels(dims: int, kernel: int) -> None:
    down = TransitionDown(1, 4, kernel=kernel, spatial_dims=dims).eval()
    x = torch.randn(1, 1, *[8] * dims, requires_grad=True)
    out = down[0](x)
    assert out.shape == (1, 4, *[4] * dims)
    out[(0, 0, *[1] * dims)].backward()
    assert int((x.grad != 0).sum()) == kernel**dims


@pytest.mark.parametrize("dims", [2, 3])
def test_transition_up_doubles_the_size(dims: int) -> None:
    assert TransitionUp(8, 2, spatial_dims=dims)(torch.randn(2, 8, *[3] * dims)).shape == (
        2, 2, *[6] * dims,
    )  # fmt: skip


def test_no_convolution_before_a_batch_norm_has_a_bias() -> None:
    for kind in ("deepmrseg", "unet"):
        network = build_network(config(kind=kind))
        for unit in network.modules():
            if isinstance(unit, ConvNorm | TransitionUp):
                assert unit[0].bias is None


# --- networks


@pytest.mark.parametrize("kind", ["deepmrseg", "unet"])
@pytest.mark.parametrize("patch", [1, 2])
@pytest.mark.parametrize("size", [(16, 16), (9, 13), (7, 30), (8, 8, 16), (9, 11, 13), (5, 17, 6)])
def test_the_output_has_the_size_of_the_input(kind: str, patch: int, size: tuple) -> None:
    network = build_network(config(kind=kind, patch=patch, spatial_dims=len(size), in_channels=2))
    with torch.inference_mode():
        assert network.eval()(torch.randn(2, 2, *size)).shape == (2, 3, *size)


@pytest.mark.parametrize("kernel", [1, 2])
def test_both_transition_kernels_give_a_network(kernel: int) -> None:
    network = build_network(config(transition_kernel=kernel))
    kernels = [stage[0][0].kernel_size for stage in network.encoder]
    assert kernels == [(kernel,) * 3] * 2
    assert network(image(3)).shape == (2, 3, 8, 9, 10)


def test_softmax_of_the_output_sums_to_one() -> None:
    total = build_network(config())(image(3)).softmax(1).sum(1)
    assert torch.allclose(total, torch.ones_like(total), atol=1e-6)


@pytest.mark.parametrize("kind", ["deepmrseg", "unet"])
@pytest.mark.parametrize("patch", [1, 2])
@pytest.mark.parametrize("dims", [2, 3])
def test_gradients_reach_every_parameter(kind: str, patch: int, dims: int) -> None:
    network = build_network(config(kind=kind, patch=patch, spatial_dims=dims))
    x = image(dims, 16)
    target = torch.randint(0, 3, (2, *x.shape[2:]))
    deepmrseg_loss(network(x), target).backward()
    for name, value in network.named_parameters():
        assert value.grad is not None, name
        assert value.grad.abs().sum() > 0, name


def test_the_encoder_doubles_the_features_at_each_level() -> None:
    network = build_network(config(width=8, depth=3))
    assert [stage[0][0].out_channels for stage in network.encoder] == [16, 32, 64]


def test_the_decoder_keeps_a_fourth_of_the_features_and_half_at_the_deepest_level() -> None:
    network = build_network(config(width=8, depth=3))
    shares = [up[0].in_channels / up[0].out_channels for up in network.up]
    assert shares == [2, 4, 4]
    assert [up[0].out_channels for up in network.up] == [32, 16, 8]  # as its skip connection
    assert [stage.merge[0].out_channels for stage in network.decoder] == [64, 32, 16]


def test_the_number_of_blocks_before_the_encoder_is_a_setting() -> None:
    for count in (0, 2):
        network = build_network(config(pre_blocks=count))
        assert len(network.pre_encoder) == count
        assert network(image(3)).shape[1] == 3


def test_the_benchmark_has_a_batch_norm_between_each_convolution_and_its_relu() -> None:
    network = build_network(config(kind="unet"))
    for unit in network.modules():
        if isinstance(unit, ConvNorm):
            assert [type(layer) for layer in unit] == [nn.Conv3d, nn.BatchNorm3d, nn.ReLU]


def test_equal_configurations_build_equal_networks() -> None:
    shapes = [
        {name: value.shape for name, value in build_network(config()).state_dict().items()}
        for _ in range(2)
    ]
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize("dims", [2, 3])
def test_what_lies_beyond_the_padding_does_not_change_an_image_that_fits(dims: int) -> None:
    network = build_network(config(spatial_dims=dims, depth=1)).eval()
    x = torch.randn(1, 1, *[8] * dims)
    padded = nn.functional.pad(x[..., :7], [0, 1])
    with torch.inference_mode():
        assert torch.allclose(network(x[..., :7]), network(padded)[..., :7], atol=1e-6)


# --- folding


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("patch", [1, 2, 3])
@pytest.mark.parametrize("channels", [1, 3])
def test_unfold_puts_every_voxel_that_fold_took_back(dims: int, patch: int, channels: int) -> None:
    frame = build_network(config(spatial_dims=dims, patch=patch, in_channels=channels))
    x = torch.randn(2, channels, *(patch * (2 + k) for k in range(dims)))
    folded = frame._fold(x)
    assert folded.shape == (2, channels * patch**dims, *(2 + k for k in range(dims)))
    assert torch.equal(frame._unfold(folded), x)


def test_fold_of_a_hand_made_image() -> None:
    frame = build_network(config(spatial_dims=2, patch=2))
    x = torch.arange(8.0).reshape(1, 1, 2, 4)  # 0 1 2 3 / 4 5 6 7
    assert frame._fold(x)[0, :, 0, :].tolist() == [[0, 2], [1, 3], [4, 6], [5, 7]]


def test_an_identity_head_brings_each_voxel_home() -> None:
    frame = build_network(config(patch=2, in_channels=2, classes=2, depth=1))
    frame.features = lambda x: x  # type: ignore[method-assign]
    frame.head = nn.Conv3d(16, 16, 1, bias=False)
    frame.head.weight.data = torch.eye(16).reshape(16, 16, 1, 1, 1)
    x = torch.randn(2, 2, 5, 6, 7)
    assert torch.allclose(frame(x), x, atol=1e-6)


# --- configuration


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("kind", "transformer"), ("spatial_dims", 4), ("in_channels", 0), ("classes", 1),
        ("width", 6), ("width", 0), ("depth", 0), ("pre_blocks", -1), ("patch", 0),
        ("transition_kernel", 3),
    ],
)  # fmt: skip
def test_an_impossible_network_is_refused_by_field_and_value(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=rf"network {field} must be .*, got {value!r}"):
        config(**{field: value})


def test_the_multiple_is_what_all_halvings_and_the_patch_need() -> None:
    assert config(depth=3, patch=2).multiple == 16
    assert config(depth=2).multiple == 4


# --- losses


def test_one_hot_of_two_voxels() -> None:
    assert one_hot(torch.tensor([[2, 0]]), 3).tolist() == [[[0, 1], [0, 0], [1, 0]]]


def test_cross_entropy_of_a_worked_example() -> None:
    # p(true) = 3/4 and 1/2: -(ln 3/4 + ln 1/2) / 2
    logits = torch.log(torch.tensor([[[0.75, 0.5], [0.25, 0.5]]]))
    expected = -(math.log(0.75) + math.log(0.5)) / 2
    assert cross_entropy(logits, torch.tensor([[0, 1]])).item() == pytest.approx(expected)


def test_mean_squared_error_of_a_worked_example() -> None:
    # differences 1/4, 1/4, 1/2, 1/2: (1/16 + 1/16 + 1/4 + 1/4) / 4 = 5/32
    p = torch.tensor([[[0.75, 0.5], [0.25, 0.5]]])
    hot = one_hot(torch.tensor([[0, 1]]), 2)
    assert mean_squared_error(p, hot).item() == pytest.approx(5 / 32)


def test_soft_iou_loss_of_a_worked_example() -> None:
    # class 0: 3/4 / (5/4 + 1 - 3/4) = 1/2; class 1: 1/2 / (3/4 + 1 - 1/2) = 2/5
    p = torch.tensor([[[0.75, 0.5], [0.25, 0.5]]])
    hot = one_hot(torch.tensor([[0, 1]]), 2)
    assert soft_iou_loss(p, hot).item() == pytest.approx(1 - (0.5 + 0.4) / 2, abs=1e-5)


def test_the_sums_of_the_soft_iou_run_over_the_batch() -> None:
    p = torch.tensor([[[0.75], [0.25]], [[0.5], [0.5]]])  # the same two voxels, two images
    hot = one_hot(torch.tensor([[0], [1]]), 2)
    assert soft_iou_loss(p, hot).item() == pytest.approx(0.55, abs=1e-5)


def test_soft_iou_and_squared_error_of_a_perfect_answer_are_zero() -> None:
    hot = one_hot(torch.randint(0, 3, (2, 4, 4, 4)), 3)
    assert soft_iou_loss(hot, hot).item() == pytest.approx(0, abs=1e-6)
    assert mean_squared_error(hot, hot).item() == 0


def test_soft_iou_of_a_class_absent_from_both_counts_as_agreement() -> None:
    hot = one_hot(torch.zeros((1, 4), dtype=torch.long), 2)
    assert soft_iou_loss(hot, hot).item() == pytest.approx(0, abs=1e-6)


def test_soft_iou_of_an_answer_with_nothing_right_is_one() -> None:
    hot = one_hot(torch.zeros((1, 8), dtype=torch.long), 2)
    assert soft_iou_loss(1 - hot, hot).item() == pytest.approx(1, abs=1e-5)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 5), st.sampled_from([2, 3]))
def test_the_loss_is_the_sum_of_its_three_parts_and_never_negative(seed, classes, dims) -> None:
    torch.manual_seed(seed)
    logits = torch.randn(2, classes, *[3] * dims) * 3
    target = torch.randint(0, classes, (2, *[3] * dims))
    p, hot = logits.softmax(1), one_hot(target, classes)
    parts = (cross_entropy(logits, target), mean_squared_error(p, hot), soft_iou_loss(p, hot))
    assert all(part >= 0 for part in parts)
    assert parts[1] <= 1
    assert parts[2] <= 1
    assert torch.allclose(deepmrseg_loss(logits, target), sum(parts))


def plain_loss(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """The three parts, as the paper has them, and what autograd makes of their gradients."""
    p, hot = logits.softmax(1), one_hot(target, logits.shape[1]).to(logits.dtype)
    return cross_entropy(logits, target) + mean_squared_error(p, hot) + soft_iou_loss(p, hot)


spaces = st.lists(st.integers(1, 5), min_size=2, max_size=3).map(tuple)


def voxels(seed: int, batch: int, classes: int, space: tuple[int, ...]) -> tuple:
    """Logits in float64, from unsure to sure, and classes of which some may be absent."""
    torch.manual_seed(seed)
    logits = torch.randn(batch, classes, *space, dtype=torch.float64) * 10 ** torch.randn(()).item()
    return logits, torch.randint(0, int(torch.randint(1, classes + 1, ())), (batch, *space))


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 3), st.integers(2, 9), spaces, st.floats(0.1, 10))
def test_the_loss_and_its_written_gradient_are_those_of_the_three_losses(
    seed, batch, classes, space, factor
) -> None:
    logits, target = voxels(seed, batch, classes, space)
    fused, plain = (logits.clone().requires_grad_() for _ in range(2))
    values = (deepmrseg_loss(fused, target), plain_loss(plain, target))
    for value in values:
        (factor * value).backward()
    assert torch.allclose(*values, rtol=1e-12, atol=1e-30)  # 0 and 1e-79 are the same
    assert fused.grad is not None and plain.grad is not None
    assert torch.allclose(fused.grad, plain.grad, rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("space", [(3, 2), (2, 3, 2)])
def test_the_gradient_of_the_loss_is_the_slope_of_its_value(space) -> None:
    torch.manual_seed(0)
    logits = torch.randn(2, 4, *space, dtype=torch.float64, requires_grad=True)
    target = torch.randint(0, 3, (2, *space))  # class 3 is absent
    assert torch.autograd.gradcheck(lambda x: deepmrseg_loss(x, target), logits)


def test_many_voxels_in_single_precision_lose_no_digit_that_counts() -> None:
    torch.manual_seed(0)
    logits, target = torch.randn(2, 9, 40, 40, 40) * 4, torch.randint(0, 9, (2, 40, 40, 40))
    single, double = logits.clone().requires_grad_(), logits.double().requires_grad_()
    values = [deepmrseg_loss(x, target) for x in (single, double)]
    for value in values:
        value.backward()
    assert single.grad is not None and double.grad is not None
    assert values[0].item() == pytest.approx(values[1].item(), rel=1e-6)
    assert (single.grad - double.grad).abs().max() < 1e-5 * double.grad.abs().max()


def test_a_true_class_that_is_thought_impossible_has_its_loss_and_gradient() -> None:
    logits = torch.tensor([[[[0.0]], [[500.0]]]], requires_grad=True)
    loss = deepmrseg_loss(logits, torch.zeros((1, 1, 1), dtype=torch.long))
    loss.backward()
    assert loss.item() == pytest.approx(500 + 1 + 1, rel=1e-5)
    assert logits.grad is not None
    assert logits.grad.flatten().tolist() == pytest.approx([-1, 1])


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_logits_that_are_no_numbers_are_not_hidden_by_the_loss(value) -> None:
    logits = torch.zeros(1, 3, 2, 2)
    logits[0, 0, 0, 0] = value
    assert deepmrseg_loss(logits, torch.zeros((1, 2, 2), dtype=torch.long)).isnan()


# --- safety


def test_nothing_in_the_package_loads_a_pickle() -> None:
    for path in Path(deepmrseg_bids.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = {alias.name for alias in node.names} | {getattr(node, "module", "")}
                assert not names & {"pickle", "joblib", "dill", "cloudpickle"}, path
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                options = {k.arg: getattr(k.value, "value", None) for k in node.keywords}
                if ast.unparse(node.func) == "torch.load":
                    assert options.get("weights_only") is True, path
                if ast.unparse(node.func) == "np.load":
                    assert not options.get("allow_pickle"), path

"""Time of a forward pass and of a training step for several networks, on the CPU.

    python benchmarks/networks.py [--threads 2] [--compile]

The crop is that of `deepbrain` (96 x 96 x 80 voxels, 15 classes). Networks in 2D see its slices in
three directions, as one network shared by three views would. `--compile` compiles each with
`torch.compile` first. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Literal

from deepmrseg_bids.system import prepare_process

prepare_process()  # before torch: its threads read the environment once

import torch  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from deepmrseg_bids.network import NetworkConfig, build_network, deepmrseg_loss  # noqa: E402

NETWORKS: tuple[tuple[Literal["deepmrseg", "unet"], int, int, int], ...] = (
    ("deepmrseg", 3, 8, 1),
    ("deepmrseg", 3, 16, 1),
    ("deepmrseg", 3, 16, 2),
    ("deepmrseg", 3, 24, 2),
    ("deepmrseg", 3, 32, 2),
    ("deepmrseg", 3, 48, 2),
    ("unet", 3, 16, 2),
    ("unet", 3, 32, 2),
    ("deepmrseg", 2, 16, 1),
    ("deepmrseg", 2, 32, 1),
    ("deepmrseg", 2, 32, 2),
)
CROP = (96, 96, 80)
SLICES = 16  # of a batch


def views(x: Tensor, dims: int) -> list[Tensor]:
    """What the network sees: the crop, or its slices in three directions in batches."""
    if dims == 3:
        return [x]
    stacks = [x[0].movedim(axis, 0) for axis in (1, 2, 3)]
    return [part for stack in stacks for part in stack.split(SLICES)]


def median(times: int, work: Callable[[], object]) -> float:
    """Seconds of a call; the first one warms up."""
    work()
    found = []
    for _ in range(times):
        start = time.perf_counter()
        work()
        found.append(time.perf_counter() - start)
    return statistics.median(found)


def forward(network: nn.Module, parts: list[Tensor]) -> None:
    """Ask about the whole crop."""
    with torch.inference_mode():
        for part in parts:
            network(part)


def train_step(network: nn.Module, x: Tensor, target: Tensor) -> None:
    """Loss and gradients of one crop."""
    deepmrseg_loss(network(x), target).backward()  # type: ignore[no-untyped-call]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--compile", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    x = torch.randn(1, 1, *CROP)
    target = torch.randint(0, 15, (1, *CROP))
    print("| network | dimensions | width | patch | parameters | forward | training step |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for kind, dims, width, patch in NETWORKS:
        config = NetworkConfig(
            kind=kind, spatial_dims=dims, in_channels=1, classes=15, width=width, depth=3,
            patch=patch,
        )  # fmt: skip
        layout = torch.channels_last if dims == 2 else torch.channels_last_3d
        network: nn.Module = build_network(config).to(memory_format=layout)  # type: ignore[call-overload]
        count = sum(p.numel() for p in network.parameters())
        parts = [part.contiguous(memory_format=layout) for part in views(x, dims)]
        network.eval()
        torch.compiler.reset()  # or it stops compiling after some networks
        asked = torch.compile(network) if args.compile else network
        seen = median(3, partial(forward, asked, parts))
        step = ""
        if dims == 3 and not args.compile:
            network.train()
            taken = median(2, partial(train_step, network, parts[0], target))
            step = f"{taken:.2f} s"
        print(
            f"| {kind} | {dims} | {width} | {patch} | {count:,} | {seen:.2f} s | {step} |",
            flush=True,
        )


if __name__ == "__main__":
    main()

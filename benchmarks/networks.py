"""Time of a forward pass and of a training step for several networks, on the CPU.

    python benchmarks/networks.py [--threads 2]

The crop is that of `deepbrain` (96 x 96 x 80 voxels, 15 classes). Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import time

from deepmrseg_bids.runtime import prepare_process

NETWORKS = (
    ("deepmrseg", 8, 1),
    ("deepmrseg", 16, 1),
    ("deepmrseg", 16, 2),
    ("deepmrseg", 24, 2),
    ("deepmrseg", 32, 2),
    ("deepmrseg", 48, 2),
    ("unet", 16, 2),
    ("unet", 32, 2),
)
CROP = (96, 96, 80)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, default=2)
    threads = parser.parse_args().threads
    prepare_process()
    import torch

    from deepmrseg_bids.network import NetworkConfig, build_network, deepmrseg_loss

    torch.set_num_threads(threads)
    x = torch.randn(1, 1, *CROP)
    target = torch.randint(0, 15, (1, *CROP))
    print("| network | width | patch | parameters | forward | training step |")
    print("| --- | --- | --- | --- | --- | --- |")
    for kind, width, patch in NETWORKS:
        config = NetworkConfig(
            kind=kind, spatial_dims=3, in_channels=1, classes=15, width=width, depth=3, patch=patch
        )
        network = build_network(config).to(memory_format=torch.channels_last_3d)
        forward, step = [], []
        for _ in range(3):
            network.eval()
            with torch.inference_mode():
                start = time.perf_counter()
                network(x)
                forward.append(time.perf_counter() - start)
            network.train()
            start = time.perf_counter()
            deepmrseg_loss(network(x), target).backward()
            step.append(time.perf_counter() - start)
        count = sum(p.numel() for p in network.parameters())
        print(
            f"| {kind} | {width} | {patch} | {count:,} | {sorted(forward)[1]:.2f} s "
            f"| {sorted(step)[1]:.2f} s |",
            flush=True,
        )


if __name__ == "__main__":
    main()

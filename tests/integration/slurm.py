"""A SLURM of one node for the tests that submit real jobs."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

NODE = Path(__file__).parent.parent / "slurm_node.sh"


@dataclass(frozen=True)
class Slurm:
    """A running node.

    Attributes:
        environment: with it, SLURM's commands and what starts them reach this node. It lacks
            LOGNAME and USER, as a container or a cron job may.
    """

    environment: dict[str, str]

    def __call__(self, *command: object, **variables: str) -> str:
        """Run one of SLURM's commands; what it said."""
        ended = subprocess.run(
            [str(part) for part in command],
            env={**self.environment, **variables},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert ended.returncode == 0, ended.stderr
        return ended.stdout.strip()

    def jobs(self, *, states: str = "all", layout: str = "%A") -> list[str]:
        return self("squeue", "-h", "-t", states, "-o", layout).split()

    def wait(self, count: int, *, states: str = "PENDING,RUNNING", seconds: float = 600) -> None:
        """Wait until so many jobs are in these states."""
        until = time.monotonic() + seconds
        while len(found := self.jobs(states=states)) != count:
            assert time.monotonic() < until, f"{count} jobs were awaited, there are {found}"
            time.sleep(0.2)


def free_ports(count: int) -> list[int]:
    """Ports on loopback that nobody uses now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


@contextlib.contextmanager
def running_node(folder: Path) -> Iterator[Slurm]:
    """Start a node with all of its state in ``folder``, and stop it in the end.

    The path of ``folder`` must be short: a socket lies in it.
    """
    log = folder / "node.log"
    with log.open("w") as errors:
        node = subprocess.Popen(
            [NODE, folder, *map(str, free_ports(2))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
    assert node.stdin is not None and node.stdout is not None
    try:
        assert node.stdout.readline() == "ready\n", log.read_text()
        environment = {k: v for k, v in os.environ.items() if k not in ("LOGNAME", "USER")}
        yield Slurm({**environment, "SLURM_CONF": str(folder / "slurm.conf")})
    finally:
        node.stdin.close()  # it stops when this closes
        node.stdout.close()
        node.wait(60)

"""A private Docker engine with the project's image in it, and the demo data set."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support import need, unavailable

PROJECT = Path(__file__).parents[2]
SCRIPT = Path(__file__).with_name("engine.sh")
IMAGE = "deepmrseg-bids:test"
USER = 1234  # somebody whom neither this machine nor the image knows


@dataclass(frozen=True)
class Engine:
    """A running engine."""

    root: Path  # what it keeps
    address: str  # for DOCKER_HOST

    def docker(self, *arguments: object) -> subprocess.CompletedProcess[str]:
        """Run a docker command on it; its exit code is the caller's business."""
        environment = {
            **os.environ,
            "DOCKER_HOST": self.address,
            "DOCKER_CONFIG": str(self.root / "config"),
        }
        return subprocess.run(
            ["/usr/bin/docker", *map(str, arguments)],
            capture_output=True,
            text=True,
            env=environment,
            timeout=300,
            check=False,
        )

    def run(
        self,
        *arguments: object,
        mounts: dict[Path, str] | None = None,
        entry: str | None = None,
        home: str | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run the image as the strictest site would: no network, no writing, nobody's user."""
        options: list[object] = ["--rm", "--network", "none", "--read-only", "--tmpfs", "/tmp"]
        options += ["--user", f"{USER}:{USER}"]
        for source, target in (mounts or {}).items():
            options += ["--volume", f"{source}:{target}"]
        if home is not None:
            options += ["--env", f"HOME={home}"]
        if entry is not None:
            options += ["--entrypoint", entry]
        return self.docker("run", *options, IMAGE, *arguments)


def script(action: str, root: Path, *arguments: str) -> str:
    """One action of ``engine.sh``; what it printed."""
    ended = subprocess.run(
        [SCRIPT, action, root, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHON": sys.executable},
        timeout=900,
        check=False,
    )
    assert ended.returncode == 0, f"engine.sh {action}:\n{ended.stdout[-6000:]}"
    return ended.stdout


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    """The engine, with the image built from the working tree.

    Its layers stay in ``build/docker``, so that the next build is quick (``engine.sh clear``
    removes them).
    """
    need("dockerd", "debootstrap", package="docker.io and debootstrap")
    if os.geteuid() != 0:
        unavailable("a Docker engine of our own can be started by root alone")
    root = PROJECT / "build" / "docker"
    try:
        address = script("start", root).strip()
        script("build", root, IMAGE)
        yield Engine(root, address)
    finally:
        script("stop", root)


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data set of ``make demo``."""
    root = tmp_path_factory.mktemp("demo") / "bids"
    subprocess.run([sys.executable, PROJECT / "benchmarks" / "make_demo.py", root], check=True)
    return root


def folder_of_user(path: Path) -> Path:
    """Make a folder for :data:`USER` to write in."""
    path.mkdir()
    os.chown(path, USER, USER)
    return path


@dataclass(frozen=True)
class Run:
    """The participant level on the demo data set, in a container."""

    out: Path
    ended: subprocess.CompletedProcess[str]


@pytest.fixture(scope="session")
def run(engine: Engine, demo: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """All tasks on the demo data set, as :data:`USER`, whose home is nowhere."""
    out = folder_of_user(tmp_path_factory.mktemp("run") / "out")
    mounts = {demo: "/data:ro", out: "/out"}
    return Run(out, engine.run("/data", "/out", "participant", mounts=mounts, home="/nowhere"))

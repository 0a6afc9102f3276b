"""The image runs anywhere: any user, nothing to write to, no network, the same bytes as outside."""

from __future__ import annotations

import gzip
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import deepmrseg_bids
from tests.container.conftest import (
    IMAGE,
    PROJECT,
    USER,
    Engine,
    Run,
    folder_of_user,
    script,
)
from tests.support import need

pytestmark = pytest.mark.docker


def label_maps(out: Path) -> dict[str, bytes]:
    """Every image of an output folder."""
    return {path.name: path.read_bytes() for path in out.rglob("*.nii.gz")}


def test_it_tells_its_version(engine: Engine) -> None:
    ended = engine.run("--version")
    assert (ended.returncode, ended.stdout) == (0, f"deepmrseg-bids {deepmrseg_bids.__version__}\n")


def test_its_models_are_whole_and_carry_their_terms(engine: Engine) -> None:
    ended = engine.run("models", "--json", entry="deepmrseg")
    assert ended.returncode == 0, ended.stderr
    outside = subprocess.run(
        [sys.executable, "-m", "deepmrseg_bids.cli.deepmrseg", "models", "--json"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(ended.stdout) == json.loads(outside.stdout)


@pytest.fixture(scope="session")
def outside(demo: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The images of the same run without a container."""
    out = tmp_path_factory.mktemp("outside")
    # a container does not get what may be set here for the kernels of OpenBLAS
    plain = {name: value for name, value in os.environ.items() if "OPENBLAS" not in name}
    subprocess.run(
        [sys.executable, "-m", "deepmrseg_bids.cli.deepmrseg_bids", demo, out, "participant"],
        capture_output=True,
        env=plain,
        check=True,
    )
    return label_maps(out)


def test_it_gives_the_bytes_of_a_run_outside(run: Run, outside: dict[str, bytes]) -> None:
    assert run.ended.returncode == 0, run.ended.stderr
    assert len(outside) == 4
    assert label_maps(run.out) == outside


@pytest.mark.parametrize(
    "attempt",
    [
        pytest.param(
            "import socket; socket.create_connection(('192.0.2.1', 80))",
            id="network",
            marks=pytest.mark.robustness("no network", tried="a container with --network none"),
        ),
        pytest.param(
            "import os; os.mkdir(os.path.expanduser('~/x'))",
            id="home",
            marks=pytest.mark.robustness(
                "no home directory", tried="a container with HOME=/nowhere"
            ),
        ),
        pytest.param(
            "import getpass; getpass.getuser()",
            id="user",
            marks=pytest.mark.robustness(
                "arbitrary user id",
                tried="a container with --user 1234:1234, an unknown user",
            ),
        ),
        pytest.param(
            "open('/opt/app/x', 'w')",
            id="root",
            marks=pytest.mark.robustness(
                "read-only container", tried="a container with --read-only --tmpfs /tmp"
            ),
        ),
    ],
)
def test_it_runs_where_this_cannot_be_done(
    attempt: str,
    engine: Engine,
    run: Run,
    outside: dict[str, bytes],
    came_out: Callable[[str], None],
) -> None:
    refused = engine.run("-c", attempt, entry="python", home="/nowhere")
    assert refused.returncode == 1 and "Error" in refused.stderr
    assert run.ended.returncode == 0 and label_maps(run.out) == outside
    came_out("exit code 0, label maps byte-identical to those of a run outside the container")


def test_every_file_belongs_to_the_user_who_ran_it(run: Run) -> None:
    found = {(p.stat().st_uid, p.stat().st_gid) for p in run.out.rglob("*")}
    assert found == {(USER, USER)}
    assert [path.name for path in run.out.parent.iterdir()] == ["out"]


def test_the_output_names_the_container(run: Run) -> None:
    made_by = json.loads((run.out / "dataset_description.json").read_text())["GeneratedBy"][0]
    tag = f"deepmrseg-bids:{deepmrseg_bids.__version__}"
    assert made_by["Container"] == {"Type": "docker", "Tag": tag}


def test_exit_codes_come_through(engine: Engine, run: Run, demo: Path, tmp_path: Path) -> None:
    bids, out = tmp_path / "bids", tmp_path / "out"
    shutil.copytree(demo, bids)
    shutil.copytree(run.out, out)
    for path in [out, *out.rglob("*")]:
        os.chown(path, USER, USER)
    broken = bids / "sub-broken" / "anat" / "sub-broken_T1w.nii.gz"
    broken.parent.mkdir(parents=True)
    broken.write_bytes(b"")
    mounts = {bids: "/data:ro", out: "/out"}

    def code(*options: str) -> int:
        return engine.run("/data", "/out", "participant", *options, mounts=mounts).returncode

    assert code("--participant-label", "nobody") == 2
    assert code() == 3  # what the first run finished is there, the broken one fails
    assert code("--participant-label", "broken") == 4


def test_nothing_of_the_building_machine_is_in_it(engine: Engine) -> None:
    history = engine.docker("history", "--no-trunc", IMAGE).stdout
    settings = (engine.root / "pip.conf").read_text().splitlines()[1:]
    assert not [line for line in settings if line.split(" = ")[1] in history]
    look = "ls /etc/pip.conf /run/secrets /build /opt/pip /root/.cache /root/.config 2>/dev/null"
    assert engine.run("-c", look, entry="sh").stdout == ""


def test_it_holds_the_pinned_versions_and_no_cuda(engine: Engine) -> None:
    code = (
        "import importlib.metadata as m\n"
        "print(*sorted(f'{d.name}=={d.version}' for d in m.distributions()), sep='\\n')"
    )
    found = engine.run("-c", code, entry="python").stdout.split()
    pins = (PROJECT / "constraints.txt").read_text().split()
    named = {pin.split("==")[0].lower().replace("_", "-"): pin.split("==")[1] for pin in pins}
    for entry in found:
        name, version = entry.lower().replace("_", "-").split("==")
        assert not name.startswith(("nvidia", "triton", "cuda"))
        if name not in {"deepmrseg-bids", "setuptools"}:
            assert version.split("+")[0] == named[name].replace("_", "-"), entry


def test_it_is_as_small_as_the_documentation_says(engine: Engine) -> None:
    size = int(engine.docker("image", "inspect", "--format", "{{.Size}}", IMAGE).stdout)
    text = (PROJECT / "docs" / "containers.md").read_text(encoding="utf-8")
    stated = float(re.search(r"image takes ([\d.]+) GB", text).group(1))
    assert size / 1e9 == pytest.approx(stated, abs=0.05)


def test_building_again_takes_every_step_from_the_cache(engine: Engine) -> None:
    again = script("build", engine.root, IMAGE)
    steps = dict(re.findall(r"^#(\d+) (\[.+)$", again, flags=re.MULTILINE))
    cached = set(re.findall(r"^#(\d+) CACHED$", again, flags=re.MULTILINE))
    anew = [text for number, text in steps.items() if number not in cached]
    # the base image is only looked up, and the context always handed over
    assert [text for text in anew if "internal" not in text and "FROM" not in text] == []
    assert len(cached) > 8


@pytest.fixture(scope="module")
def unpacked(engine: Engine) -> Iterator[Path]:
    """The image's root file system as a folder, with nothing of Docker left."""
    need("ch-run", package="charliecloud-runtime")
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        root = Path(folder) / "root"
        root.mkdir()
        Path(folder).chmod(0o755)
        name = engine.docker("create", IMAGE).stdout.strip()
        archive = Path(folder) / "image.tar"
        engine.docker("export", "--output", archive, name)
        engine.docker("rm", name)
        subprocess.run(["tar", "-C", root, "-xf", archive], check=True)
        archive.unlink()
        yield root


def test_it_runs_without_docker_as_singularity_would(unpacked: Path, run: Run, demo: Path) -> None:
    # Charliecloud, like Singularity: a read-only root, the caller's own user, the host's /tmp
    folder = unpacked.parent
    shutil.copytree(demo, folder / "bids")
    out = folder_of_user(folder / "out")
    environment = ["PATH=/opt/app/bin:/usr/bin:/bin", "HOME=/nowhere", "LANG=C.UTF-8"]
    charliecloud = ["ch-run", "--no-home", "--unset-env=*"]
    charliecloud += [f"--set-env={entry}" for entry in environment]
    charliecloud += [f"--bind={folder}/bids:/data", f"--bind={out}:/out", str(unpacked), "--"]
    user = ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups"]
    command = ["deepmrseg-bids", "/data", "/out", "participant", "--tasks", "brain"]
    ended = subprocess.run(
        user + charliecloud + command,
        capture_output=True,
        text=True,
        env={**os.environ, "USER": "nobody"},
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    found = label_maps(out)
    assert list(found) == ["sub-MNI152_desc-brain_mask.nii.gz"]
    assert found.items() <= label_maps(run.out).items()
    assert gzip.decompress(next(iter(found.values())))

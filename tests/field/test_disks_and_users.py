"""Full or read-only disks, users without a home, closed streams: one line each."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

import deepmrseg_bids
from deepmrseg_bids.errors import DatasetError
from deepmrseg_bids.files import check_writable
from deepmrseg_bids.imaging.grid import Grid
from deepmrseg_bids.imaging.nifti import LabelMap, write_labels
from tests.field.conftest import Study, fill
from tests.support import ball, mounted
from tests.train.conftest import TOML
from tests.warm import Ended, warm_run

Say = Callable[[str], None]
Scan = Callable[[int], Path]


def cold(*words: object, command: str = "deepmrseg_bids", **more: str) -> Ended:
    """A run in a process of its own."""
    ended = subprocess.run(
        [sys.executable, "-m", f"deepmrseg_bids.cli.{command}", *map(str, words)],
        capture_output=True, text=True, env={**os.environ, **more},
    )  # fmt: skip
    return Ended(ended.returncode, ended.stdout, ended.stderr)


def leftovers(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.name.startswith(".deepmrseg-")]


@pytest.fixture
def toy(tmp_path: Path) -> list[object]:
    """A table of four samples, and the settings of a training of four steps."""
    lines = ["sample_id\tT1w\tdseg"]
    for number in range(4):
        for name, data in zip(("t1", "dseg"), ball(number), strict=True):
            nib.save(nib.Nifti1Image(data, np.eye(4)), tmp_path / f"{name}-{number}.nii.gz")
        lines.append(f"s{number}\tt1-{number}.nii.gz\tdseg-{number}.nii.gz")
    (tmp_path / "samples.tsv").write_text("\n".join(lines) + "\n")
    settings = TOML.replace("steps = 40", "steps = 2").replace("every = 20", "every = 2")
    (tmp_path / "settings.toml").write_text(settings.replace("every = 5", "every = 2"))
    return [tmp_path / "samples.tsv", "--config", tmp_path / "settings.toml"]


def commands(toy: Sequence[object], scan: Scan, model: Path) -> dict[str, list[object]]:
    """Each command of ``deepmrseg`` that writes, without its output folder."""
    return {
        "predict": ["predict", scan(1), "--model", model, "--probabilities"],
        "train": ["train", *toy],
        "crossval": ["crossval", *toy, "--folds", "2"],
        "evaluate": ["evaluate", toy[0], "--model", model, "--prepared"],
    }


@pytest.mark.parametrize(
    ("command", "place"),
    [
        ("predict", "file"),
        ("train", "file/below"),
        ("crossval", "disk/below"),
        ("evaluate", "disk"),
    ],
)
def test_an_output_folder_that_cannot_be_written_is_told_before_any_work(
    command: str, place: str, toy: list[object], scan: Scan, tiny_model: Path, tmp_path: Path
) -> None:
    words = commands(toy, scan, tiny_model)[command]
    (tmp_path / "file").touch()
    with mounted(tmp_path / "disk", "-t", "tmpfs", "-o", "ro,size=1m", "tmpfs"):
        ended = warm_run([*words, "-o", tmp_path / place], command="deepmrseg")
    assert ended.code == 2 and "Traceback" not in ended.err
    line = ended.err.splitlines()[-1]
    assert line.startswith(f"error: the output folder {tmp_path / place} cannot be written (")
    assert (tmp_path / "file").read_bytes() == b""


@pytest.mark.robustness(
    "deepmrseg predict and train on a full or read-only disk",
    tried="predict and train onto disks of 8 and 256 KiB",
)
def test_a_disk_that_gets_full_ends_in_one_line_and_leaves_no_half_file(
    toy: list[object], scan: Scan, tiny_model: Path, tmp_path: Path, came_out: Say
) -> None:
    said = []
    for command, room in (("predict", 8), ("train", 256)):
        words = commands(toy, scan, tiny_model)[command]
        disk = tmp_path / f"{command}-{room}"
        with mounted(disk, "-t", "tmpfs", "-o", f"size={room}k", "tmpfs"):
            ended = warm_run([*words, "-o", disk / "out"], command="deepmrseg")
            assert ended.code == (3 if command == "predict" else 2), ended
            assert "Traceback" not in ended.err and not leftovers(disk)
            lines = [line for line in ended.err.splitlines() if "No space left on device" in line]
            assert len(lines) == 1 and str(disk) in lines[0], ended.err
            for image in disk.rglob("*.nii.gz"):
                assert np.asarray(nib.load(image).dataobj).size
            said.append(f"{command}: exit code {ended.code}")
    came_out(f"one line with the file; {', '.join(dict.fromkeys(said))}; every file under its "
             "final name is complete")  # fmt: skip


@pytest.mark.robustness("disk full at the report", tried="OUT_DIR with space for all but one page")
def test_a_page_that_does_not_fit_is_one_line_and_exit_code_3(
    scan: Scan, tiny_model: Path, tmp_path: Path, came_out: Say
) -> None:
    study = Study(tmp_path, tiny_model)
    fill(study.raw, scan, "sub-01_T1w", "sub-02_T1w")
    with mounted(study.out, "-t", "tmpfs", "-o", "size=2100k", "tmpfs"):
        ended = study.run()
        assert ended.code == 3 and "Traceback" not in ended.err and "unexpected" not in ended.err
        (line,) = (line for line in ended.err.splitlines() if "report not written" in line)
        assert "No space left on device" in line and not leftovers(study.out)
        assert {status for status, _ in study.rows.values()} == {"done"}
        assert len(list(study.out.glob("sub-*.html"))) == 1
        assert not list(study.out.glob("logs/crash-*"))
        subprocess.run(["mount", "-o", "remount,size=8m", str(study.out)], check=True)
        assert study.run().code == 0
        assert len(list(study.out.glob("sub-*.html"))) == 2
    came_out("exit code 3: report not written: ... cannot be written (No space left on device); "
             "the results are complete; the next run wrote the report")  # fmt: skip


def test_a_work_folder_that_cannot_be_written_is_told_before_any_work(
    scan: Scan, tiny_model: Path, tmp_path: Path
) -> None:
    study = Study(tmp_path, tiny_model)
    fill(study.raw, scan, "sub-01_T1w")
    (tmp_path / "file").touch()
    for place in (tmp_path / "file", tmp_path / "file" / "below", Path("/proc/none")):
        ended = study.run("--work-dir", place)
        assert ended.code == 2 and "Traceback" not in ended.err
        assert f"error: the work folder {place} cannot be written (" in ended.err
        assert not list(study.out.rglob("*"))


def test_images_appear_whole_or_not_at_all(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (40, 40, 40)).astype(np.uint8)
    labels = LabelMap(noise, Grid(noise.shape, np.eye(4)))
    with mounted(tmp_path / "disk", "-t", "tmpfs", "-o", "size=32k", "tmpfs"):
        with pytest.raises(DatasetError, match="No space left on device"):
            write_labels(tmp_path / "disk" / "a.nii.gz", labels)
        assert list((tmp_path / "disk").iterdir()) == []


def test_a_folder_is_tried_with_a_block_and_left_as_it_was(tmp_path: Path) -> None:
    check_writable(tmp_path / "new" / "folder")
    assert list((tmp_path / "new" / "folder").iterdir()) == []
    with mounted(tmp_path / "disk", "-t", "tmpfs", "-o", "size=8k", "tmpfs"):
        check_writable(tmp_path / "disk")
        (tmp_path / "disk" / "a").write_bytes(bytes(8192))
        with pytest.raises(DatasetError, match="No space left on device"):
            check_writable(tmp_path / "disk")


UNKNOWN = """
import os
os.environ.pop("HOME", None)
os.getuid = lambda: 54321  # a user who is in no list
from pathlib import Path
try:
    Path.home()
except RuntimeError:
    print("no home")
from deepmrseg_bids.system import prepare_process
prepare_process()
import bids.layout
print("imported", Path.home())
"""


def test_a_user_who_has_no_home_can_import_what_asks_for_it() -> None:
    ended = subprocess.run([sys.executable, "-c", UNKNOWN], capture_output=True, text=True)
    assert ended.stdout.split() == ["no", "home", "imported", "/nonexistent"], ended.stderr


@pytest.mark.robustness(
    "closed standard streams, no HOME, caches not writable",
    tried="HOME, TMPDIR, XDG_CACHE_HOME, MPLCONFIGDIR and others below /proc/none; standard input, "
    "output and error closed; umask 077",
)
def test_a_run_needs_no_home_no_caches_and_no_streams(
    scan: Scan, tiny_model: Path, tmp_path: Path, came_out: Say
) -> None:
    study = Study(tmp_path, tiny_model)
    fill(study.raw, scan, "sub-01_T1w")
    names = ("HOME", "TMPDIR", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME",
             "MPLCONFIGDIR", "TEMPLATEFLOW_HOME", "NIPYPE_CONFIG_DIR", "TORCH_HOME",
             "NUMBA_CACHE_DIR")  # fmt: skip
    words = [study.raw, study.out, "participant", "--tasks", "brain", "--nprocs", "1",
             "--no-reports", "--model", f"brain={tiny_model}"]  # fmt: skip
    line = [sys.executable, "-m", "deepmrseg_bids.cli.deepmrseg_bids", *map(str, words)]
    ended = subprocess.run(
        ["bash", "-c", 'exec "$@" <&- >&- 2>&-', "run", *line],
        env={**os.environ, **dict.fromkeys(names, "/proc/none")},
        umask=0o077,
    )
    assert ended.returncode == 0
    assert study.rows == {"sub-01": ("done", "")}
    (log,) = study.out.glob("logs/*.log")
    assert "1 of 1 session done" in log.read_text(encoding="utf-8")
    modes = {(path.is_dir(), stat.S_IMODE(path.stat().st_mode)) for path in study.out.rglob("*")}
    assert modes == {(False, 0o600), (True, 0o700)}
    came_out("exit code 0; the log is complete; file modes follow the umask")


@pytest.mark.parametrize("command", ["deepmrseg", "deepmrseg_bids"])
def test_a_current_folder_that_is_gone_is_one_line(
    command: str, scan: Scan, tiny_model: Path, tmp_path: Path
) -> None:
    words = {"deepmrseg": ["predict", str(scan(1)), "--model", str(tiny_model), "-o", "out"],
             "deepmrseg_bids": [str(tmp_path), "out", "participant"]}  # fmt: skip
    line = [sys.executable, "-m", f"deepmrseg_bids.cli.{command}", *words[command]]
    (tmp_path / "gone").mkdir()
    ended = subprocess.run(
        ["bash", "-c", 'cd "$1"; rmdir "$1"; shift; exec "$@"', "x", str(tmp_path / "gone"), *line],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(deepmrseg_bids.__file__).parents[1])},
    )
    assert ended.returncode == 2 and "Traceback" not in ended.stderr
    assert "the current folder no longer exists" in ended.stderr


def test_a_reader_that_stops_reading_is_no_error() -> None:
    line = f"{sys.executable} -m deepmrseg_bids.cli.deepmrseg models --json"
    ended = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {line} | head -1"], capture_output=True, text=True
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "[\n", "")


def test_a_path_that_is_not_utf8_is_one_line(scan: Scan, tiny_model: Path, tmp_path: Path) -> None:
    study = Study(tmp_path, tiny_model)
    fill(study.raw, scan, "sub-01_T1w")
    odd = os.fsdecode(os.fsencode(tmp_path) + b"/lat\xe9in")
    ended = cold(study.raw, odd, "participant", "--tasks", "brain", "--no-reports", "--model",
                 f"brain={tiny_model}")  # fmt: skip
    assert ended.code == 2 and "Traceback" not in ended.err
    assert "UTF-8" in ended.err.splitlines()[-1]


def test_an_output_folder_may_be_a_link(scan: Scan, tiny_model: Path, tmp_path: Path) -> None:
    study = Study(tmp_path, tiny_model)
    fill(study.raw, scan, "sub-01_T1w")
    (tmp_path / "elsewhere").mkdir()
    study.out.symlink_to(tmp_path / "elsewhere")
    ended = study.run("--no-reports")
    assert ended.code == 0, ended.err
    assert (tmp_path / "elsewhere/sub-01/anat/sub-01_desc-brain_mask.nii.gz").is_file()

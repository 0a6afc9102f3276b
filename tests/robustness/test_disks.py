"""Disks and memory that end in the middle, folders that cannot be used, and crowds."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from deepmrseg_bids.cli.deepmrseg_bids import main
from tests.integration.conftest import add_scan
from tests.robustness.conftest import Nursery, made, rows, started
from tests.support import mounted
from tests.tiny import tiny_head

Say = Callable[[str], None]
Asked = Callable[..., list[object]]


@pytest.mark.robustness(
    "disk full", tried="OUT_DIR on a disk of 128 KiB, with space for half of the results"
)
def test_a_full_disk_keeps_what_was_done_and_says_what_to_do(
    asked: Asked, whole: dict[str, bytes], nursery: Nursery, tmp_path: Path, came_out: Say
) -> None:
    out = tmp_path / "out"
    with mounted(out, "-t", "tmpfs", "-o", "size=128k", "tmpfs"):
        with started(*asked(out)) as run:
            code, output = run.ends()
        assert code == 3, output
        assert "Traceback" not in output and "Logging error" not in output
        told = rows(out)
        done = {person for person, row in told.items() if row["status"] == "done"}
        failed = {row["reason"] for row in told.values() if row["status"] == "failed"}
        assert (
            done
            and failed
            and len(told) == len(done) + sum(row["status"] == "failed" for row in told.values())
        )
        assert all("No space left on device" in reason for reason in failed)
        assert all(output.count(f"{person}: brain failed: {told[person]['reason']}") == 1
                   for person in set(told) - done)  # fmt: skip
        found = made(out)
        assert all(found[name] == whole[name] for name in found)
        subprocess.run(["mount", "-o", "remount,size=8m", str(out)], check=True)
        nursery.run(asked(out), until=None)
        assert made(out) == whole
    reason = min(failed).partition(": ")[2]
    came_out(f"exit code {code}; sessions that fitted were completed, the others failed: "
             f"{reason}; with free space, the next run completed them, byte-identical")  # fmt: skip


@pytest.mark.robustness(
    "memory limit", tried="a head of 800^3 voxels among others, `ulimit -v` 3 GiB"
)
def test_a_memory_limit_costs_the_large_session_alone(
    tiny_data: Path, tiny_model: Path, tmp_path: Path, came_out: Say
) -> None:
    raw, out = tmp_path / "bids", tmp_path / "out"
    shutil.copytree(tiny_data, raw)
    large = add_scan(raw, "sub-02_T1w", b"")
    large.unlink()
    head = tiny_head(2, (8, 8, 8), spacing=0.3).header.copy()
    head.set_data_shape((800, 800, 800))
    head.set_data_dtype("int16")
    large = large.with_suffix("")
    with large.open("wb") as stream:  # a sparse file
        stream.write(head.binaryblock.ljust(352, b"\0"))
        stream.truncate(352 + 2 * 800**3)
    limit = ("bash", "-c", f'ulimit -v {3 * 2**20}; exec "$@"', "limit")
    words = [raw, out, "participant", "--tasks", "brain", "--model", f"brain={tiny_model}"]
    with started(*words, "--no-reports", "--nprocs", "2", prefix=limit) as run:
        code, output = run.ends()
    told = rows(out)
    assert code == 3, output
    assert {person for person, row in told.items() if row["status"] != "done"} == {"sub-02"}
    reason = told["sub-02"]["reason"]
    assert "GiB of memory" in reason and f"sub-02: brain failed: {reason}" in output
    came_out(f"exit code {code}; its session failed: {reason}; the others were completed")


@pytest.mark.robustness(
    "two runs on one OUT_DIR at once",
    tried="two runs started together, three of eight participants in both",
)
def test_two_runs_on_one_folder_both_finish(
    asked: Asked, whole: dict[str, bytes], tmp_path: Path, came_out: Say
) -> None:
    out, people = tmp_path / "out", [f"{number:02d}" for number in range(1, 9)]
    (out / "logs").mkdir(parents=True)
    (out / "logs" / ".lock").touch()  # of a run that was killed
    first = asked(out, "--participant-label", *people[:5])
    second = asked(out, "--participant-label", *people[2:])
    with started(*first) as one, started(*second) as other:
        ended = [run.ends() for run in (one, other)]
    assert [code for code, _ in ended] == [0, 0], ended
    assert made(out) == whole
    assert {row["status"] for row in rows(out).values()} <= {"done", "resumed"}
    assert set(rows(out)) == {f"sub-{person}" for person in people}
    came_out("both ended with exit code 0; every file was complete, and sessions.tsv contained "
             "the sessions of both")  # fmt: skip


def refused(arguments: list[object], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line of a run that cannot begin."""
    capsys.readouterr()
    assert main([str(word) for word in arguments]) == 2
    said = capsys.readouterr().err.splitlines()
    lines = [line for line in said if line.startswith("error: ")]
    assert len(lines) == 1 and said[-1] == lines[0], said
    return lines[0]


@pytest.mark.robustness("OUT_DIR not writable", tried="OUT_DIR on a read-only file system")
def test_an_output_folder_that_cannot_be_written_is_refused(
    asked: Asked, tmp_path: Path, capsys: pytest.CaptureFixture[str], came_out: Say
) -> None:
    out = tmp_path / "out"
    with mounted(out, "-t", "tmpfs", "-o", "ro", "tmpfs"):
        said = refused(asked(out), capsys)
    assert "cannot be written" in said and str(out) in said
    came_out(f"exit code 2, nothing done: {said}")


@pytest.mark.parametrize(
    "place",
    [
        pytest.param(
            "", marks=pytest.mark.robustness("OUT_DIR = BIDS_DIR", tried="OUT_DIR set to BIDS_DIR")
        ),
        pytest.param(
            "results",
            marks=pytest.mark.robustness(
                "OUT_DIR inside BIDS_DIR, not under derivatives/", tried="OUT_DIR BIDS_DIR/results"
            ),
        ),
    ],
)
def test_an_output_folder_among_the_inputs_is_refused(
    asked: Asked,
    tiny_data: Path,
    capsys: pytest.CaptureFixture[str],
    came_out: Say,
    place: str,
) -> None:
    before = sorted(tiny_data.rglob("*"))
    said = refused(asked(tiny_data / place), capsys)
    assert "derivatives" in said
    assert sorted(tiny_data.rglob("*")) == before
    came_out(f"exit code 2, nothing written: {said}")


@pytest.mark.robustness("work dir inside BIDS_DIR", tried="`--work-dir BIDS_DIR/work`")
def test_a_work_folder_among_the_inputs_is_refused(
    asked: Asked,
    tiny_data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    came_out: Say,
) -> None:
    said = refused(asked(tmp_path / "out", "--work-dir", tiny_data / "work"), capsys)
    assert "--work-dir" in said
    assert not (tiny_data / "work").exists() and not (tmp_path / "out").exists()
    came_out(f"exit code 2, nothing written: {said}")


@pytest.mark.robustness("read-only BIDS_DIR", tried="BIDS_DIR on a read-only file system")
def test_a_read_only_data_set_is_no_obstacle(
    tiny_data: Path,
    tiny_model: Path,
    whole: dict[str, bytes],
    nursery: Nursery,
    tmp_path: Path,
    came_out: Say,
) -> None:
    raw, out = tmp_path / "bids", tmp_path / "out"
    with mounted(raw, "--bind", "-o", "ro", str(tiny_data)):
        subprocess.run(["mount", "-o", "remount,ro,bind", str(raw)], check=True)
        assert not os.access(raw, os.W_OK)
        words = [raw, out, "participant", "--tasks", "brain", "--model", f"brain={tiny_model}"]
        nursery.run([*words, "--no-reports", "--participant-label", "01"], until=None)
    mask = "sub-01/anat/sub-01_desc-brain_mask.nii.gz"
    assert made(out)[mask] == whole[mask]
    came_out("exit code 0, byte-identical results")

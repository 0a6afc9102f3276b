"""The lock of a folder: one at a time, and never longer than its process."""

import os
import subprocess
import sys
import time

import pytest

from deepmrseg_bids import files
from deepmrseg_bids.errors import DatasetError
from deepmrseg_bids.files import locked

HOLD = """
import sys, time
from deepmrseg_bids.files import locked
with locked(sys.argv[1]):
    print("held", flush=True)
    time.sleep(float(sys.argv[2]))
"""


def holder(path, seconds):
    arguments = [sys.executable, "-c", HOLD, str(path), str(seconds)]
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)


def test_a_lock_is_waited_for(tmp_path):
    with holder(tmp_path / "lock", 0.5) as other:
        assert other.stdout.readline() == "held\n"
        with locked(tmp_path / "lock"):
            other.wait(2)  # it let go because it was done


def test_the_lock_of_a_process_that_was_killed_does_not_last(tmp_path):
    with holder(tmp_path / "lock", 60) as other:
        assert other.stdout.readline() == "held\n"
        other.kill()
    start = time.monotonic()
    with locked(tmp_path / "lock"):
        assert time.monotonic() - start < 5


def test_where_there_are_no_locks_work_goes_on_without(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError("no locks available")

    monkeypatch.setattr(files.fcntl, "flock", refuse)
    with locked(tmp_path / "lock"):
        pass


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    with pytest.raises(DatasetError, match="nowhere"), locked(tmp_path / "nowhere" / "lock"):
        pass


def test_what_a_killed_process_left_is_removed_and_what_a_live_one_writes_is_not(tmp_path):
    out, pipe = tmp_path / "out", tmp_path / "pipe"
    out.mkdir()
    os.mkfifo(pipe)
    code = "import sys; from deepmrseg_bids import files; files.publish(*sys.argv[1:])"
    arguments = [sys.executable, "-c", code, str(pipe), str(out / "final")]
    with subprocess.Popen(arguments) as other, pipe.open("wb") as stream:  # it reads from now on
        stream.write(b"half")
        stream.flush()
        assert files.remove_leftovers(out) == 0
        [left] = out.iterdir()
        other.kill()
    assert list(out.iterdir()) == [left]
    assert files.remove_leftovers(out) == 1
    assert list(out.iterdir()) == []


def test_a_file_that_was_taken_for_a_leftover_is_begun_again(tmp_path, monkeypatch):
    lock, times = files.fcntl.flock, []

    def steal(stream, how):
        if not times:
            [path] = tmp_path.glob(".deepmrseg-*")
            path.unlink()
        times.append(how)
        lock(stream, how)

    monkeypatch.setattr(files.fcntl, "flock", steal)
    files.write_bytes(tmp_path / "a", b"whole")
    assert (tmp_path / "a").read_bytes() == b"whole" and len(times) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["a"]

"""What both commands share: values, models, threads, logging and the way out."""

import argparse
import logging
import os
import sys
from pathlib import Path

import pytest

from deepmrseg_bids.cli import common
from deepmrseg_bids.errors import DatasetError, UsageError


@pytest.mark.parametrize(("text", "value"), [("1", 1), ("16", 16), (" 4 ", 4)])
def test_whole_numbers_of_at_least_one_are_taken(text, value):
    assert common.positive(text) == value


@pytest.mark.parametrize("text", ["0", "-2", "1.5", "", "many", "nan"])
def test_other_numbers_are_refused_by_name(text):
    with pytest.raises(argparse.ArgumentTypeError, match="at least 1, got") as caught:
        common.positive(text)
    assert repr(text) in str(caught.value)


def test_models_are_given_by_task():
    assert common.model_paths(["brain=/m/b", "wml=rel/a=b"]) == {
        "brain": Path("/m/b"),
        "wml": Path("rel/a=b"),
    }
    assert common.model_paths([]) == {}


def test_a_model_of_another_name_is_that_of_a_task_of_ones_own():
    assert common.model_paths(["tumour=/m"]) == {"tumour": Path("/m")}


@pytest.mark.parametrize("entry", ["brain", "brain=", "=path", "", "a-b=/m", "a_b=/m", "é=/m"])
def test_a_model_without_a_task_and_a_path_is_refused(entry):
    with pytest.raises(UsageError, match="TASK=PATH: a task, or a name of letters") as caught:
        common.model_paths([entry])
    assert repr(entry) in str(caught.value)


@pytest.mark.parametrize(("asked", "given"), [(None, 4), (1, 1), (4, 4), (99, 4)])
def test_threads_never_outnumber_the_cores(monkeypatch, asked, given):
    monkeypatch.setattr(common, "usable_cores", lambda: 4)
    assert common.thread_count(asked) == given


@pytest.mark.parametrize("code", [0, 3, 4])
def test_a_command_ends_with_its_own_code(code):
    assert common.guarded(lambda: code) == code


@pytest.mark.parametrize("kind", [UsageError, DatasetError])
def test_an_error_of_ours_is_one_line_and_code_2(capsys, kind):
    def command():
        raise kind("/data: no such folder")

    assert common.guarded(command) == 2
    assert capsys.readouterr().err == "error: /data: no such folder\n"


def test_an_interrupted_command_ends_with_130(capsys):
    def command():
        raise KeyboardInterrupt

    assert common.guarded(command) == 130
    assert capsys.readouterr().err == "interrupted\n"


@pytest.fixture
def no_reader(monkeypatch):
    """Standard output that nobody reads."""
    here, there = os.pipe()
    os.close(here)
    with open(there, "w") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        yield


@pytest.mark.parametrize("size", [10, 100_000])
def test_a_reader_that_went_away_is_no_error(no_reader, size):
    assert common.guarded(lambda: 0 * sys.stdout.write("x" * size)) == 0


def test_another_pipe_that_broke_is_an_error(capsys):
    def command():
        raise BrokenPipeError(32, "Broken pipe")

    assert common.guarded(command) == 2
    assert "Broken pipe" in capsys.readouterr().err


def test_an_error_that_is_not_ours_is_not_hidden():
    def command():
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        common.guarded(command)


@pytest.mark.parametrize(
    ("verbosity", "level"),
    [(-5, "CRITICAL"), (-2, "CRITICAL"), (-1, "ERROR"), (0, "INFO"), (1, "DEBUG"), (4, "DEBUG")],
)
def test_v_says_more_and_q_says_less(monkeypatch, verbosity, level):
    asked = {}
    monkeypatch.setattr(logging, "basicConfig", lambda **given: asked.update(given))
    common.set_up_logging(verbosity)
    assert asked["level"] == getattr(logging, level)

"""The tests' own helpers, where a mistake in them would hide others."""

from pathlib import Path

import pytest

from tests import support
from tests.conftest import LONGEST_FIRST


def test_a_missing_real_part_skips_a_test_and_says_what_to_install(monkeypatch):
    monkeypatch.delenv("DEEPMRSEG_CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="no-such-program not found: install it"):
        support.need("sh", "no-such-program", package="it")


def test_in_ci_a_missing_real_part_fails_the_test(monkeypatch):
    monkeypatch.setenv("DEEPMRSEG_CI", "1")
    with pytest.raises(pytest.fail.Exception, match="install it"):
        support.need("no-such-program", package="it")


def test_a_real_part_that_is_there_is_used(monkeypatch):
    monkeypatch.setenv("DEEPMRSEG_CI", "1")
    support.need("sh", package="it")


def test_the_files_that_come_first_are_there_and_stand_once() -> None:
    names = [name for line in LONGEST_FIRST for name in line]
    assert len(names) == len(set(names))
    assert [name for name in names if not (Path(__file__).parent / name).is_file()] == []

"""The exception tree: complete, drawn as it is, and rooted in one class."""

from __future__ import annotations

import inspect
import re

from deepmrseg_bids import errors


def test_all_names_every_exception_and_nothing_else() -> None:
    defined = {name for name, kind in inspect.getmembers(errors, inspect.isclass)}
    assert set(errors.__all__) == defined


def test_every_error_descends_from_the_root() -> None:
    for name in errors.__all__:
        assert issubclass(getattr(errors, name), errors.DeepMRSegError)


def test_the_root_is_not_a_builtin_error_that_others_catch_by_accident() -> None:
    assert errors.DeepMRSegError.__bases__ == (Exception,)


def test_the_drawing_shows_each_error_below_its_parent() -> None:
    drawn = re.findall(r"^    ([│├└─ ]*)(\w+Error|SkippedTask)\b", errors.__doc__ or "", re.M)
    parents: list[str] = []
    for branch, name in drawn:
        depth = len(branch) // 4
        parents[depth:] = [name]
        if depth:
            assert getattr(errors, name).__bases__ == (getattr(errors, parents[depth - 1]),)
    assert {name for _, name in drawn} == set(errors.__all__)


def test_every_error_says_in_its_docstring_when_it_is_raised() -> None:
    for name in errors.__all__:
        assert getattr(errors, name).__doc__

"""The pytest side of ``docs/robustness.md``: an option, a marker, and the fixture ``came_out``."""

from __future__ import annotations

from collections.abc import Callable, Generator

import pytest

from tests.robustness.rows import ROWS
from tests.robustness.table import PAGE, Finding, read, render, tidy

_SAID = pytest.StashKey[str]()
_FOUND = pytest.StashKey[dict[str, Finding]]()
_WRITE = "--write-robustness"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        _WRITE, action="store_true", help="write what came out into docs/robustness.md"
    )


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_FOUND] = {}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """See that a marker names one of the rows, and each row has one test."""
    known, taken = {row.name for row in ROWS}, set()
    for item in items:
        for name in (mark.args[0] for mark in item.iter_markers("robustness")):
            if name not in known:
                raise pytest.UsageError(f"{item.nodeid}: tests/robustness/rows.py has no {name!r}")
            if name in taken:
                raise pytest.UsageError(f"{item.nodeid}: {name!r} has another test already")
            taken.add(name)


@pytest.fixture
def came_out(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], None]:
    """Say what came out, at the end of a test that is marked with its row."""

    def say(text: str) -> None:
        request.node.stash[_SAID] = tidy(text, tmp_path_factory.getbasetemp())

    return say


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, object, object]:
    """After a test that passed: keep what came out, or compare it with the page."""
    result = yield
    if (mark := pyfuncitem.get_closest_marker("robustness")) is None:
        return result
    said = pyfuncitem.stash.get(_SAID, None)
    if said is None:
        pytest.fail("a test of robustness says what came out: came_out('...')")
    name, tried = mark.args[0], mark.kwargs["tried"]
    test = f"{pyfuncitem.path.name}::{pyfuncitem.name}"
    found = Finding(" ".join(tried.split()), said, f"`{test}`")
    pyfuncitem.config.stash[_FOUND][name] = found
    if not pyfuncitem.config.getoption(_WRITE):
        written = read(PAGE.read_text(encoding="utf-8")).get(name)
        if written != found:
            pytest.fail(
                f"docs/robustness.md is stale (pytest {_WRITE} writes it)\n"
                f"  {name}\n  page: {written}\n  now:  {found}"
            )
    return result


def pytest_sessionfinish(session: pytest.Session) -> None:
    if session.config.getoption(_WRITE):
        kept = read(PAGE.read_text(encoding="utf-8")) if PAGE.exists() else {}
        PAGE.write_text(render(kept | session.config.stash[_FOUND]), encoding="utf-8")

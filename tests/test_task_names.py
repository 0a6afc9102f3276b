"""What a task is stands in its own file: no other module knows a task by its name."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import deepmrseg_bids
from deepmrseg_bids.tasks.registry import task_names

ROOT = Path(deepmrseg_bids.__file__).parent
NAMES = frozenset(task_names())
MODULES = sorted(path for path in ROOT.rglob("*.py") if path.relative_to(ROOT).parts[0] != "tasks")
PAGES = sorted(
    path for kind in ("*.js", "*.j2") for path in (ROOT / "reports").rglob(kind)
)  # the libraries of others lie there compressed

# "brain" is also one of the intensity modes of a Preparation, and the BIDS label of anybody's
# brain mask (desc-brain). These comparisons, word for word, are about those and about no task:
OTHER_BRAINS = {
    "imaging/intensity.py": {"mode == 'brain'", "mode in ('brain', 'crop')"},
    "inference/bundle.py": {"self.intensity not in ('head', 'brain', 'crop')"},
    "train/samples.py": {"config.preparation.intensity == 'brain'"},
    "train/augment.py": {"mode == 'brain'"},
    "train/config.py": {"seen.intensity != 'brain'"},
    "bids/references.py": {"name.get('desc') != 'brain'"},
}


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def names_task(node: ast.AST | None) -> bool:
    """Whether this is a task's name, or a literal collection with one in it."""
    if isinstance(node, ast.Constant):
        return node.value in NAMES if isinstance(node.value, str) else False
    if isinstance(node, ast.Tuple | ast.List | ast.Set):
        return any(map(names_task, node.elts))
    if isinstance(node, ast.Dict):
        return any(map(names_task, node.keys))
    return False


def comparisons(source: str) -> Iterator[str]:
    """Where code decides by a task's name: comparisons, cases, tables by task, lists of tasks."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Compare):
            found = any(map(names_task, (node.left, *node.comparators)))
        elif isinstance(node, ast.MatchValue):
            found = names_task(node.value)
        elif isinstance(node, ast.Dict):
            found = names_task(node)
        elif isinstance(node, ast.Tuple | ast.List | ast.Set):
            found = len(node.elts) > 1 and all(map(names_task, node.elts))
        else:
            found = False
        if found:
            yield ast.unparse(node)


def flairs(source: str) -> list[str]:
    """Every attribute ``.flair``."""
    tree = ast.parse(source)
    attributes = (node for node in ast.walk(tree) if isinstance(node, ast.Attribute))
    return [ast.unparse(node) for node in attributes if node.attr == "flair"]


def named_in_page(source: str) -> list[str]:
    """Names of tasks as literals of a script or a template, and ``.flair``."""
    literals = re.findall(r"""(["'`])(\w+)\1""", source)
    return [text for _, text in literals if text in NAMES] + re.findall(r"\.flair\b", source)


@pytest.mark.parametrize("module", MODULES, ids=name_of)
def test_no_module_decides_by_the_name_of_a_task(module: Path) -> None:
    found = set(comparisons(module.read_text(encoding="utf-8")))
    assert found == OTHER_BRAINS.get(name_of(module), set())


@pytest.mark.parametrize("module", MODULES, ids=name_of)
def test_no_module_has_a_field_for_one_modality(module: Path) -> None:
    assert flairs(module.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_no_page_knows_a_task_by_its_name(page: Path) -> None:
    assert named_in_page(page.read_text(encoding="utf-8")) == []


def test_there_are_modules_and_pages_to_read() -> None:
    assert len(MODULES) > 80 and {path.suffix for path in PAGES} == {".js", ".j2"}
    assert set(OTHER_BRAINS) <= {name_of(path) for path in MODULES}


@pytest.mark.parametrize(
    "code",
    [
        "task == 'brain'",
        "'wml' != task",
        "task in ('deepbrain', other)",
        "task not in ['hippocampus']",
        "task in {'wml': 1}",
        "match task:\n case 'wml': pass",
        "match task:\n case 'x' | 'brain': pass",
        "{'brain': 1, 'other': 2}.get(task)",
        "{**more, 'wml': 1}",
        "TASKS = ('brain', 'wml')",
        "[one for one in found if one.task == 'deepbrain']",
    ],
)
def test_code_that_decides_by_a_task_is_seen(code: str) -> None:
    assert list(comparisons(code))


@pytest.mark.parametrize(
    "code", ["task == name", "run('brain')", "x = 'wml'", "{'brains': 1}", "t in ('a', 'head')"]
)
def test_code_that_does_not_is_not(code: str) -> None:
    assert not list(comparisons(code))


def test_fields_and_literals_of_pages_are_seen() -> None:
    assert flairs("session.flair.name") == ["session.flair"] and not flairs("flair = 1")
    assert named_in_page("one.task === \"wml\" || 'brain' || `deepbrain` || one.flair") == [
        "wml", "brain", "deepbrain", ".flair",
    ]  # fmt: skip
    assert not named_in_page("the brain 'is' \"not\" a literal: wml")

"""The layers: a module imports from layers above it in this list, never from below.

The list is the table of layers in ``docs/design.md``, so that the two cannot part.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import deepmrseg_bids

PACKAGE = Path(deepmrseg_bids.__file__).parent

DESIGN = PACKAGE.parent / "docs" / "design.md"


def layers() -> tuple[str, ...]:
    """The rows of the table of layers in docs/design.md, top to bottom."""
    text = DESIGN.read_text(encoding="utf-8").split("| layer | what it is |", 1)[1]
    rows = text.split("\n\n", 1)[0].splitlines()[2:]
    return tuple(row.split("`")[1].rstrip("/") for row in rows)


LAYERS = layers()

ONLY_IN = {
    "nibabel": ("imaging/nifti.py",),
    "ants": ("imaging/registration.py",),
    "templateflow": ("imaging/templates.py",),
    "bids": ("bids/index.py",),
    "torch": (
        "network/",
        "inference/bundle.py",
        "inference/precision.py",
        "inference/onnx_export.py",
        "inference/onnx_graph.py",
        "inference/predictor.py",
        "train/",
        "execution/",
        "app/",
    ),
    "safetensors": ("inference/bundle.py",),
    "onnx": ("inference/onnx_export.py", "inference/onnx_graph.py"),
    "onnxruntime": ("inference/onnx_export.py",),
    "nipype": ("interfaces/", "workflows/", "execution/"),
}
"""Third-party library: the only files (or folders) that may import it."""

NETWORK_STACK = {"torch", "safetensors", "nipype", "ants", "bids", "nibabel", "templateflow"}

FILES = sorted(PACKAGE.rglob("*.py"))


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imports(tree: ast.AST) -> Iterator[str]:
    """Every module imported anywhere in a tree, in full."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield node.module or ""
            if node.module in ("deepmrseg_bids", "deepmrseg_bids.bids"):
                yield from (f"{node.module}.{alias.name}" for alias in node.names)


def imports_when_loaded(tree: ast.Module) -> set[str]:
    """The root packages imported outside of functions and of ``if TYPE_CHECKING``."""

    def walk(nodes: list[ast.stmt]) -> Iterator[str]:
        for node in nodes:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
                continue
            if isinstance(node, ast.Import | ast.ImportFrom):
                yield from (name.split(".")[0] for name in imports(node))
            for part in ("body", "orelse", "handlers", "finalbody"):
                yield from walk(getattr(node, part, []))

    return set(walk(tree.body))


def layer_of(module: str) -> str:
    """``deepmrseg_bids.train.loop`` -> ``train``; the package itself -> the empty string."""
    return [*module.split("."), ""][1]


def own_layer(path: Path) -> str:
    first = path.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py")


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_a_module_imports_only_from_layers_above_its_own(path: Path) -> None:
    if own_layer(path) == "__init__":
        return
    place = LAYERS.index(own_layer(path))
    for name in imports(parsed(path)):
        if name.split(".")[0] == "deepmrseg_bids" and layer_of(name) in LAYERS:
            assert LAYERS.index(layer_of(name)) <= place, f"{path.name} imports {name}"


def test_every_module_has_its_layer() -> None:
    found = {own_layer(path) for path in FILES} - {"__init__"}
    assert found <= set(LAYERS), f"give a layer to {found - set(LAYERS)}"


@pytest.mark.parametrize("library", ONLY_IN)
def test_a_library_is_imported_only_where_it_belongs(library: str) -> None:
    for path in FILES:
        place = path.relative_to(PACKAGE).as_posix()
        if library in {name.split(".")[0] for name in imports(parsed(path))}:
            assert place.startswith(ONLY_IN[library]), f"{place} imports {library}"


@pytest.mark.parametrize(
    ("name", "late"),
    [
        ("inference/bundle.py", {"torch", "safetensors"}),
        ("inference/precision.py", {"torch"}),
        ("imaging/registration.py", {"ants"}),
        ("imaging/templates.py", {"templateflow"}),
        ("bids/index.py", {"bids"}),
        ("__init__.py", NETWORK_STACK),
    ],
)
def test_slow_libraries_are_imported_inside_functions(name: str, late: set[str]) -> None:
    path = PACKAGE / name
    if path.exists():
        assert not imports_when_loaded(parsed(path)) & late


def test_commands_start_without_slow_libraries() -> None:
    for path in (PACKAGE / "cli").rglob("*.py"):
        assert not imports_when_loaded(parsed(path)) & NETWORK_STACK, path.name


def test_the_network_is_torch_and_nothing_else() -> None:
    allowed = {
        "__future__",
        "collections",
        "dataclasses",
        "deepmrseg_bids",
        "importlib",
        "torch",
        "typing",
    }
    for path in (PACKAGE / "network").glob("*.py"):
        assert {name.split(".")[0] for name in imports(parsed(path))} <= allowed, path.name


def test_metrics_need_no_torch_and_no_image_files() -> None:
    for module in ("metrics/reliability.py", "metrics/overlap.py"):
        roots = {name.split(".")[0] for name in imports(parsed(PACKAGE / module))}
        assert not roots & NETWORK_STACK


def test_only_the_command_line_and_the_app_know_the_run_configuration() -> None:
    for path in FILES:
        if "deepmrseg_bids.config" in set(imports(parsed(path))):
            assert own_layer(path) in ("config", "app", "cli"), path.name


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_all_lists_only_what_the_module_has(path: Path) -> None:
    tree = parsed(path)
    lists = [
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
    ]
    for names in lists:
        bound = {
            name.id
            for node in tree.body
            for name in ast.walk(node)
            if isinstance(name, ast.Name) and isinstance(name.ctx, ast.Store)
        }
        kept = [one for node in tree.body if isinstance(node, ast.If) for one in node.body]
        for node in [*tree.body, *kept]:
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                bound.add(node.name)
            elif isinstance(node, ast.Import | ast.ImportFrom):
                bound |= {alias.asname or alias.name for alias in node.names}
        assert set(names) <= bound
        assert len(set(names)) == len(names)


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_no_function_has_eight_parameters_or_more(path: Path) -> None:
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            own = node.args
            names = [arg.arg for arg in (*own.posonlyargs, *own.args, *own.kwonlyargs)]
            assert len([name for name in names if name not in ("self", "cls")]) < 8, node.name

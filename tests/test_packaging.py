"""Files that say the same thing in several places say the same."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from importlib.metadata import distribution, packages_distributions
from pathlib import Path

import pytest
import yaml
from packaging.specifiers import SpecifierSet

from deepmrseg_bids import __version__

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
OWN = {"deepmrseg_bids", "tests", "tools"}
# what tests start as a command, what pytest loads by itself, and what is read as data
COMMANDS = {"bids-validator-deno", "boutiques", "nilearn", "pytest-cov"}


@pytest.mark.parametrize(
    ("name", "pattern"),
    [
        ("Dockerfile", r"docker:deepmrseg-bids:(\S+)"),
        ("Dockerfile", r'image\.version="([^"]+)"'),
        ("singularity/deepmrseg-bids.def", r"singularity:deepmrseg-bids:(\S+)"),
        ("singularity/deepmrseg-bids.def", r"image\.version (\S+)"),
    ],
)
def test_the_images_tell_the_version_of_the_package(name: str, pattern: str) -> None:
    assert re.findall(pattern, (ROOT / name).read_text(encoding="utf-8")) == [__version__]


def test_the_definition_takes_the_steps_of_the_dockerfile() -> None:
    docker = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    definition = (ROOT / "singularity" / "deepmrseg-bids.def").read_text(encoding="utf-8")
    steps = re.findall(r"sh install\.sh (\w+)", docker)
    assert steps == ["torch", "dependencies", "app"]
    assert re.findall(r"sh install\.sh (\w+)", definition) == steps
    base = re.search(r"^FROM (\S+:\S+) AS", docker, flags=re.MULTILINE).group(1)
    assert f"From: {base}\n" in definition
    copied = set(re.findall(r"^    (\S+) /build/", definition, flags=re.MULTILINE))
    assert all((ROOT / name).exists() for name in copied)
    allowed = set(re.findall(r"^!(\S+)", (ROOT / ".dockerignore").read_text(), re.MULTILINE))
    assert copied == allowed - {"wheels", "templateflow"}


def test_every_pinned_version_can_be_installed_with_the_oldest_python() -> None:
    oldest = re.fullmatch(r">=(\d+\.\d+)", PROJECT["requires-python"])[1] + ".0"
    pins = re.findall(r"^([\w.-]+)==(\S+)", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    needs = {name: distribution(name).metadata["Requires-Python"] for name, _ in pins}
    assert len(needs) > 100
    assert {n: need for n, need in needs.items() if need and oldest not in SpecifierSet(need)} == {}


def test_the_citation_file_is_of_this_version_and_complete() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == __version__
    needed = {"cff-version", "message", "title", "type", "license", "authors", "references"}
    assert needed <= set(citation)


def plain(name: str) -> str:
    """The name of a distribution as package indices compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def declared(*extras: str) -> set[str]:
    """The distributions that the package needs, and those of these extras."""
    optional = PROJECT["optional-dependencies"]
    entries = [*PROJECT["dependencies"], *(entry for extra in extras for entry in optional[extra])]
    return {plain(re.match(r"[\w.-]+", entry)[0]) for entry in entries}


def imported(folder: str) -> dict[str, str]:
    """The distributions that the modules below a folder import, each with one that does."""
    owners, found = packages_distributions(), {}
    for path in sorted((ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names = [node.module]
            for name in {name.split(".")[0] for name in names} - OWN - sys.stdlib_module_names:
                for owner in owners.get(name, [name]):
                    found[plain(owner)] = path.relative_to(ROOT).as_posix()
    return found


def test_every_distribution_that_the_package_imports_is_declared() -> None:
    found = imported("deepmrseg_bids")
    known = declared("harmonise", "onnx")
    assert {name: path for name, path in found.items() if name not in known} == {}


def test_every_distribution_that_the_package_declares_is_imported() -> None:
    assert declared() - imported("deepmrseg_bids").keys() == set()


def test_every_distribution_that_the_tests_import_is_declared_and_the_other_way_round() -> None:
    found = imported("tests")
    assert {name: path for name, path in found.items() if name not in declared("test")} == {}
    assert declared("test") - declared() - found.keys() == COMMANDS

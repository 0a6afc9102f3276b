"""Files that say the same thing in several places say the same."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from deepmrseg_bids import __version__

ROOT = Path(__file__).parents[1]


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


def test_the_citation_file_is_of_this_version_and_complete() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == __version__
    needed = {"cff-version", "message", "title", "type", "license", "authors", "references"}
    assert needed <= set(citation)

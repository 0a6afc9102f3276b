"""What all pages share: policy, scripts, libraries."""

from __future__ import annotations

import base64
import gzip
import hashlib
import html
import re
from importlib.resources import files
from pathlib import Path

import pytest

from deepmrseg_bids.reports.page import packed, render_page

ASSETS = files("deepmrseg_bids.reports") / "assets"


@pytest.fixture
def source() -> str:
    return render_page("base.html.j2", libraries=["niivue"]).decode()


def sha256(data: bytes) -> str:
    return base64.b64encode(hashlib.sha256(data).digest()).decode()


def test_the_policy_allows_the_scripts_of_the_page_and_no_others(source: str) -> None:
    allowed = re.search(r"script-src ([^;]+);", html.unescape(source)).group(1)
    scripts = re.findall(r"<script>(.+?)</script>", source, flags=re.DOTALL)
    library = gzip.decompress((ASSETS / "niivue.js.gz").read_bytes())
    own = {*(script.encode() for script in scripts), library}
    assert set(allowed.split()) == {f"'sha256-{sha256(script)}'" for script in own}
    assert "unsafe-eval" not in source and "default-src 'none'" in html.unescape(source)


def test_pictures_that_lie_beside_are_allowed_to_the_page_that_has_some() -> None:
    alone, beside = (
        re.search(r"img-src ([^;]+);", html.unescape(page.decode())).group(1)
        for page in (render_page("base.html.j2"), render_page("base.html.j2", beside=True))
    )
    assert alone == "data: blob:" and beside == "data: blob: 'self' file:"


def test_a_page_without_scripts_allows_none() -> None:
    source = render_page("base.html.j2").decode()
    assert "<script" not in source and "script-src 'none'" in html.unescape(source)


@pytest.mark.parametrize("library", ["niivue", "echarts"])
def test_a_library_lies_in_the_page_as_it_was_published(library: str) -> None:
    source = render_page("base.html.j2", libraries=[library]).decode()
    (data,) = re.findall(f'id="library-{library}">(.+?)<', source)
    digest = hashlib.sha256(gzip.decompress(base64.b64decode(data))).hexdigest()
    assert digest in (ASSETS / "README.md").read_text()


def test_packed_bytes_come_back_and_do_not_depend_on_the_time() -> None:
    assert gzip.decompress(base64.b64decode(packed(b"voxels"))) == b"voxels"
    assert packed(b"voxels") == packed(b"voxels")
    assert base64.b64decode(packed(b""))[4:8] == bytes(4)


def test_the_viewers_licence_is_in_the_package() -> None:
    project = Path(__file__).parents[2] / "pyproject.toml"
    assert "Redistributions in binary form" in (ASSETS / "niivue.LICENSE").read_text()
    assert "reports/assets/niivue.LICENSE" in project.read_text()

"""Templates: found on disk without a network, fetched only into a folder that was named."""

from __future__ import annotations

import gzip
import subprocess
import sys
from pathlib import Path

import pytest

from deepmrseg_bids.errors import TemplateError, UsageError
from deepmrseg_bids.imaging import templates
from deepmrseg_bids.imaging.templates import Space, find_template, find_templates, output_spaces

T1W = "tpl-MNI152NLin6Asym_res-{}_T1w.nii.gz"
MASK = "tpl-MNI152NLin6Asym_res-{}_desc-brain_mask.nii.gz"
BRAIN = "tpl-MNI152NLin6Asym_res-{}_desc-brain_T1w.nii.gz"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A TEMPLATEFLOW_HOME of this test; no download leaves this machine."""
    folder = tmp_path / "templates"
    monkeypatch.setenv("TEMPLATEFLOW_HOME", str(folder))
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    return folder


def put(home: Path, *names: str, content: bytes = b"x") -> None:
    for name in names:
        template, _, rest = name.removeprefix("tpl-").partition("_")
        folder = home / f"tpl-{template}"
        if rest.startswith("cohort-"):
            folder /= rest.partition("_")[0]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


@pytest.mark.parametrize(
    ("text", "space"),
    [
        ("T1w", Space("T1w")),
        ("MNI152NLin2009cAsym", Space("MNI152NLin2009cAsym")),
        ("MNI152NLin2009cAsym:res-02", Space("MNI152NLin2009cAsym", None, "2")),
        ("MNIInfant:res-1:cohort-3", Space("MNIInfant", "3", "1")),
    ],
)
def test_a_space_is_read_from_its_text(text: str, space: Space) -> None:
    assert Space.parse(text) == space
    assert Space.parse(str(space)) == space


@pytest.mark.parametrize(
    "text",
    ["", "T1w:res-2", "MNI152Lin:", "MNI152Lin:res", "MNI152Lin:res-native", "MNI152Lin:den-2",
     "MNI152Lin:res-1:res-2", "../x", "MNI152Lin res-2"],
)  # fmt: skip
def test_what_is_no_space_is_a_usage_error(text: str) -> None:
    with pytest.raises(UsageError):
        Space.parse(text)


def test_the_own_space_and_repetitions_are_left_out() -> None:
    assert output_spaces(["T1w", "MNI152Lin", "MNI152Lin:res-2", "MNI152Lin", "T1w"]) == (
        Space("MNI152Lin"),
        Space("MNI152Lin", None, "2"),
    )


def test_a_template_on_disk_is_found_without_importing_templateflow(home: Path) -> None:
    put(home, T1W.format("01"), MASK.format("01"), T1W.format("02"))
    before = set(home.rglob("*"))
    one, two = find_templates(output_spaces(["MNI152NLin6Asym", "MNI152NLin6Asym:res-2"]))
    folder = home / "tpl-MNI152NLin6Asym"
    assert (one.image, one.mask) == (folder / T1W.format("01"), folder / MASK.format("01"))
    assert one.grid == one.image
    assert (two.image, two.mask) == (one.image, one.mask)  # one registration for both
    assert two.grid == folder / T1W.format("02")
    assert set(home.rglob("*")) == before
    assert "templateflow" not in sys.modules


def test_brain_and_mask_are_enough_and_may_lie_on_different_grids(home: Path) -> None:
    put(home, BRAIN.format("01"), MASK.format("02"))
    found = find_template(Space("MNI152NLin6Asym"))
    assert found.image.name == BRAIN.format("01") and found.mask.name == MASK.format("02")


def test_a_cohort_is_a_template_of_its_own(home: Path) -> None:
    stem = "tpl-MNIInfant_cohort-2_res-1_"
    put(home, f"{stem}T1w.nii.gz", f"{stem}desc-brain_mask.nii.gz")
    found = find_template(Space("MNIInfant", "2"))
    assert found.image == home / "tpl-MNIInfant" / "cohort-2" / f"{stem}T1w.nii.gz"
    assert found.space.title == "space-MNIInfant+2"
    with pytest.raises(UsageError, match=r"MNIInfant:cohort-1, MNIInfant:cohort-2"):
        find_template(Space("MNIInfant"))


def test_a_template_of_ones_own_in_the_folder_is_known(home: Path) -> None:
    put(home, "tpl-Ours_T1w.nii.gz", "tpl-Ours_desc-brain_mask.nii.gz")
    assert find_template(Space("Ours")).grid.name == "tpl-Ours_T1w.nii.gz"
    with pytest.raises(UsageError, match="omit the modifier"):
        find_template(Space("Ours", None, "1"))


def test_unknown_names_are_answered_with_those_that_are_known(home: Path) -> None:
    with pytest.raises(UsageError, match=r"MNI152Lin, .*MNI152NLin2009cAsym"):
        find_template(Space("MNI152NLin2009"))
    with pytest.raises(UsageError, match="res-1, res-2"):
        find_template(Space("MNI152NLin2009cAsym", None, "7"))


def test_placeholders_and_broken_links_are_not_templates(home: Path) -> None:
    put(home, T1W.format("01"), content=b"")  # as TemplateFlow leaves what it has not fetched
    link = home / "tpl-MNI152NLin6Asym" / MASK.format("01")
    link.symlink_to("../../.git/annex/objects/nothing")
    with pytest.raises(TemplateError, match="TEMPLATEFLOW_HOME"):
        find_template(Space("MNI152NLin6Asym"), fetch=False)


def test_nothing_is_downloaded_into_the_home_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TEMPLATEFLOW_HOME", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(TemplateError, match=r"MNI152NLin6Asym.*set TEMPLATEFLOW_HOME"):
        find_template(Space("MNI152NLin6Asym"))
    assert list(tmp_path.iterdir()) == []
    put(tmp_path / "templateflow", T1W.format("01"), MASK.format("01"))
    assert find_template(Space("MNI152NLin6Asym")).home == tmp_path / "templateflow"


def downloads(monkeypatch: pytest.MonkeyPatch, content: bytes) -> list[list[str]]:
    """In the place of the process that downloads: one that writes this."""
    commands = []

    def run(command: list[str], *, env: dict[str, str], **_: object) -> object:
        commands.append(command)
        put(Path(env["TEMPLATEFLOW_HOME"]), *command[3:], content=content)
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(templates.subprocess, "run", run)
    return commands


def test_only_what_is_missing_is_fetched_and_enters_the_folder_whole(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(home, T1W.format("01"))
    put(home, MASK.format("01"), content=b"")
    commands = downloads(monkeypatch, gzip.compress(b"voxels", mtime=0))
    found = find_template(Space("MNI152NLin6Asym"))
    assert [command[3:] for command in commands] == [[MASK.format("01")]]
    assert gzip.decompress(found.mask.read_bytes()) == b"voxels"
    assert not list(home.rglob("*.tmp"))


@pytest.mark.parametrize(
    "content",
    [b"", b"<html>", gzip.compress(b"voxels" * 99)[:-20]],
    ids=["empty", "html", "cut off"],  # not the bytes, in which the time of day is
)
def test_a_broken_download_does_not_enter_the_folder(
    home: Path, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    downloads(monkeypatch, content)
    with pytest.raises(TemplateError, match="the file is damaged"):
        find_template(Space("MNI152NLin6Asym"))
    assert not list(home.rglob("*.nii.gz"))


def test_a_download_that_takes_too_long_is_given_up(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(command: list[str], *, timeout: float, **_: object) -> None:
        raise subprocess.TimeoutExpired(command, timeout)

    monkeypatch.setattr(templates.subprocess, "run", run)
    with pytest.raises(TemplateError, match="more than"):
        find_template(Space("MNI152NLin6Asym"))


def test_without_a_network_the_error_names_the_template_and_the_variable(home: Path) -> None:
    with pytest.raises(TemplateError) as caught:  # the real process, and a proxy that is not there
        find_template(Space("MNI152NLin2009cAsym", None, "2"))
    text = str(caught.value)
    assert "MNI152NLin2009cAsym:res-2" in text and "TEMPLATEFLOW_HOME" in text
    assert "cannot be downloaded" in text
    assert not home.exists()

"""Broken files beside an image are told, sound and absent ones are not."""

from __future__ import annotations

from pathlib import Path

import pytest

from deepmrseg_bids.bids.sidecar_check import check_beside


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "sub-01" / "ses-1" / "anat" / "sub-01_ses-1_T1w.nii.gz"
    path.parent.mkdir(parents=True)
    path.touch()
    return path


def test_an_image_alone_is_fine(image: Path) -> None:
    assert check_beside(image) == ()


def test_sound_files_are_fine(image: Path) -> None:
    image.with_name("sub-01_ses-1_T1w.json").write_text('{"EchoTime": 0.003}')
    (image.parents[1] / "sub-01_ses-1_scans.tsv").write_text("filename\tage\na\t1\n")
    (image.parents[2] / "sub-01_sessions.tsv").write_text("session_id\nses-1\n")
    image.with_name("sub-01_ses-1_T2w.json").write_text("{")  # of another image
    assert check_beside(image) == ()


@pytest.mark.parametrize(
    ("content", "told"),
    [(b"{", "not JSON"), (b"[1]", "not a JSON object"), (b"", "not JSON"),
     (b"\xff\xfe{", "not JSON"), (b"[" * 100_000, "nested too deeply"),
     (b" " * (2**24 + 1), "too large")],
)  # fmt: skip
def test_a_broken_sidecar_is_told_with_its_name(image: Path, content: bytes, told: str) -> None:
    image.with_name("sub-01_ses-1_T1w.json").write_bytes(content)
    (found,) = check_beside(image)
    assert (found.code, found.severity) == ("sidecar-unreadable", "warning")
    assert found.message.startswith("sub-01_ses-1_T1w.json cannot be read: ")
    assert told in found.message


@pytest.mark.parametrize(
    ("content", "told"),
    [(b"filename\tage\na\n", "line 2 has 1 cell, the first has 2"), (b"", "empty"),
     (b"a\tb\n\xff\t1\n", "not TSV")],
)  # fmt: skip
@pytest.mark.parametrize("place", [1, 2])
def test_a_broken_table_is_told_with_its_name(
    image: Path, content: bytes, told: str, place: int
) -> None:
    name = {1: "sub-01_ses-1_scans.tsv", 2: "sub-01_sessions.tsv"}[place]
    (image.parents[place] / name).write_bytes(content)
    (found,) = check_beside(image)
    assert name in found.message and told in found.message

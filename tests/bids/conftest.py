"""Data sets of empty files."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

Make = Callable[..., Path]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Make a BIDS tree of empty files; a path that ends with / is a folder."""

    def make(*paths: str, root: str = "raw") -> Path:
        folder = tmp_path / root
        folder.mkdir(parents=True, exist_ok=True)
        description = {"Name": "test", "BIDSVersion": "1.10.0"}
        (folder / "dataset_description.json").write_text(json.dumps(description))
        for path in paths:
            target = folder / path
            if path.endswith("/"):
                target.mkdir(parents=True)
            else:
                target.parent.mkdir(parents=True, exist_ok=True)
                target.touch()
        return folder

    return make


def image(name: str) -> str:
    """The place of an image in a data set, by its name."""
    return "/".join([part for part in name.split("_") if part[:4] in ("sub-", "ses-")]) + (
        f"/anat/{name}"
    )

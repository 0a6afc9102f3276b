"""Small studies of tiny heads, and the real command on them: what users meet, made by code."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.integration.conftest import add_scan, make_dataset, read_tsv
from tests.tiny import tiny_head
from tests.warm import Ended, warm_run

FAST = ("--tasks", "brain", "--nprocs", "1")


@dataclass(frozen=True)
class Study:
    """A raw data set, an OUT_DIR and a model in one folder.

    Attributes:
        model: of the task ``brain``; takes milliseconds.
    """

    folder: Path
    model: Path

    @property
    def raw(self) -> Path:
        return self.folder / "raw"

    @property
    def out(self) -> Path:
        return self.folder / "out"

    def run(
        self,
        *flags: object,
        raw: object = None,
        out: object = None,
        level: str = "participant",
        tasks: Sequence[object] = FAST,
        folder: Path | None = None,
    ) -> Ended:
        """Run ``deepmrseg-bids`` to its end."""
        words = [self.raw if raw is None else raw, self.out if out is None else out, level]
        more = [*tasks, "--model", f"brain={self.model}"] if level == "participant" else []
        return warm_run([*words, *more, *flags], folder=folder)

    @property
    def rows(self) -> dict[str, tuple[str, str]]:
        """Status and reason by session (and task, if it is not ``brain``)."""
        found = {}
        for row in read_tsv(self.out / "logs" / "sessions.tsv"):
            who = row["participant_id"]
            who += "" if row["session_id"] == "n/a" else f" {row['session_id']}"
            who += "" if row["task"] == "brain" else f" {row['task']}"
            found[who] = (row["status"], "" if row["reason"] == "n/a" else row["reason"])
        return found

    def page(self, subject: str = "01") -> str:
        return (self.out / f"sub-{subject}.html").read_text(encoding="utf-8")


def content(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, links as what they point to."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def write_tree(folder: Path, files: dict[str, object]) -> Path:
    """Files from texts, or from objects as JSON."""
    for name, value in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(value if isinstance(value, str) else json.dumps(value))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def heads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four T1w of different heads, to be copied into data sets."""
    folder = tmp_path_factory.mktemp("heads")
    root = make_dataset(folder / "bids")
    for number in range(1, 5):
        add_scan(root, f"sub-{number:02d}_T1w", tiny_head(number))
    return root


@pytest.fixture(scope="session")
def scan(heads: Path) -> Callable[[int], Path]:
    """The file of one of the heads, counted from 1."""
    return lambda number: heads / f"sub-{number:02d}/anat/sub-{number:02d}_T1w.nii.gz"


def fill(root: Path, scan: Callable[[int], Path], *names: str, first: int = 1) -> Path:
    """A raw data set with one head for each name, ``sub-01_ses-1_T1w`` for example."""
    make_dataset(root)
    for number, name in enumerate(names):
        source = scan((first + number - 1) % 4 + 1)
        add_scan(root, name, source.read_bytes())
    return root


@pytest.fixture(scope="session")
def finished_once(
    scan: Callable[[int], Path], tiny_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> Study:
    """Two people with two visits each, all of them done."""
    study = Study(tmp_path_factory.mktemp("finished"), tiny_model)
    names = [f"sub-{who}_ses-{visit}_T1w" for who in ("01", "02") for visit in (1, 2)]
    fill(study.raw, scan, *names)
    ended = study.run()
    assert ended.code == 0, ended.err
    return study


@pytest.fixture
def finished(finished_once: Study, tmp_path: Path) -> Study:
    """A copy of a study that is done, with the times of its files."""
    shutil.copytree(finished_once.folder, tmp_path / "study", symlinks=True)
    return Study(tmp_path / "study", finished_once.model)

"""What is done again, told from the outputs: what was made otherwise, and nothing else."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import pytest

from deepmrseg_bids.inference.bundle import ModelBundle, NewBundle
from tests.robustness.conftest import Nursery, rows
from tests.tiny import tiny_head

PEOPLE = ("01", "02", "03")


def words(place: Path, *flags: object) -> list[object]:
    raw, out, model = place / "bids", place / "out", place / "model"
    asked = [raw, out, "participant", "--tasks", "brain", "--nprocs", "2", *flags]
    return [*asked, "--model", f"brain={model}"]


@pytest.fixture(scope="module")
def first(
    tiny_data: Path,
    tiny_model: Path,
    nursery: Nursery,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """A small data set, a model, and what a first run made of them."""
    place = tmp_path_factory.mktemp("first")
    for person in PEOPLE:
        shutil.copytree(tiny_data / f"sub-{person}", place / "bids" / f"sub-{person}")
    shutil.copy(tiny_data / "dataset_description.json", place / "bids")
    shutil.copytree(tiny_model, place / "model")
    nursery.run(words(place), until=None)
    return place


@pytest.fixture
def again(first: Path, nursery: Nursery, tmp_path: Path) -> Callable[..., set[str]]:
    """Run a small data set once more; returns the people of whom anything was written anew.

    Each run has a work folder of its own, and the outputs of the one before.
    """
    place = tmp_path / "place"
    shutil.copytree(first, place)  # with the times of the files
    raw, out, model = place / "bids", place / "out", place / "model"

    def times() -> dict[Path, int]:
        found = [*out.glob("sub-*/anat/*"), *out.glob("sub-*.html")]
        return {path: path.stat().st_mtime_ns for path in found}

    def run(*flags: object) -> set[str]:
        before = times()
        nursery.run(words(place, *flags), until=None)
        changed = {path for path, time in times().items() if before.get(path) != time}
        return {path.relative_to(out).parts[0].removesuffix(".html")[4:] for path in changed}

    run.raw, run.out, run.model = raw, out, model  # type: ignore[attr-defined]
    return run


def test_what_is_finished_is_not_done_again(again: Callable[..., set[str]]) -> None:
    assert again() == set()
    told = rows(again.out)  # type: ignore[attr-defined]
    assert {person: row["status"] for person, row in told.items()} == {
        f"sub-{person}": "resumed" for person in PEOPLE
    }


def test_a_changed_scan_is_done_again_and_no_other(again: Callable[..., set[str]]) -> None:
    path = again.raw / "sub-02/anat/sub-02_T1w.nii.gz"  # type: ignore[attr-defined]
    nib.save(tiny_head(99), path)
    assert again() == {"02"}
    assert again() == set()


def test_a_scan_that_was_only_touched_is_not(again: Callable[..., set[str]]) -> None:
    (again.raw / "sub-02/anat/sub-02_T1w.nii.gz").touch()  # type: ignore[attr-defined]
    assert again() == set()


def test_other_weights_do_everything_again(again: Callable[..., set[str]]) -> None:
    path = again.model  # type: ignore[attr-defined]
    bundle = ModelBundle.open(path)
    state = bundle.load().state_dict()
    state["head.bias"] += 0.01
    NewBundle( task="brain", network=bundle.network, preparation=bundle.preparation,
        labels=bundle.labels, state=state, version="tiny", settings="", card="", facts={},
    ).write(path)  # fmt: skip
    assert again() == set(PEOPLE)
    assert again() == set()


def test_another_parameter_does_everything_again(again: Callable[..., set[str]]) -> None:
    assert again("--tta") == set(PEOPLE)
    assert again("--tta") == set()


def test_what_another_version_has_made_is_done_again(again: Callable[..., set[str]]) -> None:
    [path] = again.out.glob("sub-03/anat/*_desc-brain_mask.json")  # type: ignore[attr-defined]
    tree = json.loads(path.read_text())
    tree["Software"]["deepmrseg-bids"] = "0.0.1"
    path.write_text(json.dumps(tree))
    assert again() == {"03"}


def test_a_page_that_is_gone_is_all_that_is_written(again: Callable[..., set[str]]) -> None:
    results = list(again.out.glob("sub-*/anat/*"))  # type: ignore[attr-defined]
    before = [path.stat().st_mtime_ns for path in results]
    (again.out / "sub-01.html").unlink()  # type: ignore[attr-defined]
    assert again() == {"01"}
    assert [path.stat().st_mtime_ns for path in results] == before

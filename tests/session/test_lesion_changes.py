"""Tables of lesions against the session before: which sessions, when again, and in the page."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from deepmrseg_bids.bids.derivatives import write_dataset_files
from deepmrseg_bids.bids.tables import read_changes
from deepmrseg_bids.errors import RegistrationError
from deepmrseg_bids.imaging.grid import Grid
from deepmrseg_bids.imaging.nifti import LabelMap, write_labels
from deepmrseg_bids.imaging.registration import Quality, RigidFit
from deepmrseg_bids.reports.subject.lesion_changes import lesion_changes
from deepmrseg_bids.session import lesion_changes as module
from deepmrseg_bids.session.job import SessionOutcome, TaskOutcome
from deepmrseg_bids.session.lesion_changes import visit_pairs, write_lesion_changes
from deepmrseg_bids.tasks.registry import find_task

GRID = Grid((20, 20, 10), np.diag([2.0, 2.0, 3.0, 1.0]))
TABLE = "sub-01/ses-{0}/anat/sub-01_ses-{0}_seg-wml_change.tsv"


class Study:
    """A subject with a FLAIR and a lesion map for each session."""

    def __init__(self, folder: Path, *sessions: str) -> None:
        self.raw, self.out = folder / "raw", folder / "out"
        tables = {"wml": find_task("wml").table or _label_table()}
        write_dataset_files(
            self.out, self.raw, tasks=[find_task("wml")], tables=tables, version="1"
        )
        self.outcomes = [self.session(label, number) for number, label in enumerate(sessions)]

    def session(self, label: str, lesions: int) -> SessionOutcome:
        stem = f"sub-01/ses-{label}/anat/sub-01_ses-{label}"
        flair = self.raw / f"{stem}_FLAIR.nii.gz"
        flair.parent.mkdir(parents=True, exist_ok=True)
        grey = np.indices(GRID.shape)[0] + 9 + lesions
        write_labels(flair, LabelMap(grey.astype(np.uint8), GRID))
        self.mark(label, lesions)
        task = TaskOutcome("wml", "done", files=(f"{stem}_space-FLAIR_seg-wml_dseg.nii.gz",))
        return SessionOutcome("01", label, {"FLAIR": str(flair)}, (task,))

    def mark(self, label: str, lesions: int) -> None:
        data = np.zeros(GRID.shape, np.uint8)
        for number in range(lesions + 1):
            data[4 * number : 4 * number + 2, 4:7, 4:6] = 1
        path = (
            self.out / f"sub-01/ses-{label}/anat/sub-01_ses-{label}_space-FLAIR_seg-wml_dseg.nii.gz"
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        write_labels(path, LabelMap(data, GRID))

    def table(self, label: str) -> Path:
        return self.out / TABLE.format(label)

    def write(self) -> list[str]:
        return [str(path) for path in write_lesion_changes(self.outcomes, self.out)]


def _label_table():
    from deepmrseg_bids.inference.bundle import ModelBundle

    return ModelBundle.shipped("wml").labels


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every two scans lie on each other; the sessions that were moved."""
    asked: list[str] = []

    def register(moving, fixed, *, mask=None):
        asked.append(Path(moving.source).parent.parent.name)
        return RigidFit(np.eye(4), Quality(0.9, 0.4, edges=0.9), Quality(0.9, 0.4, edges=0.9))

    monkeypatch.setattr(module, "register_rigid", register)
    return asked


def test_each_session_is_compared_with_the_one_before(tmp_path, registered):
    study = Study(tmp_path, "1", "2", "10")
    assert study.write() == [TABLE.format("2"), TABLE.format("10")]
    assert registered == ["ses-1", "ses-2"]  # the earlier one moves
    assert [one.status for one in read_changes(study.table("2"))] == ["unchanged", "new"]
    tree = json.loads(study.table("10").with_suffix(".json").read_text())
    assert tree["Before"] == "ses-2" and tree["Totals"]["new"]["Count"] == 1
    assert set(tree["InputSHA256"]) == {
        f"bids:{where}:sub-01/ses-{label}/anat/sub-01_ses-{label}_{what}.nii.gz"
        for label in ("2", "10")
        for where, what in (("raw", "FLAIR"), ("", "space-FLAIR_seg-wml_dseg"))
    }
    assert "*_change.*" in (study.out / ".bidsignore").read_text()


def test_tables_are_made_again_only_when_a_map_or_scan_changed(tmp_path, registered):
    study = Study(tmp_path, "1", "2")
    study.write()
    study.write()
    assert len(registered) == 1
    study.mark("2", 3)
    study.write()
    assert len(registered) == 2
    assert [one.status for one in read_changes(study.table("2"))].count("new") == 3


def test_without_a_known_order_nothing_is_called_new(tmp_path, registered):
    study = Study(tmp_path, "pre", "post")
    assert study.write() == [] and registered == []
    assert not study.table("pre").exists() and not study.table("post").exists()


def test_only_sessions_with_lesions_are_compared(tmp_path, registered):
    study = Study(tmp_path, "1", "2", "3")
    failed = replace(study.outcomes[1].tasks[0], status="failed")
    study.outcomes[1] = replace(study.outcomes[1], tasks=(failed,))
    assert study.write() == [TABLE.format("3")]
    assert json.loads(study.table("3").with_suffix(".json").read_text())["Before"] == "ses-1"


@pytest.mark.parametrize("case", ["error", "other head"])
def test_scans_that_do_not_lie_on_each_other_cost_the_table_alone(
    tmp_path, monkeypatch, caplog, case
):
    def register(*_, **__):
        if case == "error":
            raise RegistrationError("they do not overlap")
        return RigidFit(np.eye(4), Quality(0.1, 0.1, edges=0.3), Quality(0.1, 0.1, edges=0.3))

    monkeypatch.setattr(module, "register_rigid", register)
    study = Study(tmp_path, "1", "2")
    assert study.write() == [] and not study.table("2").exists()
    assert "not compared with ses-1" in caplog.text


def test_a_table_of_somebody_else_is_kept(tmp_path, registered, caplog):
    study = Study(tmp_path, "1", "2")
    study.table("2").write_text("mine\n")
    assert study.write() == [] and study.table("2").read_text() == "mine\n"
    assert "not from deepmrseg-bids" in caplog.text


def test_the_page_sums_up_the_pair_and_lists_what_changed(tmp_path, registered):
    study = Study(tmp_path, "1", "2")
    study.write()
    (shown,) = lesion_changes(visit_pairs(study.outcomes, study.out), study.out)
    totals = {one.name: (one.count, one.change) for one in shown.totals}
    assert totals["new"] == (1, "+0.14") and totals["unchanged"] == (1, "+0.00")
    assert totals["all"] == (2, "+0.14") and totals["gone"][0] == 0
    assert [row.status for row in shown.rows] == ["new"]
    assert (shown.before, shown.after) == ("1", "2")
    newer = Study(tmp_path, "1", "1b", "2")  # of other pairs than the table
    newer.outcomes = [newer.outcomes[0], newer.outcomes[2]]
    sidecar = study.table("2").with_suffix(".json")
    sidecar.write_text(sidecar.read_text().replace('"ses-1"', '"ses-0"'))
    assert lesion_changes(visit_pairs(study.outcomes, study.out), study.out) == []

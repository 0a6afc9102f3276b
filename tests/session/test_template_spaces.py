"""Output spaces of one session: files, what is made again, and what a failure leaves."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import ants
import nibabel as nib
import numpy as np
import pytest

from deepmrseg_bids.bids.provenance import Digests
from deepmrseg_bids.errors import RegistrationError, SegmentationError
from deepmrseg_bids.imaging.grid import Grid
from deepmrseg_bids.imaging.labels import Label, LabelTable
from deepmrseg_bids.imaging.nifti import LabelMap
from deepmrseg_bids.imaging.registration import Quality, TemplateFit
from deepmrseg_bids.imaging.templates import Template, find_templates, output_spaces
from deepmrseg_bids.session import segment, template_spaces
from deepmrseg_bids.session.job import SessionJob, SessionOutcome, outcome_from_json
from deepmrseg_bids.session.resume import FinishedWork
from deepmrseg_bids.session.segment import segment_session
from deepmrseg_bids.session.template_spaces import space_jobs
from deepmrseg_bids.tasks.results import Posteriors, Segmentation
from tests.integration.conftest import add_scan, coarse, coarse_brain, make_dataset, make_templates
from tests.session.conftest import Pool, bundle_of
from tests.support import images_of

TABLE = LabelTable((Label(3, "Left-Half"), Label(7, "Right-Half")))
STEM = "sub-01/anat/sub-01"
XFM = f"{STEM}_from-T1w_to-Average_mode-image_xfm.h5"


BUNDLES = {task: bundle_of(task, TABLE) for task in ("brain", "icv", "outline", "deepbrain")}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The average at 4 mm, in another place, as a scan; and as a template."""
    root = tmp_path_factory.mktemp("place")
    image = coarse(4)
    shift = np.eye(4)
    shift[:3, 3] = (7, -15, 22)
    add_scan(make_dataset(root / "bids"), "sub-01_T1w",
             nib.Nifti1Image(image.dataobj, shift @ image.affine))  # fmt: skip
    make_templates(root / "templates")
    return root


def results(place: Path) -> dict[str, Segmentation]:
    """The brain, and its halves as two structures."""
    affine = nib.load(place / "bids/sub-01/anat/sub-01_T1w.nii.gz").affine
    inside = (np.asarray(coarse_brain(4).dataobj) > 0).astype(np.float32)
    grid = Grid(inside.shape, affine)
    left = (np.arange(inside.shape[0]) < inside.shape[0] // 2).astype(np.float32)[:, None, None]
    shares = {"brain": [1 - inside, inside],
              "deepbrain": [1 - inside, inside * left, inside * (1 - left)]}  # fmt: skip
    indices = {"brain": (0, 1), "deepbrain": (0, 3, 7)}
    return {
        task: Segmentation(
            task,
            LabelMap(np.array(indices[task], np.uint8)[np.stack(parts).argmax(0)], grid),
            TABLE,
            (),
            (Posteriors(np.stack(parts), grid, indices[task]),),
        )
        for task, parts in shares.items()
    }


@pytest.fixture
def session(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[SessionOutcome, SessionJob]]:
    """Do what is left of one session, with made-up networks; its outcome and its job."""
    monkeypatch.setenv("TEMPLATEFLOW_HOME", str(place / "templates"))
    monkeypatch.setattr(segment, "prepare_process", lambda: None)
    monkeypatch.setattr(segment, "_pool", lambda *_: Pool(TABLE))
    found: dict[str, object] = dict(results(place))

    def run(asked: str, **changes: object) -> tuple[SessionOutcome, SessionJob]:
        given = {**found, **changes.pop("results", {})}
        monkeypatch.setattr(
            segment, "run", lambda _, tasks, __, **___: ((t.name, given[t.name]) for t in tasks)
        )
        digests = Digests.read(tmp_path / "inputs.tsv")
        tasks = ("deepbrain",)
        templates = find_templates(output_spaces(asked.split()))
        job = SessionJob(
            "01", None, place / "bids", images_of(place / "bids/sub-01/anat/sub-01_T1w.nii.gz"),
            tasks,
            spaces=tuple(replace(one, tasks=tasks) for one in space_jobs(templates, digests)),
        )  # fmt: skip
        job = replace(job, **changes)
        if not job.force:
            work = FinishedWork(tmp_path / "out", BUNDLES, digests)
            finished = work.tasks(job)
            left, made = work.spaces(job)
            job = replace(job, spaces=left, finished_spaces=made, finished=finished,
                          tasks=() if finished else tasks)  # fmt: skip
        outcome = segment_session(
            job, tmp_path / "out", work=tmp_path / "work", record=tmp_path / "record.json"
        )
        assert outcome_from_json(outcome.to_json()) == outcome
        return outcome, job

    return run


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """In the place of the registration: files that say nothing, and the true points."""
    calls: list[str] = []

    def register(volume: object, *_: object, folder: Path) -> TemplateFit:
        calls.append("registered")
        for name in ("a.h5", "b.h5"):
            (folder / name).write_bytes(b"transform")
        return TemplateFit(folder / "a.h5", folder / "b.h5", Quality(0.9, 0.3, 0.95))

    def points(_: Path, grid: Grid) -> np.ndarray:
        voxels = np.indices(grid.shape).reshape(3, -1).T
        moved = grid.to_world(voxels) + np.array([7.0, -15.0, 22.0])
        return moved.T.reshape(3, *grid.shape)

    monkeypatch.setattr(template_spaces, "register_to_template", register)
    monkeypatch.setattr(template_spaces, "carry_points", points)
    return calls


def files(root: Path) -> dict[str, int]:
    out = root / "out"
    return {str(p.relative_to(out)): p.stat().st_mtime_ns for p in out.rglob("*") if p.is_file()}


def dice(one: np.ndarray, other: np.ndarray) -> float:
    return 2 * (one & other).sum() / (one.sum() + other.sum())


def test_labels_arrive_where_the_template_has_them(
    session: Callable[..., tuple[SessionOutcome, SessionJob]], place: Path, tmp_path: Path
) -> None:
    """With the real registration, from a scan that lies elsewhere."""
    outcome, _ = session("Average Average:res-2")
    assert [(one.task, one.status) for one in outcome.spaces] == [
        ("space-Average", "done"),
        ("space-Average_res-2", "done"),
    ]
    found = nib.load(tmp_path / "out" / f"{STEM}_space-Average_seg-deepbrain_dseg.nii.gz")
    template = nib.load(place / "templates/tpl-Average/tpl-Average_res-01_T1w.nii.gz")
    data, brain = np.asarray(found.dataobj), np.asarray(coarse_brain(4).dataobj) > 0
    assert data.shape == template.shape and np.allclose(found.affine, template.affine)
    assert (int(found.header["sform_code"]), int(found.header["qform_code"])) == (5, 5)
    read = [ants.image_read(str(path)) for path in (found.get_filename(), template.get_filename())]
    assert ants.image_physical_space_consistency(*read)
    back, forth = (
        ants.read_transform(str(tmp_path / "out" / f"{STEM}_{way}_mode-image_xfm.h5"))
        for way in ("from-Average_to-T1w", "from-T1w_to-Average")
    )
    point = (10.0, -12.0, 8.0)
    assert np.allclose(back.apply_to_point(forth.apply_to_point(point)), point, atol=1.5)
    left = np.broadcast_to(np.arange(len(data))[:, None, None] < len(data) // 2, data.shape)
    assert dice(data == 3, brain & left) > 0.95
    assert dice(data == 7, brain & ~left) > 0.95
    coarser = nib.load(tmp_path / "out" / f"{STEM}_space-Average_seg-deepbrain_res-2_dseg.nii.gz")
    assert coarser.header.get_zooms() == (6, 6, 6)
    assert 0.9 < (np.asarray(coarser.dataobj) > 0).sum() * 216 / (brain.sum() * 64) < 1.1


@pytest.mark.parametrize(("space", "code"), [("MNI152NLin6Asym", 4), ("OASIS30ANTs", 5)])
def test_a_label_map_in_template_space_has_the_code_of_that_space(space: str, code: int) -> None:
    grid = template_spaces._in_space(Grid((3, 4, 5), np.eye(4)), space)
    assert grid.forms is not None
    assert (grid.forms.sform_code, grid.forms.qform_code) == (code, code)


def test_the_files_are_those_of_the_contract_and_each_has_its_sidecar(
    session: Callable[..., tuple[SessionOutcome, SessionJob]], quick: list[str], tmp_path: Path
) -> None:
    outcome, _ = session("T1w Average Average:res-2")
    expected = {
        f"{STEM}_{ending}"
        for ending in (
            "space-Average_seg-deepbrain_dseg.nii.gz",
            "space-Average_seg-deepbrain_res-2_dseg.nii.gz",
            "from-T1w_to-Average_mode-image_xfm.h5",
            "from-Average_to-T1w_mode-image_xfm.h5",
        )
    }
    written = {name for one in outcome.spaces for name in one.files}
    assert {name for name in written if not name.endswith(".json")} == expected
    assert written <= set(files(tmp_path))
    for name in expected:
        tree = json.loads((tmp_path / "out" / name.replace(".nii.gz", ".json")
                           .replace(".h5", ".json")).read_text())  # fmt: skip
        assert tree["RegistrationQuality"]["Correlation"] == 0.9
        assert tree["Software"]["antspyx"] and tree["Parameters"]["Registration"]
    assert quick == ["registered"]  # once for both grids


def test_only_what_is_missing_is_made(
    session: Callable[..., tuple[SessionOutcome, SessionJob]], quick: list[str], tmp_path: Path
) -> None:
    session("Average")
    before = files(tmp_path)
    outcome, job = session("Average")
    assert not job.busy and files(tmp_path) == before
    assert [one.status for one in outcome.spaces] == ["resumed"]
    session("Average:res-2 Average")
    after = files(tmp_path)
    assert {name: after[name] for name in before} == before
    assert len(after) == len(before) + 2
    (tmp_path / "out" / XFM).unlink()
    _, job = session("Average")
    assert job.spaces[0].tasks == () and (tmp_path / "out" / XFM).exists()
    assert quick == ["registered"] * 2


def test_a_changed_template_and_force_make_it_again(
    session: Callable[..., tuple[SessionOutcome, SessionJob]],
    quick: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    session("Average")
    session("Average Average:res-2", force=True)
    assert len(quick) == 2
    monkeypatch.setattr(template_spaces, "METHOD", {"Type": "another"})
    outcome, _ = session("Average")
    assert len(quick) == 3
    assert outcome.spaces[0].status == "done" and outcome.tasks[0].status == "resumed"


def test_a_failed_registration_costs_the_space_alone(
    session: Callable[..., tuple[SessionOutcome, SessionJob]],
    quick: list[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RegistrationError("correlation 0.12")

    monkeypatch.setattr(template_spaces, "register_to_template", fail)
    outcome, _ = session("Average")
    assert [one.status for one in outcome.tasks] == ["done"]
    assert [(one.status, one.reason) for one in outcome.spaces] == [("failed", "correlation 0.12")]
    assert not any("space-" in name or "xfm" in name for name in files(tmp_path))
    assert quick == []


@pytest.mark.parametrize(("task", "says"), [("brain", "no brain"), ("deepbrain", "no result of")])
def test_without_a_result_there_is_nothing_to_carry_over(
    session: Callable[..., tuple[SessionOutcome, SessionJob]],
    quick: list[str],
    task: str,
    says: str,
) -> None:
    outcome, _ = session(
        "Average", results={task: SegmentationError("the image contains no brain")}
    )
    assert outcome.spaces[0].status == "failed" and says in outcome.spaces[0].reason


def test_a_template_has_checksums_by_uri(place: Path, tmp_path: Path) -> None:
    folder = place / "templates" / "tpl-Average"
    image, mask = (
        folder / f"tpl-Average_res-01_{end}.nii.gz" for end in ("T1w", "desc-brain_mask")
    )
    space = output_spaces(["Average"])[0]
    job = space_jobs(
        [Template(space, place / "templates", image, mask, image)], Digests(tmp_path / "x.tsv")
    )[0]
    assert [uri for uri, _ in job.inputs] == [
        f"bids:templateflow:tpl-Average/{path.name}" for path in (image, mask, image)
    ]
    assert all(len(digest) == 64 for _, digest in job.inputs)

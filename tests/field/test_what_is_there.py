"""What is in OUT_DIR is what is reported: done earlier, excluded, gone, lost, damaged, edited."""

from __future__ import annotations

import gzip
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from deepmrseg_bids.session.inventory import Inventory
from deepmrseg_bids.tasks.registry import find_task
from tests.field.conftest import Study, content, fill
from tests.integration.conftest import add_scan, read_tsv
from tests.tiny import tiny_head

ALL = ["sub-01 ses-1", "sub-01 ses-2", "sub-02 ses-1", "sub-02 ses-2"]


def on_page(page: str) -> dict[str, str]:
    """The status of each session in the summary of a page."""
    table = page.split("Task status.")[1].split("</table>")[0]
    rows = re.findall(r"Session (\w+)</a></th>(.*?)</tr>", table, re.DOTALL)
    return {label: " ".join(re.sub("<[^>]+>", " ", cells).split()) for label, cells in rows}


def pictures(page: str) -> int:
    """The results that are shown: nine slices of each of three planes."""
    slices = page.count('class="over"')
    assert slices % 27 == 0
    return slices // 27


def anat(study: Study, subject: str = "01", session: str = "1") -> Path:
    return study.out / f"sub-{subject}/ses-{session}/anat"


def named(study: Study, ending: str, subject: str = "01", session: str = "1") -> Path:
    return anat(study, subject, session) / f"sub-{subject}_ses-{session}_{ending}"


def results(study: Study) -> dict[str, bytes]:
    return {name: data for name, data in content(study.out).items() if "/anat/" in name}


# -- excluded ------------------------------------------------------------------------------


def filter_file(study: Study, **entities: object) -> Path:
    path = study.folder / "filter.json"
    path.write_text(json.dumps({"t1w": entities}))
    return path


@pytest.mark.robustness("a second run with labels or filters", tried="all sessions done; then only "
                        "session 1 again, by label and by filter, with --force")  # fmt: skip
def test_a_filtered_run_keeps_the_truth_about_the_rest(
    finished: Study, came_out: Callable[[str], None]
) -> None:
    rows = finished.rows
    for flags in (
        ("--session-label", "1"),
        ("--bids-filter-file", filter_file(finished, session="1")),
    ):
        ended = finished.run("--participant-label", "01", "--force", *flags)
        assert ended.code == 0, ended
        shown = on_page(finished.page())
        assert shown["1"].startswith("done") and shown["2"].startswith("resumed"), shown
        assert pictures(finished.page()) == 2
        assert set(finished.rows) == set(ALL)
        assert all(status in ("done", "resumed") for status, _ in finished.rows.values())
    ended = finished.run("--session-label", "1")
    assert ended.code == 0
    assert finished.rows["sub-02 ses-2"] == rows["sub-02 ses-2"]
    came_out("exit code 0; both sessions are on the page with pictures and done or resumed in "
             "sessions.tsv")  # fmt: skip


def test_a_filter_that_excludes_a_finished_session_says_so_and_loses_nothing(
    finished: Study,
) -> None:
    before = results(finished)
    ended = finished.run("--bids-filter-file", filter_file(finished, session="1"))
    assert ended.code == 0, ended
    status, reason = finished.rows["sub-01 ses-2"]
    assert status == "resumed" and "completed by an earlier run" in reason
    assert "--bids-filter-file" in reason
    assert results(finished) == before
    assert pictures(finished.page()) == 2
    assert finished.run().code == 0  # without the filter all is as before
    assert finished.rows["sub-01 ses-2"] == ("resumed", "")


# -- the image has gone --------------------------------------------------------------------


def remove(path: Path) -> None:
    path.unlink()


def break_link(path: Path) -> None:
    path.unlink()
    path.symlink_to("../../.git/annex/objects/x")


def leave_pointer(path: Path) -> None:
    path.write_text("/annex/objects/MD5E-s1--0.nii.gz\n")


def remove_session(path: Path) -> None:
    shutil.rmtree(path.parents[1])


def remove_subject(path: Path) -> None:
    shutil.rmtree(path.parents[2])


@pytest.mark.parametrize("go", [remove, break_link, leave_pointer, remove_session, remove_subject])
def test_a_result_whose_image_has_gone_stays_done(
    finished: Study, go: Callable[[Path], None]
) -> None:
    before = results(finished)
    go(finished.raw / "sub-01/ses-2/anat/sub-01_ses-2_T1w.nii.gz")
    ended = finished.run()
    assert ended.code == 0, ended
    status, reason = finished.rows["sub-01 ses-2"]
    assert status == "resumed" and reason.startswith("completed by an earlier run; "), reason
    assert f"sub-01 ses-2: brain: {reason}" in ended.err
    assert results(finished) == before
    assert on_page(finished.page())["2"].startswith("resumed")
    assert pictures(finished.page()) == 2  # contours without the scan
    if go is remove:
        page = finished.page()
        assert finished.run().code == 0
        assert finished.page() == page  # said once is enough
        assert finished.run("--reports-only").code == 0


def test_an_image_that_was_replaced_by_a_broken_one_fails_and_says_what_is_kept(
    finished: Study,
) -> None:
    path = finished.raw / "sub-01/ses-2/anat/sub-01_ses-2_T1w.nii.gz"
    path.write_bytes(path.read_bytes()[:20000])
    assert finished.run().code == 3
    status, reason = finished.rows["sub-01 ses-2"]
    assert status == "failed" and "truncated" in reason and "is kept" in reason


# -- lost and damaged ----------------------------------------------------------------------


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


def garbage(path: Path) -> None:
    size, times = path.stat().st_size, path.stat()
    path.write_bytes(bytes(range(256)) * (size // 256 + 1))
    os.truncate(path, size)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns + 1))


def empty(path: Path) -> None:
    path.write_bytes(b"")


FILES = ("desc-brain_mask.nii.gz", "desc-brain_mask.json", "seg-brain_morph.tsv",
         "seg-brain_morph.json")  # fmt: skip
HARMS = [(harm, name) for name in FILES for harm in (remove, cut, garbage, empty)]


@pytest.fixture(scope="module")
def harmed(finished_once: Study, tmp_path_factory: pytest.TempPathFactory) -> Study:
    """A study whose OUT_DIR may be changed: :func:`mended` puts it back."""
    folder = tmp_path_factory.mktemp("harmed") / "study"
    shutil.copytree(finished_once.folder, folder)
    return Study(folder, finished_once.model)


@pytest.fixture
def mended(harmed: Study) -> Study:
    """The same, as the first run left it."""
    kept = harmed.folder / "kept"
    if not kept.exists():
        shutil.copytree(harmed.out, kept)
    shutil.rmtree(harmed.out)
    shutil.copytree(kept, harmed.out)
    return harmed


@pytest.mark.parametrize(("harm", "name"), HARMS)
def test_what_is_lost_or_damaged_is_known(
    mended: Study, harm: Callable[[Path], None], name: str
) -> None:
    specs = {"brain": find_task("brain")}

    def flaw() -> str:
        found = Inventory.of(mended.out, mended.raw, specs).find("01", "1", "brain")
        assert found is not None
        return found.flaw

    assert flaw() == ""
    harm(named(mended, name))
    assert flaw().startswith("lost: " if harm is remove else "damaged: ")
    (mended.out / "logs" / "outputs.tsv").unlink()  # only costs time
    assert flaw().startswith("lost: " if harm is remove else "damaged: ")


@pytest.mark.robustness("a result that was deleted, cut or overwritten", tried="label maps, tables "
                        "and sidecars: deleted, cut, filled with garbage, emptied; then "
                        "--reports-only and an ordinary run")  # fmt: skip
def test_lost_and_damaged_results_are_reported_and_made_again(
    finished: Study, came_out: Callable[[str], None]
) -> None:
    before = results(finished)
    remove(named(finished, FILES[0]))
    cut(named(finished, FILES[2], session="2"))
    garbage(named(finished, FILES[0], "02"))
    remove(named(finished, FILES[1], "02", "2"))
    ended = finished.run("--reports-only")
    assert ended.code == 4, ended  # nothing is left that can be shown
    assert {status for status, _ in finished.rows.values()} == {"failed"}
    reasons = [reason for _, reason in finished.rows.values()]
    assert [reason.partition(":")[0] for reason in reasons] == [
        "lost", "damaged", "damaged", "lost"
    ]  # fmt: skip
    for who, (_, reason) in finished.rows.items():
        assert f"{who}: brain failed: {reason}" in ended.err
    assert on_page(finished.page())["1"].startswith("failed lost: ")
    assert "  problem: sub-01 ses-1: Brain failed: lost" in ended.err  # by its title
    ended = finished.run()
    assert ended.code == 0, ended
    assert "damaged: sub-01_ses-2_seg-brain_morph.tsv" in ended.err and "repeated" in ended.err
    assert results(finished) == before
    assert {status for status, _ in finished.rows.values()} == {"done"}
    came_out("--reports-only: failed, the reason names the file (lost, damaged); ordinary run: "
             "exit code 0, made again, byte-identical")  # fmt: skip


def test_a_session_whose_folder_was_deleted_is_lost_and_then_done_again(finished: Study) -> None:
    shutil.rmtree(finished.out / "sub-01/ses-1")
    assert finished.run("--reports-only").code == 3
    status, reason = finished.rows["sub-01 ses-1"]
    assert status == "failed" and reason.startswith("lost: ")
    # not asked for, and lost all the same
    assert finished.run("--session-label", "2").code == 3
    assert finished.run().code == 0
    assert finished.rows["sub-01 ses-1"] == ("done", "")


def test_what_is_lost_and_cannot_be_made_again_is_failed(finished: Study) -> None:
    cut(named(finished, FILES[0]))
    remove(finished.raw / "sub-01/ses-1/anat/sub-01_ses-1_T1w.nii.gz")
    assert finished.run().code == 3
    status, reason = finished.rows["sub-01 ses-1"]
    assert status == "failed" and "damaged" in reason and "cannot be repeated" in reason


def test_of_two_images_of_a_session_all_tables_and_the_page_are_about_one(
    scan: Callable[[int], Path], tiny_model: Path, tmp_path: Path
) -> None:
    study = Study(tmp_path, tiny_model)
    fill(study.raw, scan, "sub-01_run-2_T1w", "sub-01_run-10_T1w")
    for number, filters in enumerate(((), ("--bids-filter-file", filter_file(study, run=10)), ())):
        ended = study.run(*filters)
        assert ended.code == 0, ended
        used, other = ("run-10", "run-2") if number == 1 else ("run-2", "run-10")
        page = study.page()
        assert f"sub-01_{used}_seg-brain_morph.tsv" in page
        assert f"sub-01_{other}_seg-brain_morph.tsv" not in page
        (row,) = read_tsv(study.out / "logs" / "sessions.tsv")
        assert row["source"] == f"sub-01_{used}"
        study.run("--no-reports", level="group")
        (volumes,) = read_tsv(study.out / "group_seg-brain_morph.tsv")
        own, _ = read_tsv(study.out / f"sub-01/anat/sub-01_{used}_seg-brain_morph.tsv")
        assert volumes["Brain"] == own["volume_mm3"]


# -- edited --------------------------------------------------------------------------------


def test_a_label_map_that_was_corrected_by_hand_is_kept_unless_force(finished: Study) -> None:
    path = named(finished, FILES[0])
    original = path.read_bytes()
    image = nib.load(path)
    data = np.asarray(image.dataobj).copy()
    data[data.shape[0] // 2] = 0
    nib.save(nib.Nifti1Image(data, image.affine, image.header), path)
    edited = path.read_bytes()
    assert finished.run().code == 0
    status, reason = finished.rows["sub-01 ses-1"]
    assert status == "resumed" and "changed after it was written" in reason
    assert f"The label maps of {path.name} were changed after they" in finished.page()
    assert "No label map was corrected manually" not in finished.page()
    assert "No label map was corrected manually" in finished.page("02")
    said = finished.run("--no-reports", level="group")
    assert said.code == 0 and "sub-01 ses-1: the label map was changed" in said.err, said
    assert finished.run("--tta").code == 3  # other parameters: the others are made again
    assert path.read_bytes() == edited
    assert "use --force" in finished.rows["sub-01 ses-1"][1]
    assert finished.run("--force").code == 0
    assert path.read_bytes() == original


# -- sidecars, tables, speed ---------------------------------------------------------------


def test_every_result_states_its_size_and_hash(finished: Study) -> None:
    from deepmrseg_bids.files import file_sha256

    files = [path for path in finished.out.glob("sub-*/**/anat/*") if path.suffix != ".json"]
    assert len(files) == 12  # two masks and a table of each session
    for path in files:
        tree = json.loads(path.with_name(path.name.partition(".")[0] + ".json").read_text())
        assert tree["FileSize"] == path.stat().st_size
        assert tree["FileSHA256"] == file_sha256(path)


def test_the_group_level_does_not_use_a_damaged_table(finished: Study) -> None:
    path = named(finished, FILES[2])
    path.write_text(path.read_text().replace("\t1", "\t2", 1))
    ended = finished.run(level="group")
    assert ended.code == 3 and "damaged: sub-01_ses-1_seg-brain_morph.tsv" in ended.err, ended
    table = (finished.out / "group_seg-brain_morph.tsv").read_text()
    assert "sub-01\tses-1\tn/a" in table and "sub-01\tses-2\t1752576.00" in table


@pytest.mark.robustness("the results of one session under the names of another", tried="by hand, "
                        "with all sidecars, or the table of volumes alone")  # fmt: skip
def test_results_of_another_session_are_not_taken_for_its_own(
    finished: Study, came_out: Callable[[str], None]
) -> None:
    for files in (["seg-brain_morph"], ["desc-brain_mask", "seg-brain_morph"]):
        for source in (
            one for file in files for one in anat(finished, "02", "2").glob(f"*{file}.*")
        ):
            shutil.copyfile(source, named(finished, source.name.removeprefix("sub-02_ses-2_")))
        ended = finished.run("--no-reports", level="group")
        assert ended.code == 3, ended
        assert "is that of another session (sub-02/ses-2/anat)" in ended.err
        table = (finished.out / "group_seg-brain_morph.tsv").read_text()
        assert "sub-01\tses-1\tn/a" in table
        assert finished.run("--reports-only").code == 3
        status, reason = finished.rows["sub-01 ses-1"]
        assert status == "failed" and "is that of another session" in reason
        assert finished.run().code == 0
        assert finished.rows["sub-01 ses-1"][0] == "done"
    came_out("group, reports only: exit code 3, the file is named, its volumes are n/a; a run "
             "makes them again")  # fmt: skip


def exchange(study: Study) -> None:
    """Each of two scans in the place of the other, with its own time."""
    one, two = (
        study.raw / f"sub-01/ses-{label}/anat/sub-01_ses-{label}_T1w.nii.gz" for label in (1, 2)
    )
    other = one.with_name("other")
    one.rename(other)
    two.rename(one)
    other.rename(two)


@pytest.mark.robustness("two scans exchanged, or one replaced, after they were segmented",
                        tried="the scans of two sessions")  # fmt: skip
def test_a_result_of_another_scan_than_that_in_its_place_is_not_shown(
    finished: Study, came_out: Callable[[str], None]
) -> None:
    exchange(finished)
    for _ in range(2):  # also when the new scans are remembered
        ended = finished.run("--no-reports", level="group")
        assert ended.code == 3 and "is not the scan that was segmented" in ended.err, ended
        table = (finished.out / "group_seg-brain_morph.tsv").read_text()
        assert "sub-01\tses-1\tn/a" in table and "sub-01\tses-2\tn/a" in table
        assert "sub-02\tses-1\tn/a" not in table
        ended = finished.run("--reports-only")
        assert ended.code == 3, ended
        assert pictures(finished.page("01")) == 0 < pictures(finished.page("02"))
        status, reason = finished.rows["sub-01 ses-1"]
        assert status == "failed"
        assert reason.startswith("damaged: sub-01_ses-1_T1w.nii.gz is not the scan that was segm")
        assert reason.endswith("; run the session again")
    assert finished.run().code == 0
    assert finished.run(level="group").code == 0
    came_out("group, reports only: exit code 3, the scan is named, its volumes are n/a and "
             "nothing is drawn; a run makes the results again")  # fmt: skip


def test_what_is_whole_is_not_read_again(finished: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    from deepmrseg_bids.bids.provenance import FileDigest

    monkeypatch.setattr(FileDigest, "of", lambda path: pytest.fail(f"{path} was read"))
    there = Inventory.of(finished.out, finished.raw, {"brain": find_task("brain")})
    found = there.find("02", "1", "brain")
    assert found is not None and found.whole


def test_a_new_session_appears_beside_the_old_ones(finished: Study) -> None:
    add_scan(finished.raw, "sub-01_ses-3_T1w", tiny_head(7))
    (finished.raw / "sub-03/ses-1/anat").mkdir(parents=True)
    add_scan(finished.raw, "sub-03_ses-1_T1w", gzip.compress(b"no image"))
    assert finished.run("--participant-label", "01", "--session-label", "3").code == 0
    shown = on_page(finished.page())
    assert [shown[label].split()[0] for label in "123"] == ["resumed", "resumed", "done"]
    assert finished.run().code == 3
    ended = finished.run("--reports-only")
    assert ended.code == 3  # what failed is still failed
    assert finished.rows["sub-03 ses-1"][0] == "failed"


def test_a_page_with_a_skipped_task_stays_as_it_is_until_something_changes(
    finished: Study,
) -> None:
    both = ("--tasks", "brain", "wml", "--nprocs", "1")
    first = finished.run(tasks=both)
    page = finished.out / "sub-01.html"
    written = page.stat().st_mtime_ns
    again = finished.run(tasks=both)
    assert first.code == again.code and page.stat().st_mtime_ns == written
    assert finished.rows["sub-01 ses-1 wml"][0] == "skipped"
    assert "requires a FLAIR" in again.err
    add_scan(finished.raw, "sub-01_ses-1_FLAIR", b"no image")
    finished.run(tasks=both)
    assert page.stat().st_mtime_ns != written
    assert finished.rows["sub-01 ses-1 wml"][0] == "failed"

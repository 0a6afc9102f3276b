"""Nothing of others is ever replaced: whose OUT_DIR is, and whose its files are."""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from deepmrseg_bids.bids.derivatives import write_dataset_files
from deepmrseg_bids.bids.description import APP
from deepmrseg_bids.bids.ownership import FileGuard, check_ownership
from deepmrseg_bids.errors import DatasetError, ForeignFileError
from deepmrseg_bids.files import Staging, refuse_foreign, remove_leftovers
from tests.field.conftest import Study, content, fill, write_tree
from tests.warm import Ended, warm_run

FMRIPREP = {
    "dataset_description.json": {
        "Name": "fMRIPrep",
        "BIDSVersion": "1.4.0",
        "DatasetType": "derivative",
        "GeneratedBy": [{"Name": "fMRIPrep", "Version": "23.2"}],
    },
    ".bidsignore": "*.html\n",
    "sub-01.html": "<html>fMRIPrep</html>",
    "sub-01/anat/sub-01_desc-brain_mask.nii.gz": "mask",
    "sub-01/anat/sub-01_desc-brain_mask.json": {"RawSources": ["x"]},
    "logs/CITATION.md": "cite",
}
RAW = {
    "dataset_description.json": {"Name": "mine", "BIDSVersion": "1.8.0", "Authors": ["A"]},
    "README": "my study",
    ".bidsignore": "extra\n",
    "participants.tsv": "participant_id\nsub-01\n",
    "sub-01/anat/sub-01_T1w.json": {},
}
FOREIGN: dict[str, tuple[dict[str, object], str]] = {
    "another app": (FMRIPREP, "results of fMRIPrep"),
    "before BIDS 1.4": (
        {"dataset_description.json": {"Name": "x", "PipelineDescription": {"Name": "xcpd"}}},
        "results of xcpd",
    ),
    "raw data": (RAW, "were the two exchanged"),
    "a derivative that names nobody": (
        {"dataset_description.json": {"Name": "x", "DatasetType": "derivative"}, "a": ""},
        "is a data set that is not from",
    ),
    "a description that is no object": ({"dataset_description.json": "[]"}, "not from"),
    "a description that is cut": ({"dataset_description.json": '{"Gen'}, "restore the file"),
    "files of somebody": ({"notes.txt": "x", "sub-01.html": "<html>"}, "notes.txt, sub-01.html"),
    "a home folder": ({".bashrc": "", ".ssh/id": "", "Desktop/a": ""}, ".bashrc, .ssh, Desktop"),
    "a folder of derivatives": ({"fmriprep/x": "", "freesurfer/x": ""}, "fmriprep, freesurfer"),
    "logs of somebody": ({"logs/mine.txt": "x"}, "contains logs"),
    "many files": ({f"{n}.txt": "" for n in range(9)}, "and 4 more"),
}


@pytest.mark.parametrize("kind", FOREIGN)
@pytest.mark.parametrize("flag", [(), ("--dry-run",), ("--reports-only",)])
def test_a_folder_of_others_is_refused_and_stays_as_it_is(
    kind: str, flag: tuple[str, ...], tiny_model: Path, tmp_path: Path
) -> None:
    files, said = FOREIGN[kind]
    out, raw = write_tree(tmp_path / "out", files), tmp_path / "raw"
    raw.mkdir()
    before = content(out)
    if not flag:  # the mechanism; the flags below on the real command
        with pytest.raises(DatasetError, match=said) as error:
            check_ownership(raw, out)
        assert "nothing was written" in str(error.value).lower()
    elif kind in ("another app", "files of somebody"):
        study = Study(tmp_path, tiny_model)
        ended = study.run(*flag, tasks=())
        assert ended.code == 2 and said.split(",")[0] in ended.err, ended
    assert content(out) == before


@pytest.mark.robustness("OUT_DIR of another app", tried="fMRIPrep's results as OUT_DIR; BIDS_DIR "
                        "and OUT_DIR exchanged; a folder with files of the user")  # fmt: skip
def test_swapped_arguments_and_other_apps_cost_nothing(
    scan: Callable[[int], Path],
    tiny_model: Path,
    tmp_path: Path,
    came_out: Callable[[str], None],
) -> None:
    study = Study(tmp_path, tiny_model)
    fill(study.raw, scan, "sub-01_T1w")
    theirs = write_tree(study.raw / "derivatives" / "fmriprep", FMRIPREP)
    before = content(tmp_path)
    ended = study.run(out=theirs)
    swapped = study.run(raw=study.out, out=study.raw)
    group = study.run(out=theirs, level="group")
    assert (ended.code, swapped.code, group.code) == (2, 2, 2)
    assert "were the two exchanged?" in swapped.err and "results of fMRIPrep" in group.err
    assert content(tmp_path) == before
    came_out(f"exit code 2, no file changed; {ended.err.strip().splitlines()[-1]}")


def test_a_folder_inside_the_results_of_another_app_is_refused(tmp_path: Path) -> None:
    raw = write_tree(tmp_path / "raw", RAW)
    fmriprep = write_tree(raw / "derivatives" / "fmriprep", FMRIPREP)
    before = content(tmp_path)
    for out in (fmriprep / "dm", fmriprep / "sub-01" / "dm"):
        with pytest.raises(DatasetError, match=r"inside .*fmriprep, which contains .* of fMRIPrep"):
            check_ownership(raw, out)
    assert content(tmp_path) == before
    check_ownership(raw, raw / "derivatives" / "deepmrseg")
    check_ownership(raw, fmriprep / "derivatives" / "deepmrseg")
    check_ownership(fmriprep / "sourcedata" / "raw", fmriprep / "dm")  # YODA: above BIDS_DIR
    write_tree(fmriprep / "dm", {"dataset_description.json": {"GeneratedBy": [{"Name": APP}]}})
    check_ownership(raw, fmriprep / "dm")  # it is there already, and ours


def test_a_description_that_is_lost_comes_with_the_way_to_recover(finished: Study) -> None:
    path = finished.out / "dataset_description.json"
    tree = json.loads(path.read_text())
    path.write_text(json.dumps({key: tree[key] for key in tree if key != "GeneratedBy"}))
    with pytest.raises(DatasetError, match=r"has logs of deepmrseg-bids.*remove it") as lost:
        check_ownership(finished.raw, finished.out)
    assert "exchanged" not in str(lost.value)
    path.unlink()
    path.symlink_to("nowhere.json")
    with pytest.raises(DatasetError, match=r"link to a file that is missing.*remove the link"):
        check_ownership(finished.raw, finished.out)
    path.unlink()
    check_ownership(finished.raw, finished.out)
    assert finished.run().code == 0 and "GeneratedBy" in path.read_text()


@pytest.mark.parametrize("files", [
    {}, {".git/config": "", ".gitattributes": ""}, {"logs/.lock": ""},
    {"logs/run-20260101-120000-0123abcd.log": "", "logs/run-20260101-120000-0123abcd.toml": ""},
    {".deepmrseg-0-1.tmp": ""}, {"work/run-1/x": "", "code/run.sh": "", "sourcedata/raw/x": ""},
    {".datalad/config": "", "README.md": "", "CHANGELOG.md": ""},
    # the description was lost, the logs show that the results are ours
    {"logs/run-20260101-120000-0123abcd.log": "", "sub-01.html": "", "README": ""},
])  # fmt: skip
def test_a_folder_that_is_empty_or_that_a_killed_run_began_can_be_used(
    files: dict[str, object], tmp_path: Path
) -> None:
    out = write_tree(tmp_path / "out", files)
    check_ownership(tmp_path, out, inside=[out / "work" / "deep", None])


@pytest.mark.parametrize("place", [0, 1])
@pytest.mark.parametrize("text", ["", " "])
def test_an_empty_path_is_not_the_current_folder(place: int, text: str, finished: Study) -> None:
    words = [str(finished.raw), str(finished.out)]
    words[place] = text
    before = content(finished.folder)
    for level in ("participant", "group"):
        ended = finished.run(raw=words[0], out=words[1], level=level, folder=finished.raw)
        assert ended.code == 2 and "empty path" in ended.err, ended
    assert content(finished.folder) == before


# -- the source ----------------------------------------------------------------------------


@pytest.mark.robustness("OUT_DIR of another data set", tried="a second raw data set with other "
                        "scans of sub-01 into an OUT_DIR; the first moved")  # fmt: skip
def test_another_data_set_is_refused_and_a_moved_one_is_not(
    finished: Study, scan: Callable[[int], Path], came_out: Callable[[str], None]
) -> None:
    other = fill(finished.folder / "other", scan, "sub-01_ses-1_T1w", "sub-02_ses-1_T1w", first=3)
    before = content(finished.out)
    for flags in ((), ("--dry-run",), ("--reports-only",)):
        ended = finished.run(*flags, raw=other)
        assert ended.code == 2 and "--same-source" in ended.err, ended
    assert finished.run(raw=other, level="group").code == 2
    assert content(finished.out) == before
    moved = finished.folder / "moved"
    finished.raw.rename(moved)
    assert finished.run(raw=moved).code == 0
    tree = json.loads((finished.out / "dataset_description.json").read_text())
    assert tree["DatasetLinks"]["raw"] == "../moved" == tree["SourceDatasets"][0]["URL"]
    assert len(tree["SourceDatasets"]) == 1
    assert finished.run("--same-source", raw=other).code == 0
    came_out("exit code 2, no file changed (the scans differ; --same-source accepts it); moved: "
             "exit code 0, recognised by its scans")  # fmt: skip


def test_the_source_is_told_by_the_scans_wherever_it_is(finished: Study, tmp_path: Path) -> None:
    raw, out = finished.raw, finished.out
    (tmp_path / "link").symlink_to(raw)
    copy = shutil.copytree(raw, tmp_path / "copy")
    for same in (raw, tmp_path / "link", copy):
        check_ownership(same, out)
    (copy / "sub-01/ses-1/anat/sub-01_ses-1_T1w.nii.gz").write_bytes(b"corrected")
    check_ownership(copy, out)  # sub-02 is still the same
    (copy / "sub-02/ses-1/anat/sub-02_ses-1_T1w.nii.gz").write_bytes(b"corrected")
    with pytest.raises(DatasetError, match="is not the scan that was segmented"):
        check_ownership(copy, out)
    check_ownership(copy, out, same_source=True)
    empty = write_tree(tmp_path / "empty", {"dataset_description.json": {"Name": "x"}})
    with pytest.raises(DatasetError, match="none of the scans"):
        check_ownership(empty, out)


def test_another_data_set_at_the_same_place_is_refused_a_lost_or_corrected_scan_is_not(
    finished: Study,
) -> None:
    first = finished.raw / "sub-01/ses-1/anat/sub-01_ses-1_T1w.nii.gz"
    second = finished.raw / "sub-02/ses-1/anat/sub-02_ses-1_T1w.nii.gz"
    second.unlink()
    first.write_bytes(b"corrected")
    check_ownership(finished.raw, finished.out)
    second.write_bytes(b"other")
    with pytest.raises(DatasetError, match="another data set"):
        check_ownership(finished.raw, finished.out)


def test_the_doi_of_a_data_set_is_enough(finished: Study, tmp_path: Path) -> None:
    path = finished.out / "dataset_description.json"
    tree = json.loads(path.read_text())
    tree["SourceDatasets"][0]["DOI"] = "doi:10.1/x"
    path.write_text(json.dumps(tree))
    same = write_tree(tmp_path / "s", {"dataset_description.json": {"DatasetDOI": "doi:10.1/x"}})
    check_ownership(same, finished.out)


# -- what users add ------------------------------------------------------------------------


def test_what_users_added_stays(finished: Study) -> None:
    out = finished.out
    path = out / "dataset_description.json"
    tree = json.loads(path.read_text())
    added = {"Authors": ["A"], "License": "CC0", "Name": "My study", "Funding": ["x"]}
    tree |= added
    tree["GeneratedBy"][0]["Description"] = "segmented"
    tree["GeneratedBy"].append({"Name": "hand", "Description": "corrected"})
    tree["SourceDatasets"].append({"URL": "https://x.org"})
    tree["DatasetLinks"]["other"] = "../other"
    path.write_text(json.dumps(tree))
    (out / ".bidsignore").write_text("mine/\n*.html\n")
    (out / "README").write_text("Read this first.\n")
    (out / "CITATION.md").write_text("Cite us.\n")
    for _ in range(2):
        write_dataset_files(out, finished.raw, tasks=[], tables={}, version="9.9")
    now = json.loads(path.read_text())
    assert {key: now[key] for key in added} == added
    assert now["GeneratedBy"][0] == {
        "Name": "deepmrseg-bids", "Version": "9.9", "Description": "segmented"
    }  # fmt: skip
    assert now["GeneratedBy"][1]["Name"] == "hand" and len(now["GeneratedBy"]) == 2
    assert now["SourceDatasets"] == [{"URL": "../raw"}, {"URL": "https://x.org"}]
    assert now["DatasetLinks"]["other"] == "../other"
    lines = (out / ".bidsignore").read_text().splitlines()
    assert lines[:2] == ["mine/", "*.html"] and "logs/" in lines
    assert len(lines) == len(set(lines))
    assert (out / "README").read_text() == "Read this first.\n"
    assert (out / "CITATION.md").read_text() == "Cite us.\n"


def test_a_readme_that_nobody_changed_follows_the_version_and_one_is_enough(
    finished: Study,
) -> None:
    write_dataset_files(finished.out, finished.raw, tasks=[], tables={}, version="9.9")
    assert "deepmrseg-bids 9.9" in (finished.out / "README").read_text()
    (finished.out / "README").rename(finished.out / "README.md")
    write_dataset_files(finished.out, finished.raw, tasks=[], tables={}, version="9.9")
    assert not (finished.out / "README").exists()


# -- single files --------------------------------------------------------------------------


def test_a_file_of_others_in_our_folder_costs_its_task_and_stays(
    scan: Callable[[int], Path], tiny_model: Path, tmp_path: Path
) -> None:
    study = Study(tmp_path, tiny_model)
    fill(study.raw, scan, "sub-01_T1w", "sub-02_T1w", "sub-03_T1w")
    write_dataset_files(study.out, study.raw, tasks=[], tables={}, version="1")
    anat = "sub-{}/anat/sub-{}_{}"
    theirs = write_tree(study.out, {
        anat.format("01", "01", "desc-brain_mask.nii.gz"): "by hand",
        anat.format("02", "02", "seg-brain_morph.tsv"): "by hand",
        anat.format("02", "02", "seg-brain_morph.json"): {"by": "hand"},
        "sub-03.html": "<html>mine</html>",
        "logs/sessions.tsv": "my\ttable\n1\t2\n",
    })  # fmt: skip
    before = {name: data for name, data in content(theirs).items() if "sub-" in name}
    ended = study.run("--force")
    assert ended.code == 3, ended
    for who, name in (("01", "desc-brain_mask.nii.gz"), ("02", "seg-brain_morph.")):
        status, reason = study.rows[f"sub-{who}"]
        assert status == "failed" and f"sub-{who}_{name}" in reason and "move it away" in reason
    assert study.rows["sub-03"][0] == "done"
    assert "sub-03.html: this page is not from deepmrseg-bids" in ended.err
    now = content(study.out)
    assert {name: now[name] for name in before} == before
    assert b"my\ttable\n1\t2\n" in now.values()  # the table was moved aside


def test_a_group_table_or_page_of_others_is_not_replaced(finished: Study) -> None:
    assert finished.run(level="group").code == 0
    assert finished.run(level="group").code == 0  # our own are
    for name in ("group_seg-brain_morph.tsv", "group.html"):
        path = finished.out / name
        kept = path.read_bytes()
        path.write_text("mine")
        beside = path.with_suffix(".json")
        beside.unlink(missing_ok=True)
        before = content(finished.out)
        ended = finished.run(level="group")
        assert ended.code == 2 and name in ended.err and content(finished.out) == before
        path.write_bytes(kept)
        beside.write_text("{}")


def test_a_picture_or_label_table_of_others_is_not_replaced(finished: Study) -> None:
    assert finished.run(level="group").code == 0
    (picture,) = (finished.out / "figures").glob("group_seg-brain_mosaic-*.webp")
    (finished.out / "group.html").unlink()
    assert finished.run(level="group").code == 0  # it names us
    table = finished.out / "seg-brain_dseg.tsv"
    table.with_suffix(".json").unlink(missing_ok=True)  # as earlier versions left it
    assert finished.run("--force", "--no-reports").code == 0
    theirs = picture.with_name("group_seg-brain_mosaic-007.webp")
    theirs.write_bytes(b"RIFF of others")
    for path, level in ((theirs, "group"), (table, "participant"),
                        (table.with_suffix(".json"), "participant")):  # fmt: skip
        kept = path.read_bytes() if path.exists() else b"{}"
        path.write_text('{"mine": 1}' if path.suffix == ".json" else "index\tname\n7\tMine\n")
        if path == table:
            table.with_suffix(".json").unlink()
        before = content(finished.out)
        ended = finished.run("--force", level=level)
        now = content(finished.out)
        assert ended.code == 2 and path.name in ended.err
        assert {name: now[name] for name in before if "logs" not in name} == {
            name: data for name, data in before.items() if "logs" not in name
        }
        path.write_bytes(kept)
        theirs.unlink(missing_ok=True)


def test_the_guard_knows_what_is_ours(finished: Study) -> None:
    out = finished.out
    anat = out / "sub-01/ses-1/anat"
    mask = anat / "sub-01_ses-1_desc-brain_mask.nii.gz"
    guard = FileGuard(out)
    for path in anat.iterdir():
        guard(path)
    guard(anat / "new.nii.gz")
    (anat / "sub-01_ses-1_desc-brain_mask.json").unlink()
    guard(mask)  # the log of outputs knows it
    mask.write_bytes(b"another")
    with pytest.raises(ForeignFileError, match="not from deepmrseg-bids"):
        guard(mask)


# -- two runs, killed runs -----------------------------------------------------------------


def test_two_runs_at_once_on_a_new_folder_both_work(
    scan: Callable[[int], Path], tiny_model: Path, tmp_path: Path
) -> None:
    for number in range(20):
        out, raw = tmp_path / f"out{number}", tmp_path / "raw"
        raw.mkdir(exist_ok=True)
        errors: list[Exception] = []

        def begin(out: Path = out, raw: Path = raw, errors: list[Exception] = errors) -> None:
            try:
                check_ownership(raw, out)
                out.mkdir(exist_ok=True)
                (out / "logs").mkdir(exist_ok=True)
                (out / "logs" / "run-20260101-120000-0123abcd.log").touch()
                check_ownership(raw, out)
                write_dataset_files(out, raw, tasks=[], tables={}, version="1")
            except Exception as error:
                errors.append(error)

        threads = [threading.Thread(target=begin) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert errors == []


@pytest.mark.parametrize("stop", range(5))
def test_a_run_that_was_killed_while_it_wrote_is_resumed(
    finished_once: Study, tmp_path: Path, stop: int
) -> None:
    source = finished_once.out / "sub-01/ses-1/anat"
    out = tmp_path / "out"

    def publish() -> None:
        with Staging(out, tmp_path / "work", FileGuard(out)) as staging:
            for path in source.iterdir():
                shutil.copy(path, staging.path(f"sub-01/ses-1/anat/{path.name}"))

    replace, done = os.replace, []

    def killed(one: str, other: str) -> None:
        if Path(other).is_relative_to(out):
            if len(done) == stop:
                os._exit(9)
            done.append(other)
        replace(one, other)

    if not (pid := os.fork()):  # a process that is gone from one instant to the next
        os.replace = killed  # type: ignore[assignment]
        publish()
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 9
    remove_leftovers(out, older_than=-1)
    publish()
    assert content(out / "sub-01/ses-1/anat") == content(source)


# -- the library's command -----------------------------------------------------------------


def test_predict_does_not_replace_what_it_has_not_written(
    scan: Callable[[int], Path], tiny_model: Path, tmp_path: Path
) -> None:
    def words_of(out: object) -> list[object]:
        return ["predict", "--model", f"brain={tiny_model}", "--task", "brain", scan(1), "-o", out]

    def predict(out: object) -> Ended:
        return warm_run(words_of(out), command="deepmrseg", folder=tmp_path)

    manual = write_tree(tmp_path / "out", {"sub-01_desc-brain_mask.nii.gz": "by hand"})
    before = content(manual)
    ended = predict(manual)
    assert ended.code == 3 and "sub-01_desc-brain_mask.nii.gz exists" in ended.err, ended
    assert content(manual) == before
    new = tmp_path / "new"
    assert predict(new).code == 0
    first = content(new)
    assert predict(new).code == 0 and content(new) == first  # its own are
    assert predict("").code == 2
    report = [*words_of(new), "--report"]
    ended = warm_run(report, command="deepmrseg", folder=tmp_path)
    text = (new / "sub-01.html").read_text(encoding="utf-8")
    assert ended.code == 0 and "<h1>sub-01</h1>" in text and 'class="slice' in text
    assert "Text for a manuscript" in text and "deepmrseg predict" in text
    assert "Networks were run in PyTorch" in text
    (new / "sub-01.html").write_text("mine")
    ended = warm_run(report, command="deepmrseg", folder=tmp_path)
    assert ended.code == 3 and "not from deepmrseg-bids" in ended.err
    assert (new / "sub-01.html").read_text(encoding="utf-8") == "mine"


def test_a_file_without_its_mark_is_refused(tmp_path: Path) -> None:
    table, mark = tmp_path / "summary.tsv", tmp_path / "summary.json"
    refuse_foreign([table], mark)
    table.touch()
    refuse_foreign([table], mark)  # it is empty
    table.write_text("mine")
    with pytest.raises(ForeignFileError, match=r"summary.tsv exists.*no summary.json"):
        refuse_foreign([tmp_path / "other.tsv", table], mark)
    mark.touch()
    refuse_foreign([table], mark)

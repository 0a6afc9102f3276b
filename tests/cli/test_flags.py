"""Flags on the real command, in processes of their own, with heads and a model of no size."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.integration.conftest import add_scan, make_dataset, read_tsv
from tests.tiny import tiny_head
from tests.warm import Ended, warm_run


def app(*arguments: object, cwd: Path | None = None, cold: bool = False, **more: str) -> Ended:
    """Run ``deepmrseg-bids``; nobody has a home directory here.

    Args:
        cold: in a process that imports what it needs by itself, for claims about the process.
    """
    environment = {**os.environ, "HOME": "/nonexistent", **more}
    if not cold:
        return warm_run(arguments, environment=environment, folder=cwd)
    ended = subprocess.run(
        [sys.executable, "-m", "deepmrseg_bids.cli.deepmrseg_bids", *map(str, arguments)],
        capture_output=True,
        text=True,
        env=environment,
        cwd=cwd,
        timeout=600,
        check=False,
    )
    return Ended(ended.returncode, ended.stdout, ended.stderr)


def tree(root: Path) -> dict[str, tuple[int, int]]:
    """Size and time of every file and folder below a folder."""
    return {
        str(path.relative_to(root)): (path.stat().st_size, path.stat().st_mtime_ns)
        for path in sorted(root.rglob("*"))
    }


def rows(plan: str) -> dict[str, dict[str, str]]:
    header, *lines = [line.split("\t") for line in plan.splitlines() if not line.startswith("#")]
    return {line[0]: dict(zip(header, line, strict=True)) for line in lines}


def statuses(out: Path) -> dict[str, str]:
    return {row["participant_id"]: row["status"] for row in read_tsv(out / "logs" / "sessions.tsv")}


@dataclass(frozen=True)
class Run:
    """A finished run of two of four people, with most flags."""

    folder: Path
    raw: Path
    model: Path
    ended: Ended

    @property
    def out(self) -> Path:
        return self.folder / "out"

    @property
    def toml(self) -> Path:
        return min((self.out / "logs").glob("run-*.toml"))


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three people with a head, one without; the second has three T1w."""
    root = make_dataset(tmp_path_factory.mktemp("flags") / "raw")
    for name in ("sub-01", "sub-02_acq-a", "sub-02_acq-a_rec-norm", "sub-02", "sub-03"):
        add_scan(root, f"{name}_T1w", tiny_head(len(name)))
    (root / "sub-04" / "anat").mkdir(parents=True)
    return root


@pytest.fixture(scope="module")
def run(raw: Path, tiny_model: Path) -> Run:
    folder = raw.parent
    (folder / "current").mkdir()
    (folder / "filter.json").write_text(
        json.dumps({"t1w": {"acquisition": [None, "a"], "reconstruction": None}})
    )
    ended = app(
        raw, folder / "out", "participant", "--model", f"brain={tiny_model}", "--tasks", "brain",
        "--participant_label", "01", "sub-02", "--bids-filter-file", folder / "filter.json",
        "--bids_database_dir", folder / "db", "--mem", "2G", "--low-mem", "--write-graph",
        "--resource-monitor", "-w", folder / "work", "-q", cwd=folder / "current", cold=True,
    )  # fmt: skip
    return Run(folder, raw, tiny_model, ended)


def test_a_run_without_a_home_does_all_it_was_asked_for(run: Run) -> None:
    assert run.ended.code == 0, run.ended.err
    assert statuses(run.out) == {"sub-01": "done", "sub-02": "done"}


def test_a_quiet_run_says_nothing(run: Run) -> None:
    assert (run.ended.out, run.ended.err) == ("", "")


def test_the_graph_of_the_run_names_its_sessions(run: Run) -> None:
    (dot,) = (run.out / "logs").glob("run-*.dot")
    assert {"sub_01", "sub_02"} <= {
        part for part in ("sub_01", "sub_02") if part in dot.read_text()
    }


def test_the_monitor_tells_what_each_session_took(run: Run) -> None:
    (record,) = (run.out / "logs").glob("run-*.resources.json")
    found = json.loads(record.read_text())
    assert len([name for name in set(found["name"]) if "segment" in name]) == 2
    assert max(found["rss_GiB"]) > 0.05


def test_the_work_folder_stays_where_it_was_asked_for(run: Run) -> None:
    assert [path.name for path in (run.folder / "work").iterdir()] == [run.toml.stem]


def test_nothing_is_left_in_the_current_folder(run: Run) -> None:
    assert list((run.folder / "current").iterdir()) == []


def test_the_index_is_kept(run: Run) -> None:
    assert (run.folder / "db" / "layout_index.sqlite").stat().st_size > 0


@pytest.fixture(scope="module")
def dry(run: Run, tmp_path_factory: pytest.TempPathFactory) -> tuple[Ended, bool, list[str]]:
    """A dry run after the run: how it ended, whether nothing changed, what it left elsewhere."""
    temporary = tmp_path_factory.mktemp("tmp")
    before = tree(run.folder)
    ended = app(
        run.raw, run.out, "participant", "--model", f"brain={run.model}", "--tasks", "brain", "wml",
        "--bids-filter-file", run.folder / "filter.json", "--bids-database-dir", run.folder / "db",
        "--dry-run", cold=True, TMPDIR=str(temporary),
    )  # fmt: skip
    return ended, tree(run.folder) == before, os.listdir(temporary)


def test_a_dry_run_writes_nothing_anywhere(dry: tuple[Ended, bool, list[str]]) -> None:
    ended, unchanged, left = dry
    assert ended.code == 0, ended.err
    assert unchanged and left == []


def test_a_dry_run_has_a_row_a_session_with_what_would_be_done_and_why_not(
    dry: tuple[Ended, bool, list[str]],
) -> None:
    found = rows(dry[0].out)
    assert list(found) == ["sub-01", "sub-02", "sub-03", "sub-04"]
    assert {found[name]["finished"] for name in ("sub-01", "sub-02")} == {"brain"}
    assert found["sub-03"]["tasks"] == "brain"
    assert float(found["sub-03"]["seconds"]) >= 0 and int(found["sub-03"]["memory_mib"]) > 100
    assert found["sub-03"]["left_out"] == "wml: wml requires a FLAIR, but the session has none"
    assert found["sub-04"]["left_out"] == (
        "brain wml: the session has no T1w image: its anat folder is empty"
    )
    assert found["sub-02"]["T1w"] == "sub-02/anat/sub-02_T1w.nii.gz"


def test_the_sum_of_a_dry_run_says_how_long_and_how_much(
    dry: tuple[Ended, bool, list[str]],
) -> None:
    last = dry[0].out.splitlines()[-1]
    assert last.startswith(
        "# 1 of 4 sessions to process, 0 completed, 3 not possible; 1 in parallel with"
    )
    assert " about " in last and last.endswith(" GB")


def test_a_filter_with_a_star_asks_for_the_entity(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "filter.json"
    path.write_text('{"t1w": {"acquisition": "*", "reconstruction": "*"}, "bold": {}}')
    ended = app(run.raw, tmp_path / "out", "participant", "--bids-filter-file", path, "--dry-run",
                "--tasks", "brain", "--model", f"brain={run.model}")  # fmt: skip
    found = {name: row["T1w"] for name, row in rows(ended.out).items()}
    assert found.pop("sub-02") == "sub-02/anat/sub-02_acq-a_rec-norm_T1w.nii.gz"
    assert set(found.values()) == {"n/a"}
    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def again(run: Run, dry: object) -> tuple[Ended, dict[str, bytes]]:
    """The run once more from its own configuration file; the masks before it."""
    before = {path.name: path.read_bytes() for path in run.out.glob("sub-*/anat/*.nii.gz")}
    (run.folder / "work" / "mine.txt").touch()
    config = run.toml
    ended = app("--config-file", config, "--force", "--clean-workdir", "-v")
    return ended, before


def test_the_configuration_in_logs_makes_the_same_again(
    run: Run, again: tuple[Ended, dict[str, bytes]]
) -> None:
    ended, before = again
    assert ended.code == 0, ended.err
    assert statuses(run.out) == {"sub-01": "done", "sub-02": "done"}
    after = {path.name: path.read_bytes() for path in run.out.glob("sub-*/anat/*.nii.gz")}
    assert after == before and len(after) == 4  # masks of the brain and of the inside of the skull
    first, second = sorted((run.out / "logs").glob("run-*.toml"))
    changed = {"force", "clean_workdir", "verbosity"}
    lines = [{line for line in path.read_text().splitlines() if line.split(" ")[0] not in changed}
             for path in (first, second)]  # fmt: skip
    assert lines[0] == lines[1]


def test_the_work_folder_is_cleaned_of_earlier_runs_alone(
    run: Run, again: tuple[Ended, dict[str, bytes]]
) -> None:
    second = max((run.out / "logs").glob("run-*.toml"))
    assert {path.name for path in (run.folder / "work").iterdir()} == {second.stem, "mine.txt"}


def test_the_second_run_took_the_index_from_the_first(
    again: tuple[Ended, dict[str, bytes]],
) -> None:
    assert "using the index in this folder" in again[0].err


def test_reports_only_writes_the_pages_and_nothing_else(
    run: Run, again: tuple[Ended, dict[str, bytes]]
) -> None:
    before = tree(run.out)
    (run.out / "sub-02.html").unlink()
    ended = app(run.raw, run.out, "participant", "--reports-only", "--model", f"brain={run.model}",
                "--bids-filter-file", run.folder / "filter.json")  # fmt: skip
    assert ended.code == 0, ended.err
    after = tree(run.out)
    assert (run.out / "sub-02.html").stat().st_size > 1000
    changed = {name for name in after if after[name] != before.get(name)}
    results = {name for name in changed if name.endswith((".nii.gz", ".tsv", ".json"))}
    assert not {name for name in results if name.startswith("sub-")}
    assert statuses(run.out) == {"sub-01": "resumed", "sub-02": "resumed"}


def test_nothing_is_begun_after_the_first_crash_if_it_is_asked_for(
    raw: Path, tiny_model: Path, tmp_path: Path
) -> None:
    bad = make_dataset(tmp_path / "raw")
    add_scan(bad, "sub-01_T1w", b"")
    shutil.copytree(raw / "sub-03", bad / "sub-03")
    ended = app(bad, tmp_path / "out", "participant", "--stop-on-first-crash", "--nprocs", 1,
                "--tasks", "brain", "--model", f"brain={tiny_model}")  # fmt: skip
    assert ended.code == 4, ended.err
    assert statuses(tmp_path / "out") == {"sub-01": "failed", "sub-03": "skipped"}
    assert "not started" in ended.err and "--stop-on-first-crash" in ended.err


def test_a_mistake_in_a_configuration_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text("nproc = 2\n")
    ended = app("--config-file", path)
    assert ended.code == 2
    assert f"{path}: unknown key 'nproc' (did you mean 'nprocs'?)" in ended.err


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("deepmrseg-bids /d /o participant --bids-d", "--bids-database-dir"),
        ("deepmrseg-bids /d /o participant --tasks hipp", "hippocampus"),
        ("deepmrseg-bids /d /o gr", "group"),
    ],
)
def test_the_shell_completes_flags_and_choices(tmp_path: Path, line: str, expected: str) -> None:
    answer = tmp_path / "answer"
    app(cold=True, _ARGCOMPLETE="1", _ARGCOMPLETE_STDOUT_FILENAME=str(answer), COMP_LINE=line,
        COMP_POINT=str(len(line)), _ARGCOMPLETE_IFS="\n")  # fmt: skip
    assert expected in [word.strip() for word in answer.read_text().split("\n")]


@pytest.mark.skipif(os.getuid() != 0, reason="only root may run as somebody else")
def test_a_user_without_name_and_home_can_run_it(run: Run) -> None:
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        pytest.skip("setpriv is not installed")
    as_somebody = [setpriv, "--reuid=54321", "--regid=54321", "--clear-groups", sys.executable]
    child = "import os, sys, torch; sys.exit(not os.access(sys.executable, os.X_OK))"
    if subprocess.run([*as_somebody, "-c", child], capture_output=True, check=False).returncode:
        pytest.skip("another user cannot start this Python")
    place = Path("/tmp") / f"deepmrseg-somebody-{os.getpid()}"
    try:
        (place / "out").mkdir(parents=True)
        shutil.copytree(run.raw / "sub-01", place / "raw" / "sub-01")
        shutil.copytree(run.model, place / "model")
        shutil.copy(run.raw / "dataset_description.json", place / "raw")
        for path in (place, *place.rglob("*")):
            path.chmod(0o755 if path.is_dir() else 0o644)
        (place / "out").chmod(0o777)
        ended = subprocess.run(
            [*as_somebody, "-m", "deepmrseg_bids.cli.deepmrseg_bids", place / "raw", place / "out",
             "participant", "--tasks", "brain", "--model", f"brain={place / 'model'}"],
            capture_output=True, text=True, cwd="/", check=False,
            env={"PATH": os.environ["PATH"], "HOME": "/", "TMPDIR": "/tmp",
                 "PYTHONPATH": os.environ.get("PYTHONPATH", "")},
        )  # fmt: skip
        assert ended.returncode == 0, ended.stderr
        assert (place / "out" / "sub-01.html").exists()
    finally:
        shutil.rmtree(place, ignore_errors=True)

"""The command line of the BIDS-App: its flags, and the configuration they make."""

from pathlib import Path

import pytest

from deepmrseg_bids import __version__
from deepmrseg_bids.cli import deepmrseg_bids as command
from deepmrseg_bids.config import RunConfig
from deepmrseg_bids.errors import UsageError

BASE = ["/raw", "/out", "participant"]


def parse(*arguments):
    return command.build_parser().parse_args([*BASE, *arguments])


@pytest.mark.parametrize(
    ("field", "values", "spellings"),
    [
        ("participant_label", ["01", "02"], ["--participant-label", "--participant_label"]),
        (
            "session_label",
            ["1"],
            ["--session-label", "--session_label", "--session-id", "--session_id"],
        ),
        ("bids_filter_file", ["f.json"], ["--bids-filter-file", "--bids_filter_file"]),
        ("bids_database_dir", ["db"], ["--bids-database-dir", "--bids_database_dir"]),
        ("skip_bids_validation", [], ["--skip-bids-validation", "--skip_bids_validation"]),
        ("nprocs", ["3"], ["--nprocs", "--n-cpus", "--n_cpus"]),
        ("omp_nthreads", ["2"], ["--omp-nthreads", "--omp_nthreads"]),
        ("work_dir", ["w"], ["-w", "--work-dir", "--work_dir"]),
        ("no_reports", [], ["--no-reports", "--no_reports"]),
    ],
)
def test_every_spelling_of_a_flag_means_the_same(field, values, spellings):
    found = [vars(parse(spelling, *values)) for spelling in spellings]
    assert all(entry == found[0] for entry in found)
    assert found[0][field] != vars(parse())[field]
    assert {key for key in found[0] if found[0][key] != vars(parse())[key]} == {field}


def test_the_version_is_that_of_the_package(capsys):
    with pytest.raises(SystemExit) as ended:
        command.main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"deepmrseg-bids {__version__}\n"


def test_the_help_names_the_exit_codes(capsys):
    with pytest.raises(SystemExit) as ended:
        command.main(["--help"])
    assert ended.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    for part in ("exit codes: 0 all", "2 wrong usage", "3 some sessions failed", "4 nothing",
                 "130 interrupted"):  # fmt: skip
        assert part in text


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["/raw", "/out"],
        ["/raw", "/out", "session"],
        [*BASE, "--tasks", "tumour"],
        [*BASE, "--nprocs", "0"],
        [*BASE, "--omp-nthreads", "x"],
        [*BASE, "--precision", "float8"],
        [*BASE, "--no-such-flag"],
    ],
)
def test_wrong_usage_ends_with_2(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        command.main(arguments)
    assert ended.value.code == 2
    assert "usage: deepmrseg-bids" in capsys.readouterr().err


def test_the_configuration_holds_what_the_command_line_said(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    arguments = ["raw", "out", "group", "--participant-label", "sub-01", "02", "--tasks", "brain",
                 "--model", "brain=m", "--device", "cpu", "--precision", "float32", "--tta",
                 "--probabilities", "--no-reports", "-w", "work", "-v", "-v", "-q",
                 "--omp-nthreads", "1", "--nprocs", "1", "--skip-bids-validation"]  # fmt: skip
    found = command.config_from(command.build_parser().parse_args(arguments))
    assert found == RunConfig(
        bids_dir=tmp_path / "raw",
        out_dir=tmp_path / "out",
        level="group",
        participant_label=("sub-01", "02"),
        tasks=("brain",),
        models=(("brain", tmp_path / "m"),),
        skip_bids_validation=True,
        nprocs=1,
        omp_nthreads=1,
        device="cpu",
        precision="float32",
        probabilities=True,
        tta=True,
        work_dir=tmp_path / "work",
        reports=False,
        verbosity=1,
    )


def test_what_is_not_said_has_the_default_of_the_configuration():
    assert command.config_from(parse()) == RunConfig(Path("/raw"), Path("/out"), "participant")


def test_a_model_of_no_task_is_an_error_of_ours():
    with pytest.raises(UsageError, match="TASK=PATH"):
        command.config_from(parse("--model", "tumour=/m"))


def test_a_group_run_without_results_ends_with_2(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(command, "prepare_process", lambda: None)
    monkeypatch.setattr(command, "set_up_logging", lambda _: None)
    for name in ("NO_ET", "NIPYPE_NO_ET", "NIPYPE_CONFIG_DIR", "MPLCONFIGDIR"):
        monkeypatch.setenv(name, "")  # so that what the command sets is undone
    assert command.main([str(tmp_path), str(tmp_path / "out"), "group"]) == 2
    assert "run the participant level" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()

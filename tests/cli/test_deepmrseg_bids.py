"""The command line of the BIDS-App: its flags, and the configuration they make."""

import dataclasses
from pathlib import Path

import pytest

from deepmrseg_bids import __version__
from deepmrseg_bids.cli import deepmrseg_bids as command
from deepmrseg_bids.config import RunConfig
from deepmrseg_bids.errors import UsageError

BASE = ["/raw", "/out", "participant"]


def parse(*arguments):
    return command.parse([*BASE, *arguments])


def flags():
    """Every option of the parser that has a long spelling."""
    return [action for action in command.build_parser()._actions
            if any(flag.startswith("--") for flag in action.option_strings)]  # fmt: skip


@pytest.mark.parametrize("action", flags(), ids=lambda action: action.option_strings[-1])
def test_every_long_flag_is_known_with_hyphens_and_with_underscores(action):
    for flag in action.option_strings:
        if flag.startswith("--"):
            assert "--" + flag[2:].replace("-", "_") in action.option_strings
            assert "--" + flag[2:].replace("_", "-") in action.option_strings


@pytest.mark.parametrize("action", flags(), ids=lambda action: action.option_strings[-1])
def test_every_flag_sets_a_field_of_the_configuration(action):
    fields = {field.name for field in dataclasses.fields(RunConfig)}
    others = {"help", "version", "config_file", "model", "verbose", "quiet"}
    assert action.dest in fields | others


@pytest.mark.parametrize(
    "spellings",
    [
        ["--session-label", "--session_label", "--session-id", "--session_id"],
        ["--nprocs", "--n-cpus", "--n_cpus"],
        ["-w", "--work-dir", "--work_dir"],
    ],
)
def test_names_of_one_flag_mean_the_same(spellings):
    found = [vars(parse(spelling, "3")) for spelling in spellings]
    assert all(entry == found[0] for entry in found)
    assert len(set(found[0]) - set(vars(parse()))) == 1


@pytest.mark.parametrize(
    "arguments",
    [
        [*BASE, "--nprocs", "1", "--tta"],
        ["--nprocs", "1", *BASE, "--tta"],
        ["/raw", "--nprocs", "1", "/out", "--tta", "participant"],
    ],
)
def test_options_may_stand_anywhere(arguments):
    found = command.parse(arguments)
    assert (found.bids_dir, found.out_dir, found.level) == (Path("/raw"), Path("/out"), BASE[2])
    assert (found.nprocs, found.tta) == (1, True)


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
    for part in ("exit codes: 0 everything", "2 wrong usage", "3 some sessions failed", "4 nothing",
                 "130 interrupted"):  # fmt: skip
        assert part in text


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["/raw", "/out"],
        ["/raw", "/out", "session"],
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
    found = command.config_from(command.parse(arguments))
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


def from_file(tmp_path, text, *arguments):
    path = tmp_path / "run.toml"
    path.write_text(text)
    return command.config_from(command.parse(["--config-file", str(path), *arguments]))


def test_a_configuration_file_gives_what_the_command_line_does_not(tmp_path):
    text = 'bids_dir = "/raw"\nout_dir = "/out"\nlevel = "participant"\nmem = "4G"\n'
    text += 'tasks = ["brain"]\ntta = true\nreports = false\nlow-mem = true\n'
    found = from_file(tmp_path, text, "/other", "--tasks", "deepbrain", "-v")
    assert (found.bids_dir, found.out_dir, found.level) == (Path("/other"), Path("/out"), BASE[2])
    assert (found.tasks, found.verbosity) == (("deepbrain",), 1)
    assert (found.tta, found.reports, found.mem, found.low_mem) == (True, False, 4096, True)


def test_a_place_that_neither_gives_is_named(tmp_path):
    with pytest.raises(UsageError, match=r"OUT_DIR, \{participant,group\} required"):
        from_file(tmp_path, 'bids_dir = "/raw"\n')


def test_an_unknown_task_is_an_error_of_ours_that_lists_the_known_ones():
    with pytest.raises(UsageError, match=r"\['tumour'\]; known are brain, deepbrain, .*wml$"):
        command.config_from(parse("--tasks", "brain", "tumour"))
    with pytest.raises(UsageError, match=r"\['x'\]; known are brain, .*wml, tumour$"):
        command.config_from(parse("--tasks", "x", "--model", "tumour=/m"))


def test_a_model_of_another_name_adds_a_task_of_ones_own():
    found = command.config_from(parse("--model", "tumour=/m", "--tasks", "tumour", "brain"))
    assert found.tasks == ("tumour", "brain")
    assert found.models == (("tumour", Path("/m")),)


@pytest.mark.parametrize("model", ["/m", "=/m", "a tumour=/m", "tumour="])
def test_a_model_of_no_task_is_an_error_of_ours(model):
    with pytest.raises(UsageError, match="TASK=PATH"):
        command.config_from(parse("--model", model))


def test_a_group_run_without_results_ends_with_2(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(command, "prepare_process", lambda: None)
    monkeypatch.setattr(command, "set_up_logging", lambda _: None)
    for name in ("NO_ET", "NIPYPE_NO_ET", "NIPYPE_CONFIG_DIR", "MPLCONFIGDIR"):
        monkeypatch.setenv(name, "")  # so that what the command sets is undone
    assert command.main([str(tmp_path), str(tmp_path / "out"), "group"]) == 2
    assert "run the participant level" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()

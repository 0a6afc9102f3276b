# PYTHON_ARGCOMPLETE_OK
"""``deepmrseg-bids``: the BIDS-App."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from deepmrseg_bids import __version__
from deepmrseg_bids.cli.common import (
    add_compute_options,
    both,
    complete,
    guarded,
    model_paths,
    positive,
    set_up_logging,
)
from deepmrseg_bids.config import RunConfig, given_path, parse_size, read_config
from deepmrseg_bids.errors import UsageError
from deepmrseg_bids.execution.signals import interruptible
from deepmrseg_bids.system import open_standard_streams, prepare_process
from deepmrseg_bids.tasks.registry import task_names

__all__ = ["build_parser", "config_from", "main", "parse"]

_USAGE = "%(prog)s BIDS_DIR OUT_DIR {participant,group} [options]"
_EPILOG = """\
exit codes: 0 everything requested is done; 2 wrong usage; 3 some sessions failed or were
skipped, the others are done; 4 nothing could be processed; 130 interrupted.
For research only, not for diagnosis.
"""
_PLACES = {"bids_dir": "BIDS_DIR", "out_dir": "OUT_DIR", "level": "{participant,group}"}


def build_parser() -> argparse.ArgumentParser:
    """The parser of ``deepmrseg-bids``; flags that NiPreps apps have mean the same here.

    What is not on the command line leaves no value behind, so that a ``--config-file`` can
    give it. A field of :class:`RunConfig` is the name of its flag.
    """
    parser = argparse.ArgumentParser(
        prog="deepmrseg-bids",
        usage=_USAGE,
        description="Segment raw brain MRI of a BIDS data set with DeepMRSeg networks.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        argument_default=argparse.SUPPRESS,
    )
    # None, not SUPPRESS: a place that a configuration file gives is left out here
    parser.add_argument("bids_dir", type=_path, nargs="?", default=None, metavar="BIDS_DIR",
                        help="the raw data set")  # fmt: skip
    parser.add_argument("out_dir", type=_path, nargs="?", default=None, metavar="OUT_DIR",
                        help="output folder")  # fmt: skip
    parser.add_argument("level", choices=("participant", "group"), nargs="?", default=None,
                        help="analysis level")  # fmt: skip
    parser.add_argument("--version", action="version", version=f"deepmrseg-bids {__version__}")
    _add_selection(parser.add_argument_group("what to process"))
    _add_resources(parser.add_argument_group("resources"))
    add_compute_options(parser.add_argument_group("networks"), defaults=False)
    _add_running(parser.add_argument_group("how to run"))
    _add_outputs(parser.add_argument_group("outputs"))
    return parser


def _path(text: str) -> Path:
    """A path for argparse."""
    try:
        return given_path(text)
    except UsageError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    except OSError:
        raise argparse.ArgumentTypeError(
            "the current folder no longer exists; give an absolute path"
        ) from None


def _size(text: str) -> int:
    """``--mem`` for argparse."""
    try:
        return parse_size(text)
    except UsageError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _add_selection(group: argparse._ArgumentGroup) -> None:
    group.add_argument(*both("--participant-label"), nargs="+", metavar="LABEL",
                       help="subjects, with or without sub-")  # fmt: skip
    group.add_argument(*both("--session-label", "--session-id"), nargs="+", metavar="LABEL",
                       help="sessions, with or without ses-")  # fmt: skip
    tasks = group.add_argument("--tasks", nargs="+", metavar="TASK",
                       help=f"of {', '.join(task_names())}; default: all that the session's images "
                       "allow")  # fmt: skip
    tasks.completer = lambda **_: task_names()  # type: ignore[attr-defined]  # for the shell
    group.add_argument("--model", action="append", metavar="TASK=PATH",
                       help="use another model (bundle) for a task, or add a task of your own: "
                            "NAME=PATH")  # fmt: skip
    group.add_argument(*both("--bids-filter-file"), type=_path, metavar="FILE",
                       help='JSON with pybids filters: {"t1w": {...}, "flair": {...}}')  # fmt: skip
    group.add_argument(*both("--bids-database-dir"), type=_path, metavar="DIR",
                       help="keep the index of the data set in this folder")  # fmt: skip
    group.add_argument(*both("--skip-bids-validation"), action="store_true",
                       help="do not require a valid dataset_description.json")  # fmt: skip
    group.add_argument(*both("--force-header"), action="store_true",
                       help="also segment images with neither sform nor qform: their axes are "
                            "assumed to point left, anterior and superior")  # fmt: skip


def _add_resources(group: argparse._ArgumentGroup) -> None:
    group.add_argument(*both("--nprocs", "--n-cpus"), type=positive, metavar="N",
                       help="cores for the whole run (default: all)")  # fmt: skip
    group.add_argument("--mem", type=_size, metavar="SIZE",
                       help="memory for the whole run: a number in MB, or with K, M, G or T "
                            "(default: the available memory)")  # fmt: skip
    group.add_argument(*both("--low-mem"), action="store_true",
                       help="use less memory, but more time: one session at a time")  # fmt: skip
    group.add_argument(*both("-w", "--work-dir"), type=_path, metavar="DIR",
                       help="for intermediate files (default: a temporary folder)")  # fmt: skip
    group.add_argument(*both("--clean-workdir"), action="store_true",
                       help="remove files of earlier runs from the work folder first")  # fmt: skip


def _add_running(group: argparse._ArgumentGroup) -> None:
    group.add_argument(*both("--config-file"), type=_path, metavar="FILE",
                       help="TOML file with any of these options; command-line options take "
                            "precedence")  # fmt: skip
    group.add_argument(*both("--dry-run"), action="store_true",
                       help="print the plan, with predicted time and memory; write "
                       "nothing")  # fmt: skip
    group.add_argument("--shard", metavar="K/N",
                       help="process only part K of N, with equal work per part: one job of an "
                            "array")  # fmt: skip
    group.add_argument(*both("--use-plugin", "--nipype-plugin-file"), type=_path, metavar="FILE",
                       help="YAML with a nipype plugin: {plugin: SLURM, plugin_args: {...}} "
                            "submits one job per session")  # fmt: skip
    group.add_argument("--force", action="store_true",
                       help="repeat completed work")  # fmt: skip
    group.add_argument(*both("--same-source"), action="store_true",
                       help="OUT_DIR contains results of this data set, which was moved or "
                            "changed since")  # fmt: skip
    group.add_argument(*both("--stop-on-first-crash"), action="store_true",
                       help="do not start further sessions after a failure")  # fmt: skip
    group.add_argument(*both("--write-graph"), action="store_true",
                       help="draw the workflow into OUT_DIR/logs")  # fmt: skip
    group.add_argument(*both("--resource-monitor"), action="store_true",
                       help="record processor and memory use in OUT_DIR/logs")  # fmt: skip


def _add_outputs(group: argparse._ArgumentGroup) -> None:
    group.add_argument(*both("--output-spaces"), nargs="+", metavar="SPACE",
                       help="also write label maps in these TemplateFlow spaces, such as "
                            "MNI152NLin2009cAsym or MNI152NLin2009cAsym:res-2; T1w, the space "
                            "of the scan, is always written")  # fmt: skip
    group.add_argument("--reference", nargs="+", action="extend", metavar="[NAME=]DIR",
                       help="group level: compare with the label maps of these BIDS derivatives "
                       "data sets (default name: that of the folder)")  # fmt: skip
    group.add_argument(*both("--adjust-for"), default="intracranial",
                       choices=("intracranial", "brain-mask"),
                       help="group level: what volumes are adjusted for: the intracranial volume "
                            "(default; the brain mask, if no session has a skull) or the brain "
                            "mask")  # fmt: skip
    group.add_argument("--ratings", nargs="+", action="extend", type=_path, metavar="FILE",
                       help="group level: quality ratings exported from the reports; results "
                            "rated fail are excluded from statistics")  # fmt: skip
    group.add_argument("--norms", type=_path, metavar="FILE",
                       help="group level: reference centiles of volumes: a TSV with name, sex, "
                            "age, centile_5 ... centile_95")  # fmt: skip
    group.add_argument(*both("--harmonise", "--harmonize"), metavar="COLUMN",
                       help="group level: harmonise volumes over the sites in this column of "
                            "participants.tsv (ComBat), in columns of their own; requires "
                            "deepmrseg-bids[harmonise]")  # fmt: skip
    group.add_argument("--probabilities", action="store_true", help="also write posteriors")
    group.add_argument("--regions", type=_path, metavar="FILE",
                       help="composite regions to measure, instead of lobes and tissues: a TSV "
                            "with index, name, labels, near")  # fmt: skip
    group.add_argument(*both("--reports-only"), action="store_true",
                       help="only write the HTML reports, from existing results")  # fmt: skip
    group.add_argument(*both("--no-reports"), dest="reports", action="store_false",
                       help="write no HTML reports")  # fmt: skip
    group.add_argument("-v", "--verbose", action="count", help="print more messages")
    group.add_argument("-q", "--quiet", action="count", help="print fewer messages")


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """A command line; options may stand before, among and behind the three places."""
    parser = build_parser()
    complete(parser)
    args = parser.parse_intermixed_args(argv)
    missing = [text for name, text in _PLACES.items() if getattr(args, name) is None]
    if missing and "config_file" not in args:
        parser.error(f"the following arguments are required: {', '.join(missing)}")
    return args


def config_from(args: argparse.Namespace) -> RunConfig:
    """The configuration of a command line; what it says wins over a ``--config-file``.

    Raises:
        UsageError: a value that means nothing.
    """
    given = {key: value for key, value in vars(args).items() if value is not None}
    file = given.pop("config_file", None)
    values: dict[str, Any] = {} if file is None else read_config(file)
    loud, quiet = given.pop("verbose", None), given.pop("quiet", None)
    if (loud, quiet) != (None, None):
        given["verbosity"] = (loud or 0) - (quiet or 0)
    if "model" in given:
        models = model_paths(given.pop("model"))
        given["models"] = tuple((task, path.absolute()) for task, path in models.items())
    for name in (
        "participant_label",
        "session_label",
        "tasks",
        "output_spaces",
        "reference",
        "ratings",
    ):
        if name in given:
            given[name] = tuple(given[name])
    values |= given
    if missing := [text for name, text in _PLACES.items() if name not in values]:
        raise UsageError(f"{', '.join(missing)} required; see deepmrseg-bids --help")
    return RunConfig(**values)


def _run(args: argparse.Namespace, argv: Sequence[str]) -> int:
    from deepmrseg_bids.execution.runner import PRELOAD, prepare_nipype
    from deepmrseg_bids.execution.worker_pool import warm_up

    config = config_from(args)
    set_up_logging(config.verbosity)
    command = shlex.join(["deepmrseg-bids", *argv])
    if config.dry_run:  # no folder, no workers: nothing is written
        return _level(config, command)
    if config.low_mem:  # workers give back what they do not use
        os.environ.setdefault("MALLOC_TRIM_THRESHOLD_", "131072")
    with tempfile.TemporaryDirectory(prefix="deepmrseg-nipype-") as folder:
        prepare_nipype(Path(folder), resource_monitor=config.resource_monitor)
        os.environ.setdefault("MPLCONFIGDIR", folder)
        if config.resource_monitor:  # nipype's monitor writes into the current folder
            os.chdir(folder)
        if config.level == "participant":
            warm_up(PRELOAD)
        return _level(config, command)


def _level(config: RunConfig, command: str) -> int:
    if config.level == "participant":
        from deepmrseg_bids.app.participant import run_participant

        return run_participant(config, command=command)
    from deepmrseg_bids.app.group import run_group

    return run_group(config, command=command)


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``deepmrseg-bids`` and return its exit code."""
    open_standard_streams()
    argv = sys.argv[1:] if argv is None else argv
    args = parse(argv)
    prepare_process()
    with interruptible():
        return guarded(lambda: _run(args, argv))


if __name__ == "__main__":
    sys.exit(main())

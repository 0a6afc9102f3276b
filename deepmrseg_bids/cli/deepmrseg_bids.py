"""``deepmrseg-bids``: the BIDS-App."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from deepmrseg_bids import __version__
from deepmrseg_bids.cli.common import (
    add_compute_options,
    guarded,
    model_paths,
    positive,
    set_up_logging,
)
from deepmrseg_bids.config import TASKS, RunConfig
from deepmrseg_bids.runtime import prepare_process

__all__ = ["build_parser", "main"]

_EPILOG = """\
exit codes: 0 all that was asked for is done; 2 wrong usage; 3 some sessions failed or were
skipped, the others are done; 4 nothing could be processed; 130 interrupted.
For research, not for diagnosis.
"""


def build_parser() -> argparse.ArgumentParser:
    """The parser of ``deepmrseg-bids``; flags that NiPreps apps have mean the same here."""
    parser = argparse.ArgumentParser(
        prog="deepmrseg-bids",
        description="Segment raw brain MRI of a BIDS data set with DeepMRSeg networks.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("bids_dir", type=Path, metavar="BIDS_DIR", help="the raw data set")
    parser.add_argument("out_dir", type=Path, metavar="OUT_DIR", help="where results go")
    parser.add_argument("level", choices=("participant", "group"), help="analysis level")
    parser.add_argument("--version", action="version", version=f"deepmrseg-bids {__version__}")
    _add_selection(parser.add_argument_group("what to process"))
    _add_resources(parser.add_argument_group("resources"))
    add_compute_options(parser.add_argument_group("networks"))  # type: ignore[arg-type]
    _add_outputs(parser.add_argument_group("outputs"))
    return parser


def _add_selection(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--participant-label", "--participant_label", nargs="+", default=[],
                       metavar="LABEL", help="subjects, with or without sub-")  # fmt: skip
    group.add_argument("--session-label", "--session_label", "--session-id", "--session_id",
                       nargs="+", default=[], metavar="LABEL",
                       help="sessions, with or without ses-")  # fmt: skip
    group.add_argument("--tasks", nargs="+", choices=TASKS, default=[],
                       help="default: all that the session's images allow")  # fmt: skip
    group.add_argument("--model", action="append", default=[], metavar="TASK=PATH",
                       help="use another bundle for a task")  # fmt: skip
    group.add_argument("--bids-filter-file", "--bids_filter_file", type=Path, metavar="FILE",
                       help='JSON with pybids filters: {"t1w": {...}, "flair": {...}}')  # fmt: skip
    group.add_argument("--bids-database-dir", "--bids_database_dir", type=Path, metavar="DIR",
                       help="keep the index of the data set here between runs")  # fmt: skip
    group.add_argument("--skip-bids-validation", "--skip_bids_validation", action="store_true",
                       help="do not check that BIDS_DIR looks like a BIDS data set")  # fmt: skip


def _add_resources(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--nprocs", "--n-cpus", "--n_cpus", type=positive, default=0, metavar="N",
                       help="cores for the whole run (default: all)")  # fmt: skip
    group.add_argument("-w", "--work-dir", "--work_dir", type=Path, metavar="DIR",
                       help="for intermediate files (default: a temporary folder)")  # fmt: skip


def _add_outputs(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--probabilities", action="store_true", help="write posteriors too")
    group.add_argument("--no-reports", "--no_reports", action="store_true",
                       help="write no HTML pages")  # fmt: skip
    group.add_argument("--force", action="store_true",
                       help="do again what earlier runs have finished")  # fmt: skip
    group.add_argument("-v", "--verbose", action="count", default=0, help="say more")
    group.add_argument("-q", "--quiet", action="count", default=0, help="say less")


def config_from(args: argparse.Namespace) -> RunConfig:
    """The configuration that a command line asks for.

    Raises:
        UsageError: a value that means nothing.
    """
    models = model_paths(args.model)
    return RunConfig(
        bids_dir=args.bids_dir.absolute(),
        out_dir=args.out_dir.absolute(),
        level=args.level,
        participant_label=tuple(args.participant_label),
        session_label=tuple(args.session_label),
        tasks=tuple(args.tasks),
        models=tuple((task, path.absolute()) for task, path in models.items()),
        bids_filter_file=args.bids_filter_file,
        bids_database_dir=args.bids_database_dir,
        skip_bids_validation=args.skip_bids_validation,
        nprocs=args.nprocs,
        omp_nthreads=args.omp_nthreads or 0,
        device=args.device,
        precision=args.precision,
        probabilities=args.probabilities,
        tta=args.tta,
        work_dir=args.work_dir.absolute() if args.work_dir else None,
        reports=not args.no_reports,
        force=args.force,
        verbosity=args.verbose - args.quiet,
    )


def _run(args: argparse.Namespace, argv: Sequence[str]) -> int:
    from deepmrseg_bids.app.execute import prepare_nipype

    config = config_from(args)
    command = shlex.join(["deepmrseg-bids", *argv])
    with tempfile.TemporaryDirectory(prefix="deepmrseg-nipype-") as folder:
        prepare_nipype(Path(folder))
        os.environ.setdefault("MPLCONFIGDIR", folder)
        if config.level == "participant":
            from deepmrseg_bids.app.participant import run_participant

            return run_participant(config, command=command)
        from deepmrseg_bids.app.group import run_group

        return run_group(config)


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``deepmrseg-bids`` and return its exit code."""
    argv = sys.argv[1:] if argv is None else argv
    args = build_parser().parse_args(argv)
    prepare_process()
    set_up_logging(args.verbose - args.quiet)
    return guarded(lambda: _run(args, argv))


if __name__ == "__main__":
    sys.exit(main())

"""``deepmrseg``: the library on the command line."""

from __future__ import annotations

import argparse
import json
import logging
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deepmrseg_bids import __version__
from deepmrseg_bids.cli.common import (
    add_compute_options,
    complete,
    folder,
    guarded,
    model_paths,
    positive,
    set_up_logging,
    thread_count,
)
from deepmrseg_bids.errors import DeepMRSegError, SkippedTask, UsageError
from deepmrseg_bids.files import check_writable, refuse_foreign
from deepmrseg_bids.system import (
    forget_peak_memory,
    open_standard_streams,
    peak_memory_mib,
    prepare_process,
)
from deepmrseg_bids.tasks.registry import task_names
from deepmrseg_bids.tasks.spec import PAIRED, T1W
from deepmrseg_bids.wording import why

if TYPE_CHECKING:
    from deepmrseg_bids.imaging.nifti import Volume
    from deepmrseg_bids.inference.predictor import PredictorPool
    from deepmrseg_bids.reports.subject.single import Predicted
    from deepmrseg_bids.tasks.results import Segmentation
    from deepmrseg_bids.tasks.spec import TaskSpec

__all__ = ["main"]

_log = logging.getLogger("deepmrseg")


def build_parser() -> argparse.ArgumentParser:
    """The parser of ``deepmrseg``."""
    parser = argparse.ArgumentParser(
        prog="deepmrseg", description="Brain segmentation with DeepMRSeg networks."
    )
    parser.add_argument("--version", action="version", version=f"deepmrseg {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_predict(commands)
    _add_train(commands)
    _add_crossval(commands)
    _add_evaluate(commands)
    _add_models(commands)
    _add_export(commands)
    return parser


def _add(commands: Any, name: str, text: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text)
    parser.add_argument("-v", "--verbose", action="count", default=0, help="print more messages")
    parser.add_argument("-q", "--quiet", action="count", default=0, help="print fewer messages")
    return parser


def _add_predict(commands: Any) -> None:
    parser = _add(commands, "predict", "Segment images: label maps and tables of volumes.")
    parser.add_argument("images", nargs="+", type=Path, metavar="T1W", help="T1w images (NIfTI)")
    parser.add_argument(
        "--task", action="append", metavar="TASK",
        help=f"task to run: {', '.join(task_names())}, or a task of --model; may be given "
             "several times",
    )  # fmt: skip
    parser.add_argument(
        "--flair", dest="pairs", type=Path, action="append", default=[], metavar="FLAIR",
        help="the FLAIR that belongs to the T1w (for wml)",
    )  # fmt: skip
    parser.add_argument("-o", "--out", type=folder, required=True, help="output folder")
    parser.add_argument("--model", action="append", default=[], metavar="[TASK=]PATH",
                        help="use another model (bundle) for a task; a path alone also runs the "
                             "task of the bundle")  # fmt: skip
    parser.add_argument("--probabilities", action="store_true", help="also write the posteriors")
    parser.add_argument("--report", action="store_true",
                        help="also write an HTML report of each image, NAME.html")  # fmt: skip
    parser.add_argument("--force-header", "--force_header", action="store_true",
                        help="also segment images with neither sform nor qform")  # fmt: skip
    add_compute_options(parser)
    parser.set_defaults(run=_predict)


def _add_train(commands: Any) -> None:
    parser = _add(
        commands,
        "train",
        "Train a network; writes checkpoints, learning curves and a model (bundle).",
    )
    parser.add_argument("samples", type=Path, metavar="SAMPLES.tsv", help="table of samples")
    parser.add_argument("--config", required=True, help="a TOML file, or the name of a preset")
    parser.add_argument("-o", "--out", type=folder, required=True, help="the run's folder")
    parser.add_argument("--resume", action="store_true", help="continue from the checkpoint")
    parser.add_argument("--init", type=Path, metavar="BUNDLE",
                        help="start from the weights of this bundle (fine-tuning)")  # fmt: skip
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:i")
    parser.add_argument("--omp-nthreads", "--omp_nthreads", type=positive, metavar="N",
                        help="threads (default: all cores)")  # fmt: skip
    parser.add_argument("--cache", type=Path, help="store prepared samples in this folder")
    parser.add_argument("--steps", type=positive, help="replace the number of steps")
    parser.add_argument("--folds", type=int, help="number of folds (0: train on all participants)")
    parser.add_argument("--fold", type=int, help="fold used for validation (counted from 0)")
    parser.add_argument("--keep", choices=("last", "best"),
                        help="save the last weights or those of the best validation")  # fmt: skip
    parser.add_argument("--patience", type=int, metavar="N",
                        help="stop after N validations without a higher Dice")  # fmt: skip
    parser.add_argument("--precision", choices=("auto", "float32", "bfloat16"),
                        help="auto: bfloat16 if the hardware supports it")  # fmt: skip
    parser.add_argument("--data-workers", "--data_workers", type=positive, metavar="N", default=0,
                        help="processes that prepare the next steps' crops while a GPU works "
                             "(default: none)")  # fmt: skip
    parser.add_argument("--tensorboard", action="store_true",
                        help="write TensorBoard events (requires tensorboard)")  # fmt: skip
    parser.set_defaults(run=_train)


def _add_crossval(commands: Any) -> None:
    parser = _add(
        commands,
        "crossval",
        "Compare DeepMRSeg with a UNet by repeated cross-validation, as the "
        "paper does. Completed runs in the output folder are skipped.",
    )
    parser.add_argument("samples", type=Path, metavar="SAMPLES.tsv", help="table of samples")
    parser.add_argument("--config", required=True, help="a TOML file, or the name of a preset")
    parser.add_argument("-o", "--out", type=folder, required=True, help="output folder")
    parser.add_argument("--folds", type=positive, default=4, metavar="K", help="default: 4")
    parser.add_argument("--repeats", type=positive, default=1, metavar="R",
                        help="number of repetitions with new folds (default: 1)")  # fmt: skip
    parser.add_argument("--fold", type=int, metavar="I",
                        help="only this fold, counted from 0: one job of an array; the call "
                             "that finds all folds completed writes the tables")  # fmt: skip
    parser.add_argument("--networks", nargs="+", choices=("deepmrseg", "unet"),
                        default=["deepmrseg", "unet"], help="default: both")  # fmt: skip
    parser.add_argument("--processes", type=positive, default=1, metavar="N",
                        help="parallel runs, which share the threads (default: 1)")  # fmt: skip
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:i")
    parser.add_argument("--omp-nthreads", "--omp_nthreads", type=positive, metavar="N",
                        help="threads of all processes together (default: all cores)")  # fmt: skip
    parser.add_argument("--cache", type=Path, help="store prepared samples in this folder")
    parser.add_argument("--steps", type=positive, help="replace the number of steps")
    parser.set_defaults(run=_crossval)


def _add_evaluate(commands: Any) -> None:
    parser = _add(commands, "evaluate", "Compare a model with reference labels.")
    parser.add_argument("samples", type=Path, metavar="SAMPLES.tsv", help="table of samples")
    parser.add_argument("--task", metavar="TASK",
                        help=f"the model of this task: {', '.join(task_names())}, or a task of "
                        "--model TASK=PATH")  # fmt: skip
    parser.add_argument("--model", action="append", default=[], metavar="[TASK=]PATH",
                        help="the bundle to evaluate; TASK=PATH: another bundle for a task on "
                        "its way (brain)")  # fmt: skip
    parser.add_argument("-o", "--out", type=folder, required=True, help="output folder")
    parser.add_argument("--prepared", action="store_true",
                        help="the images are prepared inputs (crops, brain-extracted)")  # fmt: skip
    add_compute_options(parser)
    parser.set_defaults(run=_evaluate)


def _add_models(commands: Any) -> None:
    parser = _add(commands, "models", "List the bundles, or check them (models verify).")
    parser.add_argument("action", nargs="?", choices=("list", "verify"), default="list")
    parser.add_argument("--json", action="store_true", help="as JSON")
    parser.set_defaults(run=_models)


def _add_export(commands: Any) -> None:
    parser = _add(
        commands, "export", "Write a model for other software. It is compared with PyTorch first."
    )
    parser.add_argument("model", metavar="MODEL", help="a shipped model, or the path of a bundle")
    parser.add_argument("--format", choices=("onnx",), default="onnx", help="default: onnx")
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="FILE")
    parser.add_argument("--float16", action="store_true",
                        help="store weights as float16: half the size, same results")  # fmt: skip
    parser.set_defaults(run=_export)


def _predict(args: argparse.Namespace) -> int:
    from deepmrseg_bids.inference.predictor import PredictorPool, resolve_device, set_threads
    from deepmrseg_bids.tasks.registry import needed_models

    if args.pairs and len(args.images) > 1:
        raise UsageError("--flair requires exactly one T1w: run predict once for each session")
    if len(args.pairs) > 1:
        raise UsageError(f"one --flair was expected for one T1w, got {len(args.pairs)}")
    names = [_stem(path) for path in args.images]
    if len(set(names)) < len(names):
        raise UsageError("two images have the same file name: use two output folders")
    models, tasks = _asked_tasks(args)
    tasks, lacking = _possible(tasks, {T1W, PAIRED} if args.pairs else {T1W})
    check_writable(args.out)
    set_threads(thread_count(args.omp_nthreads))
    pool = PredictorPool(
        models,
        resolve_device(args.device),
        args.precision,
        args.tta,
        fallback=args.device == "auto",
    )
    for model in needed_models(tasks):
        with suppress(SkippedTask):  # said for each image
            pool(model)
    failed = sum(
        _predict_one(args, path, name, tasks, pool)
        for path, name in zip(args.images, names, strict=True)
    )
    return 3 if failed or lacking else 0


def _possible(tasks: Sequence[TaskSpec], given: set[str]) -> tuple[list[TaskSpec], list[TaskSpec]]:
    """The tasks that can be done with the images given, and those that lack one.

    Raises:
        UsageError: none can be done.
    """
    lacking = [task for task in tasks if not given.issuperset(task.required)]
    possible = [task for task in tasks if task not in lacking]
    if lacking:
        named = " and ".join(task.name for task in lacking)
        text = f"{named} requires the {PAIRED} of the T1w: add --flair FILE"
        if not possible:
            raise UsageError(text)
        print(text, file=sys.stderr)
    return possible, lacking


def _asked_tasks(args: argparse.Namespace) -> tuple[dict[str, Path], list[TaskSpec]]:
    """The bundles of ``--model``, by task, and the tasks to do.

    ``--model PATH`` alone asks for the task of that bundle.
    """
    from deepmrseg_bids.inference.bundle import ModelBundle
    from deepmrseg_bids.tasks.registry import known_tasks

    bare, models = _split_models(args.model)
    asked = list(args.task or [])
    for entry in bare:
        bundle = ModelBundle.open(entry)
        models[bundle.task] = bundle.path
        asked.append(bundle.task)
    if not asked:
        raise UsageError("predict needs --task TASK, or --model PATH for the task of a bundle")
    known = known_tasks(models, asked=asked)
    if unknown := [name for name in asked if name not in known]:
        raise UsageError(f"unknown task {unknown[0]!r}; known are {', '.join(known)}")
    offered = {name: task.bundle for name, task in known.items() if task.bundle is not None}
    return {**offered, **models}, [task for name, task in known.items() if name in asked]


def _split_models(entries: Sequence[str]) -> tuple[list[str], dict[str, Path]]:
    """Folders of bundles alone, and those that are given as TASK=PATH."""
    bare = [entry for entry in entries if "=" not in entry or Path(entry).is_dir()]
    return bare, model_paths([entry for entry in entries if entry not in bare])


def _predict_one(
    args: argparse.Namespace, path: Path, name: str, tasks: Sequence[TaskSpec], pool: PredictorPool
) -> int:
    """Segment one image; the number of tasks that failed."""
    forget_peak_memory()  # of the image before
    start, before = time.perf_counter(), pool.seconds
    try:
        failed = _run_tasks(args, path, name, tasks, pool)
    except Exception as error:  # the edge of an image: it costs no other one
        _say_failed(name, error)
        return 1
    seconds = time.perf_counter() - start
    _log.info("%s: %.1f s, %.1f s of it in the networks, peak %.0f MiB",
              name, seconds, pool.seconds - before, peak_memory_mib())  # fmt: skip
    return failed


def _run_tasks(
    args: argparse.Namespace, path: Path, name: str, tasks: Sequence[TaskSpec], pool: PredictorPool
) -> int:
    """Do the tasks of one image; the number of those that failed.

    Raises:
        DeepMRSegError: the T1w cannot be used.
    """
    from deepmrseg_bids.findings import worst_first
    from deepmrseg_bids.reports.subject.single import Predicted, single_report
    from deepmrseg_bids.tasks.pipeline import lost_tasks, run
    from deepmrseg_bids.tasks.qc import check_image
    from deepmrseg_bids.tasks.results import Segmentation

    images, errors = _read_images(args, path)
    seen = (*images[T1W].findings, *check_image(images[T1W]))
    lost = lost_tasks(tasks, errors)
    specs = {task.name: task for task in tasks if task.name not in lost}
    done: list[Predicted] = []
    named = {task.name: task for task in tasks}
    for task, result in (*lost.items(), *run(images, specs.values(), pool)):
        try:
            if not isinstance(result, Segmentation):
                raise result
            written = _write_result(args, path, specs[task], result)
        except (DeepMRSegError, OSError) as error:
            _say_failed(f"{name}: {task}", error)
            done.append(Predicted(named[task], problem=why(error)))
            continue
        done.append(replace(written, findings=(*seen, *result.findings)))
        for finding in worst_first((*seen, *result.findings)):
            level = logging.INFO if finding.severity == "info" else logging.WARNING
            _log.log(level, "%s: %s: %s", name, task, finding)
    if args.report:
        bundles = {model: pool(model).bundle for one in done if one.morph
                   for model in one.spec.models}  # fmt: skip
        command = shlex.join(["deepmrseg", *args.command_line])
        _log.info("%s: report", single_report(args.out / f"{name}.html", done, bundles,
                                              command=command))  # fmt: skip
    return sum(one.morph is None for one in done)


def _read_images(
    args: argparse.Namespace, path: Path
) -> tuple[dict[str, Volume], dict[str, DeepMRSegError]]:
    """The T1w and its FLAIR, by modality; why a FLAIR cannot be used.

    Raises:
        DeepMRSegError: the T1w cannot be used.
    """
    from deepmrseg_bids.imaging.nifti import read_volume

    images, errors = {T1W: read_volume(path, force_header=args.force_header)}, {}
    for pair in args.pairs:
        try:
            images[PAIRED] = read_volume(pair, force_header=args.force_header)
        except DeepMRSegError as error:
            errors[PAIRED] = error
    return images, errors


def _say_failed(what: str, error: Exception) -> None:
    """One line on standard error; with ``-v`` the traceback of what was not foreseen."""
    print(f"{what}: {why(error)}", file=sys.stderr)
    if not isinstance(error, DeepMRSegError | OSError | MemoryError):
        _log.debug("", exc_info=error)


def _write_result(
    args: argparse.Namespace, path: Path, task: TaskSpec, result: Segmentation
) -> Predicted:
    """Write label map, table and, if asked for, posteriors of one task; what a report needs."""
    from deepmrseg_bids.bids.names import REGIONS, entities_text
    from deepmrseg_bids.bids.tables import write_lesions
    from deepmrseg_bids.imaging.nifti import write_labels, write_probabilities
    from deepmrseg_bids.reports.subject.single import Predicted
    from deepmrseg_bids.session.publish import morph_rows, region_rows, write_volumes
    from deepmrseg_bids.tasks.regions import composition_of, read_regions
    from deepmrseg_bids.tasks.results import native_posteriors
    from deepmrseg_bids.tasks.wml import LesionSegmentation

    name, kind = _stem(path), entities_text(task.label_map)
    image = path
    dseg = args.out / f"{name}_{kind}.nii.gz"
    table = args.out / f"{name}_seg-{task.name}_morph.tsv"
    stems = [name, *(f"{_stem(pair)}_space-{task.native}" for pair in args.pairs)]
    endings = (f"{kind}.nii.gz", f"seg-{task.name}_probseg.nii.gz")
    files = [args.out / f"{stem}_{ending}" for stem in stems for ending in endings]
    beside = {
        args.out / f"{name}_{entities_text(mask.output)}.nii.gz": mask.labels
        for mask in result.beside
    }
    refuse_foreign([table, *files, *beside], table.with_suffix(".json"))
    write_volumes(table, morph_rows(result), result)  # first, for its JSON marks the others as ours
    regions = None
    if task.regions:
        regions = args.out / f"{name}_seg-{task.name}_desc-{REGIONS}_morph.tsv"
        made_of = {"Regions": composition_of(read_regions(task.regions))}
        write_volumes(regions, region_rows(result), result, provenance=made_of)
    for mask, labels in beside.items():
        write_labels(mask, labels)
    aligned = True
    if isinstance(result, LesionSegmentation):
        aligned = result.aligned
        native = f"{_stem(args.pairs[0])}_space-{task.native}"
        image, dseg = args.pairs[0], args.out / f"{native}_{kind}.nii.gz"
        write_labels(dseg, result.on_flair)
        if result.lesions is not None:
            write_lesions(args.out / f"{name}_seg-{task.name}_lesions.tsv", result.lesions)
    if aligned:
        write_labels(args.out / f"{name}_{kind}.nii.gz", result.labels)
    if args.probabilities and task.probabilities and result.posteriors:
        stem = name if aligned else native
        write_probabilities(
            args.out / f"{stem}_seg-{task.name}_probseg.nii.gz",
            native_posteriors(result),
            result.labels.grid,
            count=len(result.table),
        )
    return Predicted(task, image, dseg, table, result.table, regions=regions)


def _stem(path: Path) -> str:
    name = path.name
    for ending in (".nii.gz", ".nii"):
        name = name.removesuffix(ending)
    return name.removesuffix("_T1w").removesuffix("_FLAIR")


def _train(args: argparse.Namespace) -> int:
    from deepmrseg_bids.inference.predictor import resolve_device, set_threads
    from deepmrseg_bids.train.config import load_config
    from deepmrseg_bids.train.loop import TrainingRun, train
    from deepmrseg_bids.train.samples import load_samples

    set_threads(thread_count(args.omp_nthreads))
    config = load_config(
        args.config,
        steps=args.steps,
        folds=args.folds,
        fold=args.fold,
        keep=args.keep,
        patience=args.patience,
        precision=args.precision,
    )
    run = TrainingRun(
        load_samples(args.samples),
        config,
        args.out,
        resume=args.resume,
        device=str(resolve_device(args.device)),
        cache=args.cache,
        tensorboard=args.tensorboard,
        init=args.init,
        workers=args.data_workers,
    )
    check_writable(args.out)
    print(train(run))
    return 0


def _crossval(args: argparse.Namespace) -> int:
    from deepmrseg_bids.inference.predictor import resolve_device
    from deepmrseg_bids.reports.crossval import write_report
    from deepmrseg_bids.train.config import load_config
    from deepmrseg_bids.train.crossval import CrossValidation, crossval
    from deepmrseg_bids.train.samples import load_samples

    samples = load_samples(args.samples)
    protocol = CrossValidation(
        load_config(args.config, steps=args.steps),
        args.out,
        folds=args.folds,
        repeats=args.repeats,
        networks=tuple(dict.fromkeys(args.networks)),
    )
    check_writable(args.out)
    judged = crossval(
        samples,
        protocol,
        fold=args.fold,
        processes=args.processes,
        threads=thread_count(args.omp_nthreads),
        device=str(resolve_device(args.device)),
        cache=args.cache,
    )
    if judged is None:
        print("this fold is completed; the tables are written when all folds are")
        return 0
    write_report(judged, protocol, samples)
    print((args.out / "table.md").read_text(encoding="utf-8"))
    return 0


def _evaluate(args: argparse.Namespace) -> int:
    from deepmrseg_bids.inference.bundle import ModelBundle
    from deepmrseg_bids.inference.predictor import PredictorPool, resolve_device, set_threads
    from deepmrseg_bids.tasks.registry import task_of_model
    from deepmrseg_bids.train.config import settings_of
    from deepmrseg_bids.train.evaluation import evaluate, write_tables
    from deepmrseg_bids.train.samples import load_samples

    bare, models = _split_models(args.model)
    if len(bare) != (args.task is None):
        raise UsageError("evaluate requires either --task (the shipped model) or --model PATH")
    check_writable(args.out)
    set_threads(thread_count(args.omp_nthreads))
    bundle = ModelBundle.open(bare[0] if bare else _model_of(args.task, models))
    models[bundle.task] = bundle.path
    pool = PredictorPool(models, resolve_device(args.device), args.precision, args.tta)
    samples = load_samples(args.samples)
    check_writable(args.out)
    tables = [args.out / name for name in ("per_sample.tsv", "summary.tsv")]
    refuse_foreign(tables, args.out / "summary.json")
    rows = evaluate(
        samples,
        task_of_model(bundle.task, bundle.path),
        pool,
        settings_of(bundle.path),
        prepared=args.prepared,
        report=_log.info,
    )
    summary = write_tables(rows, args.out)
    for entry in summary["structures"]:
        print(f"{entry['name']:30s} n={entry['n']:3d}  Dice {_score(entry['f1_mean'])}")
    print(f"{'mean':30s} n={summary['samples']:3d}  Dice {_score(summary['f1_mean'])}")
    return 0


def _model_of(task: str, models: Mapping[str, Path]) -> Path:
    """The bundle of a task: the one that is given, or that comes with it.

    Raises:
        UsageError: there is no such task, or no model of it.
    """
    from deepmrseg_bids.inference.bundle import shipped_bundles
    from deepmrseg_bids.tasks.registry import known_tasks

    known = known_tasks(models, asked=(task,))
    if task not in known:
        raise UsageError(
            f"unknown task {task!r}; known are {', '.join(known)}; for a task of your own use "
            "--model PATH with its bundle"
        )
    path = models.get(task) or known[task].bundle or shipped_bundles().get(task)
    if path is None:
        raise UsageError(f"{task}: no model is installed; use --model {task}=PATH")
    return path


def _score(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.4f}"


def _models(args: argparse.Namespace) -> int:
    from deepmrseg_bids.inference.bundle import ModelBundle, shipped_bundles

    entries, broken = [], 0
    for task, path in shipped_bundles().items():
        try:
            bundle = ModelBundle.open(path)
        except DeepMRSegError as error:
            print(f"error: {error}", file=sys.stderr)
            broken += 1
            continue
        entries.append(
            {
                "task": task,
                "version": bundle.version,
                "labels": list(bundle.labels.names),
                "sha256": bundle.sha256,
                "megabytes": round((path / "weights.safetensors").stat().st_size / 1e6, 2),
                **bundle.facts,
            }
        )
    if args.json:
        print(json.dumps(entries, indent=2))
    elif args.action == "verify":
        for entry in entries:
            print(f"{entry['task']}: ok, SHA-256 {entry['sha256']}")
    else:
        for entry in entries:
            dice = entry.get("dice_held_out", {}).get("mean")
            print(f"{entry['task']} {entry['version']} ({entry['megabytes']} MB)")
            print(f"  labels:   {', '.join(entry['labels'])}")
            print(f"  data:     {entry.get('training_data', 'unknown')}")
            print(f"  licence:  {entry.get('licence', 'unknown')}")
            print(f"  accuracy: mean Dice {dice} on held-out samples")
            print(f"  SHA-256:  {entry['sha256']}")
    return 1 if broken else 0


def _export(args: argparse.Namespace) -> int:
    from deepmrseg_bids.inference.bundle import ModelBundle, shipped_bundles
    from deepmrseg_bids.inference.onnx_export import export_onnx

    path = shipped_bundles().get(args.model, Path(args.model))
    if not path.is_dir():
        raise UsageError(
            f"{args.model}: neither a shipped model ({', '.join(shipped_bundles())}) nor the "
            "folder of a bundle"
        )
    if args.out.is_dir():
        raise UsageError(f"{args.out}: a folder; -o is the file to write, such as {path.name}.onnx")
    difference = export_onnx(ModelBundle.open(path), args.out, half=args.float16)
    print(f"{args.out}: largest difference from PyTorch {difference:.1e}")
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``deepmrseg`` and return its exit code."""
    open_standard_streams()
    parser = build_parser()
    complete(parser)
    args = parser.parse_args(argv)
    args.command_line = sys.argv[1:] if argv is None else argv
    prepare_process()
    set_up_logging(args.verbose - args.quiet)
    code: int = guarded(lambda: args.run(args))
    return code


if __name__ == "__main__":
    sys.exit(main())

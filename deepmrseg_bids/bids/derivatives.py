"""What OUT_DIR holds: the files of the data set, sidecars, tables, and how they get there."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from deepmrseg_bids.bids.description import (
    DESCRIPTION,
    keep_lines,
    keep_text,
    link_to,
    merged_description,
    read_description,
)
from deepmrseg_bids.bids.label_tables import check_label_table, publish_label_table
from deepmrseg_bids.bids.names import anat_folder, label_map_path, label_table_path
from deepmrseg_bids.bids.tables import (
    MORPH_COLUMNS,
    MorphRow,
    SessionRow,
    read_morph,
    read_sessions,
    write_morph,
    write_sessions,
)
from deepmrseg_bids.files import (
    Staging,
    publish,
    read_json,
    remove_leftovers,
    write_bytes,
    write_json,
    write_text,
)
from deepmrseg_bids.imaging.labels import LabelTable
from deepmrseg_bids.tasks.custom import unknown_task
from deepmrseg_bids.tasks.registry import known_tasks
from deepmrseg_bids.tasks.spec import T1W, TaskSpec

__all__ = [
    "MORPH_COLUMNS",
    "TEMPLATES",
    "MorphRow",
    "SessionRow",
    "Staging",
    "label_maps_of",
    "publish",
    "read_morph",
    "read_sessions",
    "remove_leftovers",
    "task_facts",
    "tasks_in",
    "write_bytes",
    "write_dataset_files",
    "write_json",
    "write_morph",
    "write_sessions",
    "write_text",
]

TEMPLATES = "templateflow"  # that of the templates
_TEMPLATEFLOW = "https://github.com/templateflow/templateflow"
_DEFAULTS: Mapping[str, Any] = {
    "Name": "DeepMRSeg: brain MRI segmentation",
    "BIDSVersion": "1.10.0",
    "HowToAcknowledge": "Please cite the papers named in CITATION.md.",
    "DatasetLinks": {TEMPLATES: _TEMPLATEFLOW},
}
_IGNORED = (
    "*.html", "figures", "logs/", "*_morph.*", "*_lesions.*", "*_change.*", "*_xfm.*", "group*",
    "CITATION.md",
)  # fmt: skip
_README = """\
# Brain MRI segmentation

Written by deepmrseg-bids {version} from the data set at `{raw}` (relative to this folder).

- `sub-*/[ses-*/]anat/`: label maps (`_dseg`), brain masks (`_mask`) and volumes (`_morph`), on
  the grid of the image after which they are named, unless the name contains `space-`.
- `seg-<task>_dseg.tsv`: label tables (index and name of each structure).
- `group_seg-<task>_morph.tsv`: the volumes of all sessions (after the group level); other
  `group_*` tables: outliers, asymmetry, change, agreement. Their `.json` describe the columns.
- `sub-*.html`, `group.html`: visual reports. Check them before using the results.
- `logs/`: log of each run, and the task status of each session.

Each file has a `.json` sidecar: sources, models, parameters, and warnings about the input.
For research only. Not a medical device; not for diagnosis or treatment. How to cite: see
`CITATION.md`.
"""
_CITATION = """\
# How to cite

Segmentation networks: Doshi J, Erus G, Habes M, Davatzikos C. DeepMRSeg: a convolutional deep
neural network for anatomy and abnormality segmentation on MR images. arXiv:1907.02110 (2019).

Software: deepmrseg-bids {version}.

The models are subject to the terms of the data they were trained on; terms and references are
listed in the model cards (`deepmrseg models`).
"""


def task_facts(task: TaskSpec) -> dict[str, Any]:
    """What ``seg-<task>_dseg.json`` says of a task, so that its results can be shown later.

    By the inheritance principle of BIDS the entries hold for every label map of the task, so
    none of them has the name of one that its own sidecar has.
    """
    return {
        "TaskTitle": task.title,
        "TaskDescription": task.description,
        "NativeImage": task.native,
    }


def tasks_in(out_dir: Path, more: Iterable[str] = ()) -> dict[str, TaskSpec]:
    """The tasks that are known, and those of which only the results in OUT_DIR are.

    Args:
        more: names of tasks that have results, also without a label table.
    """
    tasks = known_tasks()
    tables = (path.name for path in out_dir.glob("seg-*_dseg.tsv"))
    names = {name.removeprefix("seg-").removesuffix("_dseg.tsv") for name in tables}
    for name in sorted(names | set(more)):
        if name not in tasks and name.isascii() and name.isalnum():
            path = out_dir / label_table_path(name)
            try:
                facts = read_json(path.with_suffix(".json"))
            except (OSError, ValueError):
                facts = {}
            tasks[name] = unknown_task(name, facts if isinstance(facts, dict) else {})
    return tasks


def label_maps_of(out_dir: Path, task: TaskSpec, source: str) -> Iterator[Path]:
    """The label maps of a session: first that on the grid of the image it was found in.

    Args:
        source: the stem of the image that the tables of the session are named after.
    """
    t1w = f"{source}_{T1W}.nii.gz"
    if task.native != T1W:
        pattern = label_map_path(f"sub-x_{task.native}.nii.gz", task.label_map, space=task.native)
        yield from sorted((out_dir / anat_folder(t1w)).glob(pattern.name.replace("sub-x", "*")))
    path = out_dir / label_map_path(t1w, task.label_map)
    if path.exists():
        yield path


def write_dataset_files(
    out_dir: str | os.PathLike[str],
    bids_dir: str | os.PathLike[str],
    *,
    tasks: Sequence[TaskSpec],
    tables: Mapping[str, LabelTable],
    version: str,
) -> None:
    """Make OUT_DIR a BIDS derivatives data set; repeating it changes nothing.

    Writes dataset_description.json, .bidsignore, README, CITATION.md and one label table a
    task. BIDS_DIR is linked by its path relative to OUT_DIR. What users added to the first
    two stays, and so does a README or CITATION.md that they changed.

    Args:
        tasks: those of the run.
        tables: the label table of each task.
        version: of this software.

    Raises:
        ForeignFileError: a label table is not ours to replace.
        DatasetError: OUT_DIR cannot be written.
    """
    out, raw = Path(out_dir), Path(bids_dir)
    for task in dict.fromkeys([*tables, *(spec.name for spec in tasks)]):
        check_label_table(out, task)
    link = link_to(raw, out)
    old = read_description(out)
    tree = merged_description(old, raw, link, defaults=_DEFAULTS, version=version)
    write_json(out / DESCRIPTION, tree)
    keep_lines(out / ".bidsignore", _IGNORED)
    keep_text(out / "README", _README, version=version, raw=link)
    keep_text(out / "CITATION.md", _CITATION, version=version)
    for task, table in tables.items():
        publish_label_table(out, task, table)
    for spec in tasks:
        write_json(out / label_table_path(spec.name).with_suffix(".json"), task_facts(spec))

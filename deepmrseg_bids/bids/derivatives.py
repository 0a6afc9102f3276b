"""What OUT_DIR holds: the files of the data set, sidecars, tables, and how they get there."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from deepmrseg_bids.bids.names import label_table_path
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
from deepmrseg_bids.findings import Finding, worst_first
from deepmrseg_bids.imaging.labels import LabelTable

__all__ = [
    "DESCRIPTIONS",
    "MORPH_COLUMNS",
    "TEMPLATES",
    "MorphRow",
    "SessionRow",
    "Staging",
    "described",
    "publish",
    "read_morph",
    "read_sessions",
    "remove_leftovers",
    "sidecar",
    "write_bytes",
    "write_dataset_files",
    "write_json",
    "write_morph",
    "write_sessions",
    "write_text",
]

DESCRIPTIONS = {
    "brain": "Brain mask",
    "deepbrain": "Deep brain structures",
    "hippocampus": "Anterior and posterior hippocampus",
    "wml": "White-matter lesions",
}
RAW = "raw"  # the name of BIDS_DIR in BIDS URIs
TEMPLATES = "templateflow"  # that of the templates
_TEMPLATEFLOW = "https://github.com/templateflow/templateflow"
_BIDS_VERSION = "1.10.0"
_IGNORED = (
    "*.html", "figures", "logs/", "*_morph.*", "*_lesions.*", "*_xfm.*", "group*",
    "CITATION.md",
)  # fmt: skip
_README = """\
# Brain MRI segmentation

Made by deepmrseg-bids {version} from the data set at `{raw}` (relative to this folder).

- `sub-*/[ses-*/]anat/`: label maps (`_dseg`), brain masks (`_mask`) and volumes (`_morph`), all
  on the grid of the image that they are named after, unless `space-` says otherwise.
- `seg-<task>_dseg.tsv`: what the numbers in the label maps mean.
- `group_seg-<task>_morph.tsv`: the volumes of all sessions (after the group level); other
  `group_*` tables: outliers, asymmetry, change, agreement. Their `.json` describe the columns.
- `sub-*.html`, `group.html`: visual reports. Look at them before using the numbers.
- `logs/`: what was run, and what became of each session.

Each file has a `.json` beside it: its sources, the models, the parameters, and warnings about
the input. For research only: not a medical device. How to cite: see `CITATION.md`.
"""
_CITATION = """\
# How to cite

Segmentation networks: Doshi J, Erus G, Habes M, Davatzikos C. DeepMRSeg: a convolutional deep
neural network for anatomy and abnormality segmentation on MR images. arXiv:1907.02110 (2019).

Software: deepmrseg-bids {version}.

The models carry the terms and the references of the data they were trained on: see the model
cards (`deepmrseg models`).
"""


def write_dataset_files(
    out_dir: str | os.PathLike[str],
    bids_dir: str | os.PathLike[str],
    *,
    tables: Mapping[str, LabelTable],
    version: str,
) -> None:
    """Make OUT_DIR a BIDS derivatives data set; repeating it changes nothing.

    Writes dataset_description.json, .bidsignore, README, CITATION.md and one label table a
    task. BIDS_DIR is linked by its path relative to OUT_DIR. In a container, the environment
    variable ``DEEPMRSEG_CONTAINER`` (``TYPE:TAG``, as ``docker:deepmrseg-bids:1.0``) is noted.

    Args:
        tables: the label table of each task.
        version: of this software.

    Raises:
        DatasetError: OUT_DIR cannot be written.
    """
    out, raw = Path(out_dir), Path(bids_dir)
    link = Path(os.path.relpath(raw.resolve(), out.resolve())).as_posix()
    write_json(out / "dataset_description.json", _description(quote(link), raw, version))
    write_text(out / ".bidsignore", "".join(f"{pattern}\n" for pattern in _IGNORED))
    write_text(out / "README", _README.format(version=version, raw=link))
    write_text(out / "CITATION.md", _CITATION.format(version=version))
    for task, table in tables.items():
        write_text(out / label_table_path(task), _table_text(table))


def sidecar(
    *,
    description: str,
    sources: Sequence[str],
    inputs: Mapping[str, str],
    software: Mapping[str, str],
    models: Mapping[str, Mapping[str, str]],
    parameters: Mapping[str, Any],
    findings: Sequence[Finding] = (),
    spatial_reference: str | None = None,
    kind: str | None = None,
    label_map: Sequence[str] | None = None,
    resolution: str | None = None,
) -> dict[str, Any]:
    """What the JSON beside an output says; no time and no place, so equal runs give equal bytes.

    Args:
        description: one sentence for people.
        sources: BIDS URIs of the images it was made from.
        inputs: SHA-256 of each input, by BIDS URI.
        software: versions by name.
        models: by task: ``{"Version": ..., "SHA256": ...}``.
        parameters: what was asked for.
        findings: about the input and the result. ``Warnings`` repeats the messages of those
            that are not mere information.
        spatial_reference: BIDS URI or URI of the image whose grid it lies on.
        kind: the BIDS ``Type`` of a mask, as ``Brain``.
        label_map: the name of each volume of 4D posteriors.
        resolution: in words; BIDS wants it where the name has ``res``.
    """
    findings = worst_first(findings)
    tree: dict[str, Any] = {
        "Description": description,
        "Sources": list(sources),
        "InputSHA256": dict(inputs),
        "Software": dict(software),
        "Models": {task: dict(facts) for task, facts in models.items()},
        "Parameters": dict(parameters),
        "Findings": [finding.to_json() for finding in findings],
        "Warnings": [one.message for one in findings if one.severity != "info"],
    }
    optional = {
        "SpatialReference": spatial_reference,
        "Type": kind,
        "LabelMap": None if label_map is None else list(label_map),
        "Resolution": resolution,
    }
    return {**tree, **{key: value for key, value in optional.items() if value is not None}}


def described(
    text: str, made: Mapping[str, Any], findings: Sequence[Finding], **more: Any
) -> dict[str, Any]:
    """The :func:`sidecar` of a file of which ``made`` says from what and by what it was made.

    Args:
        made: InputSHA256, Software, Models and Parameters.
        more: the other arguments of :func:`sidecar`.
    """
    return sidecar(
        description=text,
        sources=list(made["InputSHA256"]),
        inputs=made["InputSHA256"],
        software=made["Software"],
        models=made["Models"],
        parameters=made["Parameters"],
        findings=findings,
        **more,
    )


def _description(link: str, raw: Path, version: str) -> dict[str, Any]:
    generator: dict[str, Any] = {"Name": "deepmrseg-bids", "Version": version}
    kind, _, tag = os.environ.get("DEEPMRSEG_CONTAINER", "").partition(":")
    if kind:
        generator["Container"] = {"Type": kind, **({"Tag": tag} if tag else {})}
    source = {"URL": link}
    doi = _raw_description(raw).get("DatasetDOI")
    if isinstance(doi, str) and doi:
        source["DOI"] = doi
    return {
        "Name": "DeepMRSeg: brain MRI segmentation",
        "BIDSVersion": _BIDS_VERSION,
        "DatasetType": "derivative",
        "GeneratedBy": [generator],
        "SourceDatasets": [source],
        "DatasetLinks": {RAW: link, TEMPLATES: _TEMPLATEFLOW},
        "HowToAcknowledge": "Please cite the papers named in CITATION.md.",
    }


def _raw_description(raw: Path) -> dict[str, Any]:
    try:
        tree = read_json(raw / "dataset_description.json")
    except (OSError, ValueError):
        return {}
    return tree if isinstance(tree, dict) else {}


def _table_text(table: LabelTable) -> str:
    """What LabelTable.write writes, so that it can be put in place at once."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "dseg.tsv"
        table.write(path)
        return path.read_text(encoding="utf-8")

"""BIDS file names: parse them, build them, and name every file of OUT_DIR.

Pure: nothing here looks at a disk. Every path that is returned is relative to OUT_DIR.

>>> t1w = "sub-01_ses-2_run-1_T1w.nii.gz"
>>> str(label_map_path(t1w, Output({"seg": "hippocampus"})))
'sub-01/ses-2/anat/sub-01_ses-2_run-1_seg-hippocampus_dseg.nii.gz'
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import PurePath, PurePosixPath
from urllib.parse import quote

from deepmrseg_bids.errors import DatasetError
from deepmrseg_bids.tasks.spec import T1W, Output, TaskSpec

__all__ = [
    "ENTITIES",
    "REGIONS",
    "BidsName",
    "anat_folder",
    "bids_uri",
    "change_path",
    "entities_text",
    "figure_path",
    "group_norms_path",
    "group_path",
    "group_qc_path",
    "group_report_path",
    "label_map_path",
    "label_table_path",
    "lesions_path",
    "morph_path",
    "mosaic_path",
    "native_label_map_path",
    "probabilities_path",
    "report_path",
    "sidecar_path",
    "source_stem",
    "strip_prefix",
    "table_source",
    "transform_path",
]

# the order of the BIDS schema (1.11); from, to and mode, which it lacks, as in the NiPreps
ENTITIES = (
    "sub", "tpl", "ses", "cohort", "sample", "task", "tracksys", "acq", "nuc", "voi", "ce",
    "trc", "stain", "rec", "dir", "run", "mod", "echo", "flip", "inv", "mt", "part", "proc",
    "hemi", "space", "split", "recording", "chunk", "from", "to", "mode", "atlas", "seg",
    "scale", "res", "den", "label", "desc",
)  # fmt: skip
REGIONS = "regions"
"""The ``desc`` of the table of composite regions."""
_KEPT = 512  # names that are remembered: a session is asked about its own again and again
_ORDER = {key: place for place, key in enumerate(ENTITIES)}
_LABEL = re.compile(r"[0-9a-zA-Z+]+")
_SUFFIX = re.compile(r"[0-9a-zA-Z]+")
_EXTENSION = re.compile(r"(\.[0-9a-zA-Z]+)+")


@dataclass(frozen=True)
class BidsName:
    """One file name, taken apart; ``str()`` puts it together in the official order.

    Attributes:
        entities: (key, label) pairs, by the official order.
        suffix: what follows the last underscore, as ``T1w``.
        extension: with its dot, as ``.nii.gz``.

    >>> str(BidsName.parse("sub-01_T1w.nii.gz").replace("dseg", seg="wml", space="FLAIR"))
    'sub-01_space-FLAIR_seg-wml_dseg.nii.gz'
    """

    entities: tuple[tuple[str, str], ...]
    suffix: str
    extension: str

    def __post_init__(self) -> None:
        keys = [key for key, _ in self.entities]
        for key, label in self.entities:
            if key not in _ORDER:
                raise DatasetError(f"{key!r} is not a BIDS entity (in {key}-{label})")
            if not _LABEL.fullmatch(label):
                raise DatasetError(
                    f"{key}-{label}: a BIDS label contains only letters, digits and +"
                )
        if len(set(keys)) < len(keys):
            raise DatasetError(f"an entity occurs twice among {', '.join(keys)}")
        if not _SUFFIX.fullmatch(self.suffix) or not _EXTENSION.fullmatch(self.extension):
            raise DatasetError(f"{self.suffix}{self.extension}: not a BIDS suffix and extension")
        ordered = sorted(self.entities, key=lambda pair: _ORDER[pair[0]])
        object.__setattr__(self, "entities", tuple(ordered))

    @classmethod
    def parse(cls, path: str | os.PathLike[str]) -> BidsName:
        """Take apart the last part of a path.

        Raises:
            DatasetError: it is not ``key-label_..._suffix.extension``.
        """
        return _parsed(_last_part(path))

    def __str__(self) -> str:
        pairs = [f"{key}-{label}" for key, label in self.entities]
        return "_".join([*pairs, self.suffix]) + self.extension

    def get(self, key: str) -> str | None:
        """The label of one entity, None if the name lacks it."""
        return dict(self.entities).get(key)

    def replace(
        self,
        suffix: str | None = None,
        extension: str | None = None,
        **entities: str | None,
    ) -> BidsName:
        """The name with other parts; an entity of None is taken out."""
        pairs: dict[str, str | None] = {**dict(self.entities), **entities}
        kept = tuple((key, label) for key, label in pairs.items() if label is not None)
        return BidsName(kept, suffix or self.suffix, extension or self.extension)


def _last_part(path: str | os.PathLike[str]) -> str:
    """The name of a file, without its folder; names are taken apart by the hundred thousand."""
    return path.name if isinstance(path, PurePath) else PurePath(path).name


@lru_cache(maxsize=_KEPT)
def _parsed(name: str) -> BidsName:
    stem, dot, extension = name.partition(".")
    *parts, suffix = stem.split("_")
    pairs = [part.partition("-") for part in parts]
    if not pairs or not dot or any(not dash for _, dash, _ in pairs):
        raise DatasetError(
            f"{name!r} is not a BIDS file name; expected one like 'sub-01_ses-1_T1w.nii.gz'"
        )
    try:
        return BidsName(tuple((key, label) for key, _, label in pairs), suffix, dot + extension)
    except DatasetError as error:
        raise DatasetError(f"{name!r} is not a BIDS file name: {error}") from error


def strip_prefix(label: str, key: str) -> str:
    """A label without its key.

    >>> strip_prefix("sub-01", "sub"), strip_prefix("01", "sub")
    ('01', '01')
    """
    return label.removeprefix(f"{key}-")


def source_stem(path: str | os.PathLike[str]) -> str:
    """The ``<src>`` of every output: the image's name without suffix and extension.

    >>> source_stem("raw/sub-01/anat/sub-01_run-2_T1w.nii.gz")
    'sub-01_run-2'
    """
    return "_".join(f"{key}-{label}" for key, label in BidsName.parse(path).entities)


def table_source(table: str | os.PathLike[str]) -> str:
    """The stem of the image that a table of volumes is named after.

    >>> table_source("sub-01/anat/sub-01_run-2_seg-brain_morph.tsv")
    'sub-01_run-2'
    """
    return source_stem(str(BidsName.parse(table).replace(seg=None)))


def anat_folder(source: str | os.PathLike[str]) -> PurePosixPath:
    """The folder of the outputs of one image: ``sub-*/[ses-*/]anat``."""
    return _anat_folder(_last_part(source))


@lru_cache(maxsize=_KEPT)
def _anat_folder(source: str) -> PurePosixPath:
    name = _parsed(source)
    session = name.get("ses")
    folder = PurePosixPath(_subject_folder(name))
    return (folder / f"ses-{session}" if session else folder) / "anat"


def label_map_path(
    source: str | os.PathLike[str],
    output: Output,
    *,
    space: str | None = None,
    res: str | None = None,
) -> PurePosixPath:
    """The label map of a task.

    Args:
        source: the image whose grid or person it is: T1w, or FLAIR with ``space="FLAIR"``.
        output: how the task calls it (:attr:`~deepmrseg_bids.tasks.spec.TaskSpec.label_map`).
        space: where the labels lie, if not on the T1w's own grid.
        res: which of the template's resolutions, as ``2``.
    """
    where = _of_space(space, res)
    return _anat(source, output.suffix, ".nii.gz", {**where, **output.entities})


def entities_text(output: Output) -> str:
    """The entities and the suffix of a label map, without a source.

    >>> entities_text(Output({"seg": "deepbrain"}))
    'seg-deepbrain_dseg'
    """
    return "_".join([*(f"{key}-{value}" for key, value in output.entities.items()), output.suffix])


def native_label_map_path(
    task: TaskSpec, images: Mapping[str, str | os.PathLike[str]]
) -> PurePosixPath:
    """The label map of a task on the grid of the image that it was found in.

    Args:
        images: of the session, by modality.
    """
    space = None if task.native == T1W else task.native
    return label_map_path(images[task.native], task.label_map, space=space)


def probabilities_path(
    source: str | os.PathLike[str], task: str, *, space: str | None = None
) -> PurePosixPath:
    """The 4D posteriors of a task; ``space`` as of :func:`label_map_path`."""
    return _anat(source, "probseg", ".nii.gz", {**_of_space(space, None), "seg": task})


def morph_path(
    source: str | os.PathLike[str], task: str, *, desc: str | None = None
) -> PurePosixPath:
    """The table of volumes of a task; ``desc=REGIONS`` is that of its composite regions."""
    # what is not given keeps what the source's own name says
    more = {} if desc is None else {"desc": desc}
    return _anat(source, "morph", ".tsv", {"seg": task, **more})


def lesions_path(source: str | os.PathLike[str], task: str) -> PurePosixPath:
    """The table of single lesions of a task."""
    return _anat(source, "lesions", ".tsv", {"seg": task})


def change_path(source: str | os.PathLike[str], task: str) -> PurePosixPath:
    """The table of lesions against the session before; named after the later image."""
    return _anat(source, "change", ".tsv", {"seg": task})


def transform_path(
    source: str | os.PathLike[str], moving: str, fixed: str, extension: str = ".mat"
) -> PurePosixPath:
    """The transform that takes an image from the space ``moving`` to the space ``fixed``."""
    return _anat(source, "xfm", extension, {"from": moving, "to": fixed, "mode": "image"})


def sidecar_path(path: str | os.PathLike[str]) -> PurePosixPath:
    """The JSON file that describes another file of OUT_DIR.

    >>> str(sidecar_path("sub-01/anat/sub-01_seg-wml_dseg.nii.gz"))
    'sub-01/anat/sub-01_seg-wml_dseg.json'
    """
    return _sidecar_path(os.fspath(path))


@lru_cache(maxsize=_KEPT)
def _sidecar_path(path: str) -> PurePosixPath:
    whole = PurePosixPath(path)
    return whole.with_name(whole.name.partition(".")[0] + ".json")


def figure_path(
    source: str | os.PathLike[str],
    desc: str,
    *,
    task: str | None = None,
    extension: str = ".svg",
) -> PurePosixPath:
    """A figure of the report of one image, in ``sub-*/figures``."""
    name = BidsName.parse(source)
    if task is not None:
        name = name.replace("dseg", seg=task)
    folder = PurePosixPath(_subject_folder(name)) / "figures"
    return folder / str(name.replace(extension=extension, desc=desc))


def report_path(subject: str) -> PurePosixPath:
    """The visual report of one person; the label comes with or without ``sub-``."""
    return PurePosixPath(f"sub-{strip_prefix(subject, 'sub')}.html")


def group_report_path() -> PurePosixPath:
    """The cohort report."""
    return PurePosixPath("group.html")


def mosaic_path(task: str, number: int) -> PurePosixPath:
    """One sheet of the mosaic of a task in the cohort report."""
    return PurePosixPath("figures") / f"group_seg-{task}_mosaic-{number:03}.webp"


def label_table_path(task: str) -> PurePosixPath:
    """The label table of a task, which holds for every label map of it."""
    return PurePosixPath(f"seg-{task}_dseg.tsv")


def group_path(task: str, table: str = "morph") -> PurePosixPath:
    """A table of a task over all sessions, as ``morph`` or ``agreement``."""
    return PurePosixPath(f"group_seg-{task}_{table}.tsv")


def group_norms_path() -> PurePosixPath:
    """The reference centiles that the group level used."""
    return PurePosixPath("group_norms.tsv")


def group_qc_path() -> PurePosixPath:
    """The table of what to look at, over all sessions and tasks."""
    return PurePosixPath("group_qc.tsv")


def bids_uri(path: str | os.PathLike[str], dataset: str = "") -> str:
    """The BIDS URI of a file; no data set name stands for OUT_DIR itself.

    Raises:
        ValueError: the path is not relative to the data set, or leaves it.

    >>> bids_uri("sub-01/anat/sub-01_T1w.nii.gz", "raw")
    'bids:raw:sub-01/anat/sub-01_T1w.nii.gz'
    """
    parts = PurePath(path)
    if parts.is_absolute() or ".." in parts.parts or not parts.parts:
        raise ValueError(f"a BIDS URI contains a path inside the data set, got {os.fspath(path)!r}")
    return f"bids:{dataset}:{quote(parts.as_posix(), safe='/+')}"


def _anat(
    source: str | os.PathLike[str],
    suffix: str,
    extension: str,
    entities: Mapping[str, str | None],
) -> PurePosixPath:
    return _anat_path(_last_part(source), suffix, extension, tuple(entities.items()))


@lru_cache(maxsize=_KEPT)
def _anat_path(
    source: str, suffix: str, extension: str, entities: tuple[tuple[str, str | None], ...]
) -> PurePosixPath:
    name = _parsed(source).replace(suffix, extension, **dict(entities))
    return _anat_folder(source) / str(name)


def _of_space(space: str | None, res: str | None) -> dict[str, str | None]:
    # what is not given keeps what the source's own name says
    return {key: label for key, label in (("space", space), ("res", res)) if label is not None}


def _subject_folder(name: BidsName) -> str:
    subject = name.get("sub")
    if subject is None:
        raise DatasetError(f"'{name}' names no subject; expected 'sub-<label>_...'")
    return f"sub-{subject}"

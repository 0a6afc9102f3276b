"""What BIDS_DIR holds: one :class:`Session` a visit.

Which image is used when a session holds several of a kind: one without contrast agent (``ce-``)
if there is one, then the one with the fewest parts in its name besides subject, session and run
(a plain ``T1w`` before ``acq-`` or ``rec-`` ones), then the lowest run, then the first by name,
``.nii.gz`` before ``.nii``. What ``.bidsignore`` excludes is not used. Phase, real and imaginary
parts are never used unless a filter asks for them.
"""

from __future__ import annotations

import json
import logging
import os
import re
import secrets
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

from deepmrseg_bids.bids.absence import Absence, images_named
from deepmrseg_bids.bids.bidsignore import BidsIgnore
from deepmrseg_bids.bids.index import OWN_CHECK, PLAIN, find_images
from deepmrseg_bids.bids.names import BidsName, strip_prefix
from deepmrseg_bids.errors import DatasetError, UsageError
from deepmrseg_bids.files import read_json
from deepmrseg_bids.tasks.spec import MODALITIES

__all__ = ["Session", "check_bids_dir", "check_output_dir", "check_writable", "find_sessions"]

_log = logging.getLogger(__name__)
_SUFFIXES = {modality.lower(): modality for modality in MODALITIES}
_FOLDER = re.compile(r"(sub|ses)-([0-9a-zA-Z+]+)")
_MOST_LISTED = 40


@dataclass(frozen=True)
class Session:
    """One visit of one person.

    Attributes:
        subject: label without ``sub-``.
        session: label without ``ses-``; None where the data set has no sessions.
        images: the image of each modality (``T1w``, ``FLAIR``) that it has, absolute.
        notes: what was decided on the way, one line each.
        missing: why it lacks an image, by modality, where that is known.
    """

    subject: str
    session: str | None
    images: Mapping[str, Path]
    notes: tuple[str, ...] = ()
    missing: Mapping[str, str] = field(default_factory=dict, compare=False)

    @property
    def name(self) -> str:
        """``sub-01_ses-2``, or ``sub-01`` without a session."""
        subject = f"sub-{self.subject}"
        return subject if self.session is None else f"{subject}_ses-{self.session}"


@dataclass(frozen=True)
class _Image:
    path: Path
    name: BidsName

    @property
    def enhanced(self) -> bool:
        """Whether it was acquired with a contrast agent."""
        return self.name.get("ce") is not None

    @property
    def rank(self) -> tuple[bool, int, int, str]:
        extras = sum(key not in ("sub", "ses", "run") for key, _ in self.name.entities)
        run = self.name.get("run") or "0"
        # "gz" keeps .nii.gz before .nii
        text = str(self.name.replace(extension=".gz")) + str(not self.path.name.endswith(".gz"))
        return self.enhanced, extras, int(run) if run.isdigit() else 0, text


def find_sessions(
    bids_dir: str | os.PathLike[str],
    *,
    participant_labels: Sequence[str] = (),
    session_labels: Sequence[str] = (),
    filters: Mapping[str, Any] | None = None,
    database_dir: str | os.PathLike[str] | None = None,
    keep_database: bool = True,
    validate: bool = True,
) -> list[Session]:
    """Every session asked for, sorted, those without a T1w too.

    Args:
        participant_labels: with or without ``sub-``; none stands for all.
        session_labels: with or without ``ses-``; none stands for all.
        filters: pybids filters by image, ``{"t1w": {...}, "flair": {...}}`` as in the NiPreps
            apps; a value of None means that the name lacks the entity, ``"*"`` that it has it.
            Other keys are left to other apps.
        database_dir: keeps the index between runs, see :func:`find_images`.
        keep_database: False leaves ``database_dir`` as it is (a dry run).
        validate: ask for a dataset_description.json with Name and BIDSVersion.

    Raises:
        DatasetError: ``bids_dir`` is not a BIDS data set, or the database is of another one.
        UsageError: an unknown label, or a filter that pybids does not know.
    """
    root = Path(bids_dir).absolute()
    if database_dir is not None:
        database_dir = Path(database_dir).absolute()
    queries = _queries(filters)
    ignored = BidsIgnore(root)
    folders = _folders(root, ignored)
    _check_dataset(root, folders, validate=validate)
    subjects = _chosen(participant_labels, folders, "sub", f"in {root}")
    visits = {subject: folders[subject] for subject in subjects}
    known = {label for labels in visits.values() for label in labels}
    sessions = _chosen(session_labels, known, "ses", f"for these participants in {root}")
    paths = find_images(
        root,
        queries,
        subjects=subjects if participant_labels else None,
        database_dir=database_dir,
        keep=keep_database,
    )
    images = {
        kind: _by_session(paths[kind], root, query, ignored) for kind, query in queries.items()
    }
    keys: set[tuple[str, str | None]] = {
        (subject, label) for subject, labels in visits.items() for label in labels or (None,)
    }
    found = {key for kind in images.values() for key in kind if key[0] in visits}
    wanted = [key for key in keys | found if not session_labels or key[1] in sessions]
    wanted.sort(key=lambda key: (key[0], key[1] or ""))
    filtered = {kind: dict(own) for kind, own in (filters or {}).items() if kind in queries and own}
    for kind, own in filtered.items():
        _check_matches(kind, own, [key for key in wanted if key in images[kind]], wanted, root)
    absence = Absence(root, frozenset(filtered), ignored)
    return [_session(key, images, absence) for key in wanted]


def _check_matches(
    kind: str,
    own: Mapping[str, Any],
    matched: Sequence[object],
    wanted: Iterable[tuple[str, str | None]],
    root: Path,
) -> None:
    """Tell of a filter that matches nothing, although there are images."""
    folders = (root / f"sub-{who}" / (f"ses-{visit}" if visit else "") for who, visit in wanted)
    named = (name for folder in folders for name in images_named(folder / "anat", _SUFFIXES[kind]))
    example = None if matched else next(named, None)
    if example is None:
        return
    _log.warning(
        "the filter %r of --bids-filter-file (%s) matches no %s image of these sessions; there is, "
        "for example, %s",
        kind, json.dumps(own, default=str), _SUFFIXES[kind], example,
    )  # fmt: skip


def check_output_dir(
    bids_dir: str | os.PathLike[str],
    out_dir: str | os.PathLike[str],
    work_dir: str | os.PathLike[str] | None = None,
    *,
    create: bool = True,
) -> None:
    """See that OUT_DIR can be written and that nothing will be written among the inputs.

    Links are followed first. With ``create=False`` (a dry run) nothing is written.

    Raises:
        DatasetError: OUT_DIR is BIDS_DIR, or lies in it but not under ``derivatives/``; the
            work folder lies in BIDS_DIR; OUT_DIR cannot be created or written.
    """
    raw, out = _resolved(bids_dir), _resolved(out_dir)
    if out == raw:
        raise DatasetError(
            f"OUT_DIR is BIDS_DIR ({raw}); choose another folder, "
            f"for example {raw / 'derivatives' / 'deepmrseg'}"
        )
    if raw in out.parents and out.relative_to(raw).parts[0] != "derivatives":
        raise DatasetError(
            f"OUT_DIR {out} is inside the input data set; inside BIDS_DIR it must be "
            f"under {raw / 'derivatives'}"
        )
    if work_dir is not None:
        work = _resolved(work_dir)
        if work == raw or raw in work.parents:
            raise DatasetError(
                f"the work folder {work} is inside BIDS_DIR {raw}; choose another one "
                "with --work-dir"
            )
    if create:
        check_writable(out)


def check_writable(out: Path) -> None:
    """Make OUT_DIR if it is not there, and see that files can be written in it.

    Raises:
        DatasetError: they cannot.
    """
    probe = out / f".deepmrseg-{secrets.token_hex(6)}.tmp"
    try:
        out.mkdir(parents=True, exist_ok=True)
        probe.touch(exist_ok=False)
        probe.unlink()
    except OSError as error:
        raise DatasetError(
            f"OUT_DIR {out} cannot be written ({error.strerror}); "
            "choose another folder, or change its permissions"
        ) from error


def _resolved(path: str | os.PathLike[str]) -> Path:
    try:
        return Path(path).resolve()
    except (OSError, RuntimeError) as error:
        raise DatasetError(f"{path}: the path cannot be followed ({error})") from error


def check_bids_dir(root: Path) -> None:
    """See that BIDS_DIR is a folder.

    Raises:
        DatasetError: it is not.
    """
    if not root.exists():
        raise DatasetError(f"BIDS_DIR {root} does not exist; check the path or its mount")
    if not root.is_dir():
        raise DatasetError(
            f"BIDS_DIR {root} is not a folder; use the root folder of a BIDS data set"
        )


def _folders(root: Path, ignored: BidsIgnore) -> dict[str, tuple[str, ...]]:
    """The session labels of each subject, by the folders on disk."""
    check_bids_dir(root)
    try:
        subjects = _labels(root, "sub")
    except OSError as error:
        raise DatasetError(f"BIDS_DIR {root} cannot be read ({error.strerror})") from error
    folders = {}
    for subject in subjects:
        if ignored.matches(f"sub-{subject}/"):
            _log.warning("sub-%s: skipped, excluded by .bidsignore", subject)
            continue
        try:
            folders[subject] = tuple(_labels(root / f"sub-{subject}", "ses"))
        except OSError:
            folders[subject] = ()  # an unreadable person is one without images
    return folders


def _labels(folder: Path, key: str) -> list[str]:
    with os.scandir(folder) as entries:
        named = [one.name for one in entries
                 if one.name.casefold().startswith(f"{key}-") and one.is_dir()]  # fmt: skip
    labels = []
    for name in sorted(named):
        if match := _FOLDER.fullmatch(name):
            labels.append(match.group(2))
        elif not name.startswith(f"{key}-"):
            _log.warning(
                "%s: skipped, its name must begin with %s- in lower case", folder / name, key
            )
        else:
            _log.warning("%s: skipped, a BIDS label contains only letters, digits and +",
                         folder / name)  # fmt: skip
    return sorted(labels)


def _check_dataset(root: Path, folders: Mapping[str, object], *, validate: bool) -> None:
    if not any(root.iterdir()):
        raise DatasetError(f"BIDS_DIR {root} is empty; check the path or its mount")
    description = root / "dataset_description.json"
    if validate:
        _check_description(description)
    if not folders:
        raise DatasetError(
            f"BIDS_DIR {root} contains no sub-<label> folder; use the root folder of "
            "a BIDS data set"
        )


def _check_description(path: Path) -> None:
    advice = "add it with Name and BIDSVersion, or use --skip-bids-validation"
    if not path.is_file():
        raise DatasetError(
            f"{path.parent} is not a BIDS data set: it has no dataset_description.json; {advice}"
        )
    try:
        tree = read_json(path)
    except (OSError, ValueError) as error:
        raise DatasetError(
            f"{path}: cannot be read as JSON ({error}); correct it, or use --skip-bids-validation"
        ) from error
    if not isinstance(tree, dict) or not {"Name", "BIDSVersion"} <= set(tree):
        raise DatasetError(f"{path}: Name and BIDSVersion are required; {advice}")


def _chosen(asked: Sequence[str], known: Iterable[str], key: str, where: str) -> list[str]:
    labels = sorted(known)
    wanted = sorted({strip_prefix(label, key) for label in asked})
    unknown = [label for label in wanted if label not in set(labels)]
    if unknown:
        what = {"sub": "participant", "ses": "session"}[key]
        more = len(labels) - _MOST_LISTED
        listed = ", ".join(labels[:_MOST_LISTED]) + (f" and {more} more" if more > 0 else "")
        raise UsageError(f"unknown {what} {', '.join(unknown)}; known {where}: {listed or 'none'}")
    return wanted or labels


def _queries(filters: Mapping[str, Any] | None) -> dict[str, dict[str, Any]]:
    """The pybids query of each kind of image, with the filters in it."""
    filters = filters or {}
    for key in filters:
        if key not in _SUFFIXES and key.lower() in _SUFFIXES:
            raise UsageError(f"--bids-filter-file: use {key.lower()!r} instead of {key!r}")
    if filters and not set(filters) & set(_SUFFIXES):
        raise UsageError(
            f"the filters name {', '.join(map(repr, filters))}; 't1w' or 'flair' was expected"
        )
    queries: dict[str, dict[str, Any]] = {}
    for kind, suffix in _SUFFIXES.items():
        own = filters.get(kind, {})
        if not isinstance(own, Mapping):
            raise UsageError(f"the filter {kind!r} must be an object of entities, got {own!r}")
        for entity, value in own.items():
            values = value if isinstance(value, (list, tuple)) else [value]
            if not all(
                item is None or isinstance(item, (str, int, float, Enum)) for item in values
            ):
                raise UsageError(
                    f"the filter {kind!r}: {entity!r} must be a string, a number, null or a "
                    f"list of these, got {value!r}"
                )
        queries[kind] = {"suffix": suffix, **PLAIN, **own}
    return queries


def _by_session(
    paths: Iterable[str], root: Path, query: Mapping[str, Any], ignored: BidsIgnore
) -> dict[tuple[str, str | None], list[_Image]]:
    """Images by (subject, session); those whose name and folders disagree are left out."""
    images: dict[tuple[str, str | None], list[_Image]] = defaultdict(list)
    for text in paths:
        path = Path(text)
        try:
            name = BidsName.parse(path)
            *folders, datatype = path.relative_to(root).parts[:-1]
        except (DatasetError, ValueError):
            continue
        subject, session = name.get("sub"), name.get("ses")
        expected = [f"sub-{subject}"] + ([f"ses-{session}"] if session else [])
        if subject is None or folders != expected:
            continue
        if ignored.matches(path.relative_to(root).as_posix()):
            continue
        values = {"subject": subject, "session": session, "datatype": datatype}
        if all(_accepts(query[key], values[key]) for key in OWN_CHECK if key in query):
            images[subject, session].append(_Image(path, name))
    return images


def _accepts(wanted: Any, value: str | None) -> bool:
    if isinstance(wanted, (list, tuple)):
        return any(_accepts(item, value) for item in wanted)
    if wanted == "*" or getattr(wanted, "name", None) in ("ANY", "REQUIRED"):
        return value is not None
    if getattr(wanted, "name", None) == "OPTIONAL":
        return True
    if wanted is None or getattr(wanted, "name", None) == "NONE":
        return value is None
    return value is not None and re.sub(r"^(sub|ses)-", "", str(wanted)) == value


def _session(
    key: tuple[str, str | None],
    images: Mapping[str, Mapping[tuple[str, str | None], list[_Image]]],
    absence: Absence,
) -> Session:
    chosen: dict[str, Path] = {}
    missing: dict[str, str] = {}
    notes = []
    for kind, by_session in images.items():
        ranked = sorted(by_session.get(key, []), key=lambda image: image.rank)
        if ranked:
            chosen[_SUFFIXES[kind]] = ranked[0].path
        elif reason := absence.reason(*key, _SUFFIXES[kind]):
            missing[_SUFFIXES[kind]] = reason
        if ranked and ranked[0].enhanced:
            notes.append(
                f"{ranked[0].path.name} is used, although it was acquired with a contrast agent "
                f"(ce-), because the session has no other {_SUFFIXES[kind]} image"
            )
        if len(ranked) > 1:
            others = ", ".join(image.path.name for image in ranked[1:])
            notes.append(
                f"{len(ranked)} {_SUFFIXES[kind]} images: {ranked[0].path.name} is used, "
                f"not {others} (without contrast agent first, then fewest entities, then "
                f"lowest run); to select "
                f"another one, use --bids-filter-file with {kind!r}"
            )
    return Session(key[0], key[1], chosen, tuple(notes), missing)

"""The index of a data set: which images it has. The only user of pybids.

Queries that ask for no more than a suffix are answered by a walk of the ``anat`` folders, which
finds what pybids finds (``tests/bids/test_walk.py``); all others by pybids, whose index may be
kept between runs.

An index in a ``--bids-database-dir`` is never opened where it lies: runs copy it, and a new one
is made elsewhere and renamed into place. So no run waits for another, and none sees half of one.
It remembers when each folder of the data set last changed, and is made anew if one has.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import sqlite3
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from difflib import get_close_matches
from hashlib import sha256
from pathlib import Path
from types import MappingProxyType
from typing import Any

from deepmrseg_bids.errors import DatasetError, UsageError
from deepmrseg_bids.files import publish

__all__ = ["OWN_CHECK", "PLAIN", "find_images"]

_log = logging.getLogger("deepmrseg-bids")

OWN_CHECK = frozenset({"subject", "session", "datatype"})
"""Entities that pybids is not asked about: it reads them off the whole path, so a BIDS_DIR below
a folder named func or sub-9 would mislead it."""

PLAIN: Mapping[str, Any] = MappingProxyType(
    {"extension": [".nii", ".nii.gz"], "part": ["mag", None], "datatype": "anat"}
)
"""What a query asks for beside its suffix where no filter says otherwise."""

_PART = re.compile(r"_part-(imag|phase|real)")  # as pybids reads it, not as BIDS spells it
_FILE = "layout_index.sqlite"  # pybids' own name
_FORMAT = 1  # of what is indexed; another number makes the index anew
_LONG_NAMES = {
    "sub": "subject", "ses": "session", "acq": "acquisition", "ce": "ceagent",
    "rec": "reconstruction", "dir": "direction", "mod": "modality", "ext": "extension",
}  # fmt: skip
"""Entities as they are in file names, and as pybids and the NiPreps call them in filters."""
_DATA_FOLDER = re.compile(r"(?:sub|ses)-[0-9a-zA-Z+]+")


def find_images(
    root: Path,
    queries: Mapping[str, Mapping[str, Any]],
    *,
    subjects: Sequence[str] | None = None,
    database_dir: Path | None = None,
    keep: bool = True,
) -> dict[str, list[str]]:
    """The paths of the images that each query asks for, in any order.

    Args:
        queries: pybids queries by kind; None and ``"*"`` as in the NiPreps apps.
        subjects: only these are indexed, if nothing is kept.
        database_dir: the index is kept here: used while the data set has not changed since,
            made anew otherwise. One that another program made is used as it is.
        keep: False reads ``database_dir`` but does not write it.

    Raises:
        DatasetError: the data set cannot be indexed, or the database is of another one.
        UsageError: a query that pybids does not know.
    """
    if database_dir is None and all(map(_is_plain, queries.values())):
        return _walk(
            root, {kind: str(query["suffix"]) for kind, query in queries.items()}, subjects
        )
    if database_dir is None:
        layout = _layout(root, _unwanted(subjects, queries))
        return {kind: _ask(layout, query, kind) for kind, query in queries.items()}
    with _kept(root, database_dir, keep) as layout:
        return {kind: _ask(layout, query, kind) for kind, query in queries.items()}


def _is_plain(query: Mapping[str, Any]) -> bool:
    """Whether a name and a folder tell that an image is asked for."""
    asked = {key: value for key, value in query.items() if key not in ("subject", "session")}
    suffix = asked.pop("suffix", None)
    return isinstance(suffix, str) and suffix.isalnum() and asked == PLAIN


def _walk(
    root: Path, suffixes: Mapping[str, str], subjects: Sequence[str] | None
) -> dict[str, list[str]]:
    """The magnitude images of each suffix in ``sub-*/[ses-*/]anat``."""
    endings = {kind: (f"_{suffix}.nii", f"_{suffix}.nii.gz") for kind, suffix in suffixes.items()}
    found: dict[str, list[str]] = {kind: [] for kind in suffixes}
    people = (
        [f"{root}/sub-{label}" for label in subjects]
        if subjects is not None
        else [path for path in _inside(str(root)) if path.rpartition("/")[2].startswith("sub-")]
    )
    for folder in people:
        inner = _inside(folder)
        visits = [path for path in inner if path.rpartition("/")[2].startswith("ses-")]
        for place in (folder, *visits):
            for path in _inside(f"{place}/anat"):
                name = path.rpartition("/")[2]
                for kind, ends in endings.items():
                    if name.endswith(ends) and not _PART.search(name) and not os.path.isdir(path):
                        found[kind].append(path)
    return found


def _inside(folder: str) -> list[str]:
    """What is in a folder; nothing in one that cannot be seen or is none."""
    try:
        return [f"{folder}/{name}" for name in os.listdir(folder)]
    except OSError:
        return []


@contextmanager
def _kept(root: Path, database_dir: Path, keep: bool) -> Iterator[Any]:
    """The layout of every image of a data set, from the database if that is of use."""
    kept = database_dir / _FILE
    with tempfile.TemporaryDirectory(prefix="deepmrseg-index-") as folder:
        copy = Path(folder) / _FILE
        now = _fingerprint(root)
        if not _usable(kept, copy, root, now):
            copy.unlink(missing_ok=True)
            layout = _layout(root, _unwanted(None, None), Path(folder))
            _close(layout)
            _stamp(copy, now)
            if keep:
                _keep(copy, kept)
        layout = _layout(root, None, Path(folder))
        try:
            if Path(layout.root) != root:
                raise DatasetError(
                    f"the database {database_dir} belongs to {layout.root}, not to {root}; "
                    "use another --bids-database-dir"
                )
            yield layout
        finally:
            _close(layout)


def _usable(kept: Path, copy: Path, root: Path, now: str) -> bool:
    """Copy a database, and say whether it can be used."""
    try:
        shutil.copyfile(kept, copy)
    except FileNotFoundError:
        _log.info("%s: no index yet, creating it", kept.parent)
        return False
    except OSError as error:
        _log.warning("%s: cannot be read (%s), the index is regenerated", kept, error.strerror)
        return False
    try:
        with closing(sqlite3.connect(copy)) as connection:
            sound = connection.execute("PRAGMA quick_check").fetchone() == ("ok",)
            tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
            if not sound or "layout_info" not in tables:
                raise sqlite3.DatabaseError("it contains no pybids index")
            (of,) = connection.execute("SELECT root FROM layout_info").fetchone()
            if of != str(root):
                return True  # the caller says so
            if "deepmrseg_bids" not in tables:
                _log.info("%s: written by another program, used unchanged", kept)
                return True
            (stamp,) = connection.execute("SELECT stamp FROM deepmrseg_bids").fetchone()
    except (sqlite3.Error, TypeError) as error:
        _log.warning("%s: damaged (%s), the index is regenerated", kept, error)
        return False
    if stamp != now:
        _log.info("%s: the data set has changed, the index is regenerated", kept.parent)
        return False
    _log.info("%s: using the index in this folder", kept.parent)
    return True


def _keep(made: Path, kept: Path) -> None:
    """Put a new index into place; if that cannot be, the run goes on without."""
    try:
        staged = made.with_name(f"staged-{_FILE}")
        shutil.copyfile(made, staged)
        publish(staged, kept)
    except (DatasetError, OSError) as error:
        _log.warning("the index cannot be stored for the next run: %s", error)


def _fingerprint(root: Path) -> str:
    """What changes when an image comes or goes: the folders' names and times."""
    digest = sha256()

    def look(folder: Path, depth: int) -> None:
        try:
            with os.scandir(folder) as entries:
                inner = sorted(entry.name for entry in entries if entry.is_dir())
            changed = folder.stat().st_mtime_ns
        except OSError:
            return  # pybids does not get in either
        if depth:  # what lies beside the subjects does not matter
            digest.update(f"{folder.relative_to(root)}\0{changed}\0".encode())
        for name in inner:
            if _DATA_FOLDER.fullmatch(name):
                look(folder / name, depth + 1)
            elif depth:  # a folder of images
                time = (folder / name).stat().st_mtime_ns
                digest.update(f"{folder.relative_to(root)}/{name}\0{time}\0".encode())

    look(root, 0)
    return f"{_FORMAT}:{digest.hexdigest()}"


def _stamp(database: Path, fingerprint: str) -> None:
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("CREATE TABLE deepmrseg_bids (stamp TEXT)")
        connection.execute("INSERT INTO deepmrseg_bids VALUES (?)", (fingerprint,))


def _layout(
    root: Path,
    unwanted: re.Pattern[str] | None,
    folder: Path | None = None,
    closed: Sequence[re.Pattern[str]] = (),
) -> Any:
    """A pybids layout, in memory or with its database in a folder.

    Args:
        closed: folders that cannot be read: pybids would give up all others for one of them.
    """
    from bids.layout import BIDSLayout, BIDSLayoutIndexer

    indexer = None
    if unwanted is not None:
        ignore = [unwanted, *closed]
        indexer = BIDSLayoutIndexer(validate=False, index_metadata=False, ignore=ignore)
    try:
        return BIDSLayout(root, validate=False, database_path=folder, indexer=indexer)
    except Exception as error:  # pybids and its database raise what they like
        if isinstance(error, PermissionError) and not closed and (found := _closed(root)):
            if folder is not None:
                (folder / _FILE).unlink(missing_ok=True)
            return _layout(root, unwanted, folder, found)
        advice = "" if folder is None else "; another --bids-database-dir gets a new index"
        raise DatasetError(f"{root}: cannot be indexed ({error}){advice}") from error


def _closed(root: Path) -> list[re.Pattern[str]]:
    """The folders of subjects, sessions and images that this user cannot read."""
    patterns = ("sub-*/", "sub-*/ses-*/", "sub-*/anat/", "sub-*/ses-*/anat/")
    folders = (folder for pattern in patterns for folder in root.glob(pattern))
    places = [folder.relative_to(root).as_posix() for folder in folders if not _is_open(folder)]
    return [re.compile(f"^/{re.escape(place)}(/|$)") for place in places]


def _is_open(folder: Path) -> bool:
    """Whether what is in a folder can be seen and reached."""
    try:
        os.listdir(folder)
        os.stat(folder / "." / "..")
    except OSError:
        return False
    return True


def _close(layout: Any) -> None:
    layout.session.close()
    layout.connection_manager.engine.dispose()


def _unwanted(
    subjects: Sequence[str] | None, queries: Mapping[str, Mapping[str, Any]] | None
) -> re.Pattern[str]:
    """What pybids must not look at; the walk of func and dwi would take most of the time."""
    any_label = "[^/]+"
    subject = "|".join(map(re.escape, subjects)) if subjects is not None else any_label
    suffix = folder = any_label
    if queries is not None:
        suffix = _alternatives(query["suffix"] for query in queries.values())
        folder = _alternatives(query["datatype"] for query in queries.values())
    image = rf"/(?:[^/]+_)(?:{suffix})\.nii(?:\.gz)?"
    keep = rf"/sub-(?:{subject})(?:/ses-[^/]+)?(?:/(?:{folder})(?:{image})?)?"
    return re.compile(rf"^(?!{keep}$)")


def _alternatives(values: Iterable[Any]) -> str:
    flat: set[Any] = set()
    for value in values:
        flat.update(value if isinstance(value, (list, tuple)) else [value])
    if all(isinstance(value, str) and value != "*" for value in flat):
        return "|".join(re.escape(value) for value in sorted(flat))
    return "[^/]+"


def _ask(layout: Any, query: Mapping[str, Any], kind: str) -> list[str]:
    asked = {key: _pybids(value) for key, value in query.items() if key not in OWN_CHECK}
    try:
        return list(layout.get(return_type="filename", **asked))
    except Exception as error:  # an unknown entity, or a value that makes no sense to pybids
        raise UsageError(_about_filter(layout, asked, kind)) from error


def _about_filter(layout: Any, asked: Mapping[str, Any], kind: str) -> str:
    """What is wrong with a filter, in our words: those of pybids are about its own options."""
    known = sorted(layout.get_entities())
    unknown = [entity for entity in asked if entity not in known]
    if not unknown:
        return f"the filter {kind!r} cannot be used: check the values of {', '.join(asked)}"
    near = _LONG_NAMES.get(unknown[0]) or next(iter(get_close_matches(unknown[0], known, 1)), "")
    hint = f" (did you mean {near!r}?)" if near else ""
    return (
        f"the filter {kind!r} cannot be used: {unknown[0]!r} is not an entity{hint}; "
        f"known are {', '.join(known)}"
    )


def _pybids(value: Any) -> Any:
    from bids.layout import Query

    if isinstance(value, (list, tuple)):
        return [_pybids(item) for item in value]
    return {None: Query.NONE, "*": Query.ANY}.get(value, value) if _simple(value) else value


def _simple(value: Any) -> bool:
    return value is None or isinstance(value, str)

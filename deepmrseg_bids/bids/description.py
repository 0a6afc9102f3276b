"""The description of OUT_DIR: whose it is, of what data set, and what users added to it.

``dataset_description.json``, ``.bidsignore``, README and CITATION.md belong to the user, too: what
is in them stays, and only the entries that are ours are brought up to date.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from deepmrseg_bids.files import read_json, write_bytes

__all__ = [
    "APP",
    "DESCRIPTION",
    "RAW",
    "doi_of",
    "generators",
    "keep_lines",
    "keep_text",
    "link_to",
    "merged_description",
    "raw_folder",
    "read_description",
    "source_links",
]

APP = "deepmrseg-bids"
DESCRIPTION = "dataset_description.json"
RAW = "raw"  # the name of BIDS_DIR in BIDS URIs


def read_description(folder: Path) -> dict[str, Any]:
    """The description of a data set; empty if there is none, or none that can be read."""
    try:
        tree = read_json(folder / DESCRIPTION)
    except (OSError, ValueError):
        return {}
    return tree if isinstance(tree, dict) else {}


def generators(tree: Mapping[str, Any]) -> list[str]:
    """The programs that made a data set, by its description."""
    found = tree.get("GeneratedBy")
    if found is None:  # before BIDS 1.4
        found = tree.get("PipelineDescription")
    entries = found if isinstance(found, list) else [found]
    named = [entry.get("Name") for entry in entries if isinstance(entry, dict)]
    return [name for name in named if isinstance(name, str)]


def source_links(tree: Mapping[str, Any]) -> list[str]:
    """Where a derivative data set says that its source is: links, not yet followed."""
    links = [tree["DatasetLinks"].get(RAW)] if isinstance(tree.get("DatasetLinks"), dict) else []
    links += [entry.get("URL") for entry in _entries(tree, "SourceDatasets")]
    return list(dict.fromkeys(link for link in links if isinstance(link, str) and link))


def raw_folder(out_dir: Path) -> Path | None:
    """Where OUT_DIR says that its raw data set is, if that is on this disk."""
    links = [link for link in source_links(read_description(out_dir)) if "://" not in link]
    folders = ((out_dir / unquote(link)).resolve() for link in links)
    return next((folder for folder in folders if folder.is_dir()), None)


def doi_of(tree: Mapping[str, Any]) -> str:
    """The DOI of a raw data set; empty if its description states none."""
    doi = tree.get("DatasetDOI")
    return doi if isinstance(doi, str) else ""


def link_to(raw: Path, out: Path) -> str:
    """The path of the raw data set relative to OUT_DIR, not yet quoted as a URL."""
    return Path(os.path.relpath(raw.resolve(), out.resolve())).as_posix()


def merged_description(
    old: Mapping[str, Any], raw: Path, link: str, *, defaults: Mapping[str, Any], version: str
) -> dict[str, Any]:
    """The description of OUT_DIR: ours, with all that users have added to the old one.

    In a container, the environment variable ``DEEPMRSEG_CONTAINER`` (``TYPE:TAG``, as
    ``docker:deepmrseg-bids:1.0``) is noted.

    Args:
        old: what is there; empty if nothing is.
        raw: the source data set.
        link: its path relative to OUT_DIR.
        defaults: entries that users may change; ``DatasetLinks`` among them are kept, too.
    """
    url = quote(link)
    links = old.get("DatasetLinks")
    return {
        **defaults,
        **old,
        "DatasetType": "derivative",
        "GeneratedBy": _generated_by(old, version),
        "SourceDatasets": _sources(old, url, doi_of(read_description(raw))),
        "DatasetLinks": {
            **defaults["DatasetLinks"],
            **(links if isinstance(links, dict) else {}),
            RAW: url,
        },
    }


def _generated_by(old: Mapping[str, Any], version: str) -> list[Any]:
    """The programs: our entry brought up to date, the others as they are."""
    facts: dict[str, Any] = {"Name": APP, "Version": version}
    kind, _, tag = os.environ.get("DEEPMRSEG_CONTAINER", "").partition(":")
    if kind:
        facts["Container"] = {"Type": kind, **({"Tag": tag} if tag else {})}
    entries = _entries(old, "GeneratedBy")
    if not any(entry.get("Name") == APP for entry in entries):
        return [facts, *entries]
    return [
        {key: value for key, value in entry.items() if key != "Container"} | facts
        if entry.get("Name") == APP
        else entry
        for entry in entries
    ]


def _sources(old: Mapping[str, Any], url: str, doi: str) -> list[Any]:
    """The sources: the raw data set with its present link, the others as they are."""
    former = {url, *source_links({"DatasetLinks": old.get("DatasetLinks")})}
    entries = _entries(old, "SourceDatasets")
    own = next((entry for entry in entries if entry.get("URL") in former), {})
    ours = {**own, "URL": url} | ({"DOI": doi} if doi else {})
    return [ours, *(entry for entry in entries if entry.get("URL") not in former)]


def _entries(tree: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    found = tree.get(key)
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


def keep_lines(path: Path, lines: tuple[str, ...]) -> None:
    """See that a text file has these lines; what else is in it stays as it is."""
    try:
        there = path.read_bytes()
    except FileNotFoundError:
        there = b""
    known = {line.strip() for line in there.splitlines()}
    missing = [line.encode() + b"\n" for line in lines if line.encode() not in known]
    if missing:
        end = b"" if not there or there.endswith(b"\n") else b"\n"
        write_bytes(path, there + end + b"".join(missing))


def keep_text(path: Path, template: str, **values: str) -> None:
    """Write a text from a template, unless there is one that somebody has changed.

    Args:
        template: as of :meth:`str.format`; the same text with other values is one of ours.
    """
    if path.with_suffix("") == path and any(path.parent.glob(f"{path.name}.*")):
        return  # README.md in the place of README: one is enough
    pattern = re.escape(template)
    for name in values:
        pattern = pattern.replace(re.escape(f"{{{name}}}"), "[^\n]*")
    try:
        if not re.fullmatch(pattern, path.read_text(encoding="utf-8")):
            return
    except FileNotFoundError:
        pass
    except (OSError, ValueError):
        return  # not a text of ours
    write_bytes(path, template.format(**values).encode("utf-8"))

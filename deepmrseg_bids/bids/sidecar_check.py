"""The JSON and TSV files beside an image: nothing is taken from them, but a broken one is told.

A file that cannot be read is a sign that a data set was damaged or made by hand.
"""

from __future__ import annotations

import os
from pathlib import Path

from deepmrseg_bids.files import read_json
from deepmrseg_bids.findings import Finding
from deepmrseg_bids.imaging.file_kinds import pointer_hint
from deepmrseg_bids.wording import counted

__all__ = ["check_beside"]

_LARGEST = 2**24  # bytes: no sidecar is larger, and reading must not take memory


def check_beside(image: str | os.PathLike[str]) -> tuple[Finding, ...]:
    """What is wrong with the sidecar of an image, and with the tables of its session."""
    image = Path(image)
    stem = image.name.removesuffix(".gz").removesuffix(".nii")
    files = [image.with_name(f"{stem}.json")]
    for folder, kind in ((image.parent.parent, "scans"), (image.parents[2], "sessions")):
        files += sorted(folder.glob(f"sub-*_{kind}.tsv"))
    problems = [(file, _problem(file)) for file in files if file.is_file() or file.is_symlink()]
    return tuple(
        Finding("sidecar-unreadable", "warning", f"{file.name} cannot be read: {problem}")
        for file, problem in problems
        if problem
    )


def _problem(file: Path) -> str:
    """Why a file cannot be read; empty if it can."""
    try:
        if not file.exists():
            return "the link points to nothing; in a DataLad data set, run `git annex get`"
        if file.stat().st_size > _LARGEST:
            return "it is too large"
        if hint := pointer_hint(file):
            return f"it is {hint}"
        if file.suffix == ".json":
            return "" if isinstance(read_json(file), dict) else "not a JSON object"
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        return str(error.strerror)
    except ValueError as error:
        return f"not {file.suffix[1:].upper()} ({error})"
    widths = [line.count("\t") for line in lines if line]
    odd = next((n for n, width in enumerate(widths, start=1) if width != widths[0]), None)
    if odd:
        return (
            f"line {odd} has {counted(widths[odd - 1] + 1, 'cell')}, the first has {widths[0] + 1}"
        )
    return "" if widths else "it is empty"

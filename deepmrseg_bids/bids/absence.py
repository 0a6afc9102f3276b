"""Why a session has no image of a kind, told from what is on disk: a filter, a name, a folder."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from deepmrseg_bids.bids.bidsignore import BidsIgnore
from deepmrseg_bids.bids.names import BidsName
from deepmrseg_bids.errors import DatasetError
from deepmrseg_bids.tasks.spec import T1W

__all__ = ["Absence", "images_named"]

_ENDINGS = (".nii", ".nii.gz")
_LISTED = 3


def images_named(folder: Path, modality: str) -> list[str]:
    """The files of an ``anat`` folder that are called as images of a modality."""
    try:
        names = sorted(os.listdir(folder))
    except OSError:
        return []
    return [name for name in names if name.endswith(tuple(modality + end for end in _ENDINGS))]


@dataclass(frozen=True)
class Absence:
    """Finds out why sessions lack an image.

    Attributes:
        filters: the kinds of images that the user filters, ``t1w`` or ``flair``.
        ignored: what .bidsignore excludes.
    """

    root: Path
    filters: frozenset[str]
    ignored: BidsIgnore

    def reason(self, subject: str, session: str | None, modality: str) -> str:
        """One clause, empty if nothing is known. Of images but the T1w, only what is certain."""
        folder = self.root / f"sub-{subject}"
        folder = folder / f"ses-{session}" if session else folder
        anat = folder / "anat"
        try:
            names = sorted(os.listdir(anat))
        except (FileNotFoundError, NotADirectoryError):
            return _no_folder(folder) if modality == T1W else ""
        except OSError as error:
            return f"the folder {_short(anat, self.root)} cannot be read ({error.strerror})"
        if called := images_named(anat, modality):
            return self._excluded(anat, called, modality)
        return _nearly(names, modality) or (_others(names) if modality == T1W else "")

    def _excluded(self, anat: Path, names: Sequence[str], modality: str) -> str:
        """Why images that are called as they should be are not used."""
        places = [(anat / name).relative_to(self.root).as_posix() for name in names]
        if all(map(self.ignored.matches, places)):
            return f"{_list(names)}: excluded by .bidsignore"
        for name, place in zip(names, places, strict=True):
            try:
                parsed = BidsName.parse(name)
            except DatasetError as error:
                return str(error)
            keys = [f"{key}-{label}" for key, label in parsed.entities if key in ("sub", "ses")]
            if list(PurePosixPath(place).parts[:-2]) != keys:
                return f"{name} is in a folder of another subject or session ({_parent(place)})"
        if modality.lower() in self.filters:
            return (
                f"{_list(names)} is excluded by the filter {modality.lower()!r} of "
                "--bids-filter-file"
            )
        if all("_part-" in name for name in names):
            return f"{_list(names)} is not a magnitude image (part-)"
        if folders := [name for name in names if (anat / name).is_dir()]:
            return f"{_list(folders)} is a folder, not an image file"
        return f"{_list(names)} is not in the index of the data set (--bids-database-dir)"


def _no_folder(folder: Path) -> str:
    """What there is in the place of a folder ``anat``."""
    try:
        names = sorted(os.listdir(folder))
    except OSError as error:
        return f"the folder {folder.name} cannot be read ({error.strerror})"
    alike = [name for name in names if name.lower() == "anat" and name != "anat"]
    if alike:
        return f"the folder {alike[0]} must be called anat (upper and lower case matter)"
    if "anat" in names:
        return "anat is a file or a broken link, not a folder"
    images = [name for name in names if name.lower().endswith(_ENDINGS)]
    if images:
        return f"{_list(images)} is not in a folder called anat"
    return "it has no folder called anat" + (f" (it contains {_list(names)})" if names else "")


def _nearly(names: Sequence[str], modality: str) -> str:
    """A file that has nearly the name of an image."""
    for name in names:
        stem, dot, ending = name.partition(".")
        if not stem.lower().endswith(modality.lower()):
            continue
        if (dot + ending).lower() in _ENDINGS:
            if stem.endswith(modality):
                return f"{name} must end in .nii or .nii.gz, in lower case; rename it"
            return f"{name} must be called ..._{modality} (upper and lower case matter); rename it"
        if ending != "json":
            return f"{name} is not a NIfTI file (.nii or .nii.gz); convert it"
    if any(name.endswith(f"_{modality}.json") for name in names):
        return "only its sidecar (.json) is there"
    return ""


def _others(names: Sequence[str]) -> str:
    images = [name for name in names if name.lower().endswith(_ENDINGS)]
    if images:
        return f"its anat folder contains {_list(images)}"
    return "its anat folder contains no image" if names else "its anat folder is empty"


def _list(names: Sequence[str]) -> str:
    more = len(names) - _LISTED
    return ", ".join(names[:_LISTED]) + (f" and {more} more" if more > 0 else "")


def _short(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix()


def _parent(place: str) -> str:
    return PurePosixPath(place).parent.as_posix()

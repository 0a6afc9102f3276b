"""TemplateFlow templates: found on disk, or fetched if they were asked for and are not there.

The only user of templateflow. That package writes into its folder when it is imported (into
the home directory, where TEMPLATEFLOW_HOME is not set), and may wait for a network. So what is
on disk is found without it, and a download runs in a process of its own, against a folder of
its own, with a limit; only whole files then enter TEMPLATEFLOW_HOME.

>>> str(Space.parse("MNI152NLin2009cAsym:res-02"))
'MNI152NLin2009cAsym:res-2'
"""

from __future__ import annotations

import contextlib
import gzip
import importlib.util
import logging
import os
import re
import shutil
import subprocess
import sys
import tempfile
import urllib.request
import zipfile
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from deepmrseg_bids.errors import DatasetError, TemplateError, UsageError
from deepmrseg_bids.files import replacing

__all__ = ["NATIVE", "Space", "Template", "find_template", "find_templates", "output_spaces"]

NATIVE = "T1w"
"""The space that is always written: the scan's own."""

_log = logging.getLogger(__name__)
_VARIABLE = "TEMPLATEFLOW_HOME"
_PATIENCE = 20  # seconds without a byte after which a server is given up
_LIMIT = 900  # seconds for the download of one template
_FILE = re.compile(
    r"tpl-(?P<name>[0-9a-zA-Z]+)(?:_cohort-(?P<cohort>[0-9]+))?(?:_res-(?P<res>[0-9]+))?"
    r"(?P<kind>_T1w|_desc-brain_T1w|_desc-brain_mask)\.nii\.gz"
)
_HEAD, _BRAIN, _MASK = "_T1w", "_desc-brain_T1w", "_desc-brain_mask"


@dataclass(frozen=True)
class Space:
    """A space to write label maps in, as given: ``NAME[:cohort-N][:res-N]``.

    Attributes:
        name: of the template, or ``T1w``.
        cohort: for templates that have several, as by age.
        res: index of one of the template's grids, without leading zeros; None for its finest.
    """

    name: str
    cohort: str | None = None
    res: str | None = None

    @classmethod
    def parse(cls, text: str) -> Space:
        """A space from its text.

        Raises:
            UsageError: not ``NAME[:cohort-N][:res-N]``, or ``T1w`` with a modifier.
        """
        name, *modifiers = text.strip().split(":")
        if not re.fullmatch(r"[0-9a-zA-Z]+", name):
            raise UsageError(
                f"{text!r} is not a space: expected T1w or a TemplateFlow template, such "
                "as MNI152NLin2009cAsym or MNI152NLin2009cAsym:res-2"
            )
        values: dict[str, str] = {}
        for modifier in modifiers:
            key, _, value = modifier.partition("-")
            if key not in ("cohort", "res") or key in values or not value.isdecimal():
                raise UsageError(
                    f"{text!r}: unknown modifier {modifier!r}; known are cohort-N and res-N, "
                    "with a number, each once"
                )
            values[key] = str(int(value))
        if name == NATIVE and values:
            raise UsageError(f"{text!r}: T1w is the grid of the scan and has no modifiers")
        return cls(name, values.get("cohort"), values.get("res"))

    def __str__(self) -> str:
        parts = (self.name, self.cohort and f"cohort-{self.cohort}", self.res and f"res-{self.res}")
        return ":".join(part for part in parts if part)

    @property
    def label(self) -> str:
        """The ``space-`` label of its files: the cohort follows a plus.

        >>> Space("MNIInfant", cohort="2").label
        'MNIInfant+2'
        """
        return self.name if self.cohort is None else f"{self.name}+{self.cohort}"

    @property
    def title(self) -> str:
        """How tables call it: ``space-<label>[_res-<res>]``."""
        return f"space-{self.label}" + (f"_res-{self.res}" if self.res else "")


@dataclass(frozen=True)
class Template:
    """The files of a template that a space needs; all are on disk.

    Attributes:
        home: the TEMPLATEFLOW_HOME they are in.
        image: T1w, of the whole head or the brain; to register with.
        mask: of its brain; perhaps on another grid than ``image``.
        grid: an image on the grid that label maps are written on.
    """

    space: Space
    home: Path
    image: Path
    mask: Path
    grid: Path


def output_spaces(texts: Iterable[str]) -> tuple[Space, ...]:
    """The spaces besides the scan's own, each once, in the order given.

    Raises:
        UsageError: a text that is no space.
    """
    spaces = dict.fromkeys(Space.parse(text) for text in texts)
    return tuple(space for space in spaces if space.name != NATIVE)


def find_templates(spaces: Sequence[Space], *, fetch: bool = True) -> tuple[Template, ...]:
    """:func:`find_template` for several; those of one template register with the same image."""
    return tuple(find_template(space, fetch=fetch) for space in spaces)


def find_template(space: Space, *, fetch: bool = True) -> Template:
    """The files of a template: those on disk, and, if need be, a download of those missing.

    Looks in TEMPLATEFLOW_HOME, or where templateflow looks without it; downloads only into a
    TEMPLATEFLOW_HOME that is set, never into the home directory.

    Args:
        fetch: download what is missing.

    Raises:
        UsageError: TemplateFlow has no such template, cohort or resolution with a T1w and a
            brain mask.
        TemplateError: it is not on disk, and cannot be had.
    """
    home = _home()
    on_disk = _on_disk(home, space.name)
    known = _catalogue() | on_disk
    own = _checked(space, known)
    wanted = _choice(space, own & on_disk) or _choice(space, own)
    assert wanted is not None  # _checked has seen to it
    missing = [file for file in dict.fromkeys(wanted) if file not in on_disk]
    if missing:
        _get(space, missing, home, fetch=fetch)
    image, mask, grid = (home / file.path for file in wanted)
    return Template(space, home, image, mask, grid)


@dataclass(frozen=True)
class _File:
    """A file of TemplateFlow that we can use; ``name`` is its whole name."""

    name: str
    template: str
    cohort: str | None
    res: str | None
    kind: str

    @classmethod
    def parse(cls, name: str) -> _File | None:
        match = _FILE.fullmatch(name)
        return match and cls(name, match["name"], match["cohort"], match["res"], match["kind"])

    @property
    def path(self) -> Path:
        """Relative to TEMPLATEFLOW_HOME."""
        folder = Path(f"tpl-{self.template}")
        return folder / (f"cohort-{self.cohort}" if self.cohort else "") / self.name

    @property
    def number(self) -> int:
        """Its resolution, from 1, the finest; 0 for a template with one grid."""
        return int(self.res or 0)


def _home() -> Path:
    if given := os.environ.get(_VARIABLE):
        return Path(given).absolute()
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(cache).absolute() / "templateflow"


def _on_disk(home: Path, name: str) -> frozenset[_File]:
    """The files of a template that are there; an empty one is TemplateFlow's placeholder."""
    folder = home / f"tpl-{name}"
    found = set()
    for path in [*folder.glob("*.nii.gz"), *folder.glob("cohort-*/*.nii.gz")]:
        with contextlib.suppress(OSError):  # a broken link: DataLad has not got it
            if path.stat().st_size and (file := _File.parse(path.name)):
                found.add(file)
    return frozenset(file for file in found if (home / file.path).is_file())


def _catalogue() -> frozenset[_File]:
    """What TemplateFlow offers, as its package lists it; read without importing it."""
    found = importlib.util.find_spec("templateflow")
    for folder in (found and found.submodule_search_locations) or ():
        with (
            contextlib.suppress(OSError, zipfile.BadZipFile),
            zipfile.ZipFile(Path(folder) / "conf" / "templateflow-skel.zip") as archive,
        ):
            names = (name.rpartition("/")[2] for name in archive.namelist())
            return frozenset(file for file in map(_File.parse, names) if file)
    return frozenset()


def _checked(space: Space, known: frozenset[_File]) -> frozenset[_File]:
    """The files of a template and cohort, where they suffice for the space."""

    def usable(files: frozenset[_File]) -> bool:
        kinds = {file.kind for file in files}
        return _MASK in kinds and bool(kinds & {_HEAD, _BRAIN})

    def only(template: str, cohort: str | None) -> frozenset[_File]:
        return frozenset(f for f in known if (f.template, f.cohort) == (template, cohort))

    pairs = {(file.template, file.cohort) for file in known}
    offered = {pair for pair in pairs if usable(only(*pair))}
    if space.name not in {template for template, _ in offered}:
        names = ", ".join(sorted({template for template, _ in offered}))
        raise UsageError(
            f"--output-spaces {space}: no such space; known are T1w and the templates "
            f"with a T1w and a brain mask: {names or 'none'}"
        )
    cohorts = {cohort for template, cohort in offered if template == space.name}
    if space.cohort not in cohorts:
        texts = [f"{space.name}:cohort-{c}" if c else space.name for c in cohorts]
        raise UsageError(
            f"--output-spaces {space}: use one of {', '.join(sorted(texts, key=_natural))}"
        )
    files = only(space.name, space.cohort)
    numbers = sorted({file.number for file in files} - {0})
    if space.res and int(space.res) not in numbers:
        texts = [f"res-{number}" for number in numbers]
        raise UsageError(
            f"--output-spaces {space}: no such resolution; known are "
            f"{', '.join(texts) or 'none: omit the modifier'}"
        )
    return files


def _choice(space: Space, files: frozenset[_File]) -> tuple[_File, _File, _File] | None:
    """Image, mask and grid for a space; None where the files do not suffice.

    Image and mask are on one grid, the finest, where there is such a pair: all spaces of a
    template then share one registration.
    """
    finest = min((file.number for file in files), default=0)
    asked = int(space.res) if space.res else finest
    # the least first: heads before brains, which are cut off at their mask
    ordered = sorted(files, key=lambda file: (file.number, file.kind != _HEAD, file.name))
    images = [file for file in ordered if file.kind != _MASK]
    masks = [file for file in ordered if file.kind == _MASK]
    grids = sorted((file for file in ordered if file.number == asked),
                   key=lambda file: (_HEAD, _BRAIN, _MASK).index(file.kind))  # fmt: skip
    if not images or not masks or not grids:
        return None
    pairs = [(i, m) for i in images for m in masks if i.number == m.number]
    image, mask = pairs[0] if pairs else (images[0], masks[0])
    return image, mask, grids[0]


def _get(space: Space, missing: Sequence[_File], home: Path, *, fetch: bool) -> None:
    """Download files into TEMPLATEFLOW_HOME, or say why that is not to be."""
    what = f"the template {space} ({', '.join(file.name for file in missing)})"
    if not os.environ.get(_VARIABLE):
        raise TemplateError(
            f"{what} is not in {home}, and nothing is downloaded to the home "
            f"directory: set {_VARIABLE} to a folder that contains it, or to a folder "
            "for the download"
        )
    lacking = f"{what} is not in {_VARIABLE}={home}"
    if not fetch:
        raise TemplateError(f"{lacking}, and downloads are disabled")
    writable = next(folder for folder in (home, *home.parents) if folder.exists())
    if not os.access(writable, os.W_OK):
        raise TemplateError(f"{lacking}, and that folder is not writable; set {_VARIABLE} to a "
                            "folder that contains it")  # fmt: skip
    _log.info("downloading %s into %s", what, home)
    with tempfile.TemporaryDirectory(prefix="deepmrseg-templateflow-") as folder:
        problem = _run_download(missing, Path(folder))
        for file in missing:
            got = Path(folder) / file.path
            if problem or not _whole(got):
                raise TemplateError(
                    f"{lacking} and cannot be downloaded "
                    f"({problem or 'the file is damaged'}); without a network, set "
                    f"{_VARIABLE} to a folder that contains it"
                )
        for file in missing:
            _into_place(Path(folder) / file.path, home / file.path)


def _run_download(files: Sequence[_File], folder: Path) -> str:
    """Let a process of its own fetch files into a folder; what went wrong, or nothing."""
    (folder / "begun").touch()  # an empty folder would be filled with placeholders
    command = [
        sys.executable,
        "-m",
        "deepmrseg_bids.imaging.templates",
        *(file.name for file in files),
    ]
    try:
        ended = subprocess.run(
            command,
            env={**os.environ, _VARIABLE: str(folder), "TEMPLATEFLOW_USE_DATALAD": "off"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_LIMIT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"it took more than {_LIMIT} s"
    if ended.returncode == 0:
        return ""
    lines = [line.strip() for line in ended.stderr.splitlines() if line.strip()]
    return lines[-1][:300] if lines else f"exit code {ended.returncode}"


def _whole(path: Path) -> bool:
    """Whether a gzip file can be read to its end and holds something."""
    try:
        with gzip.open(path) as stream:
            first = stream.read(1)
            while stream.read(1 << 20):
                pass
    except (OSError, EOFError, zlib.error):
        return False
    return bool(first)


def _into_place(source: Path, final: Path) -> None:
    """Copy, so that no half-written file is ever seen; over a placeholder too."""
    try:
        with replacing(final) as stream, source.open("rb") as content:
            shutil.copyfileobj(content, stream)
    except DatasetError as error:
        reason = getattr(error.__cause__, "strerror", None) or error.__cause__
        raise TemplateError(
            f"{final}: cannot be written ({reason}); set {_VARIABLE} "
            "to a writable folder with free space"
        ) from error


def _natural(text: str) -> list[int | str]:
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", text)]


def _download(names: Sequence[str]) -> None:
    """Fetch files into TEMPLATEFLOW_HOME; only in a process of its own.

    Without the client's own ``get``, which would first index thousands of files.
    """
    from templateflow.conf import TF_S3_ROOT

    for file in filter(None, map(_File.parse, names)):
        target = Path(os.environ[_VARIABLE]) / file.path
        target.parent.mkdir(parents=True, exist_ok=True)
        url = f"{TF_S3_ROOT}/{file.path.as_posix()}"
        with urllib.request.urlopen(url, timeout=_PATIENCE) as answer, target.open("wb") as stream:
            shutil.copyfileobj(answer, stream)


if __name__ == "__main__":
    _download(sys.argv[1:])

"""Finished files into place: nothing half-written is ever seen under its final name.

A file is written under a hidden temporary name in the final folder, brought to disk, and
renamed. A process killed at any instant leaves at most a ``.deepmrseg-*.tmp`` behind.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from deepmrseg_bids.errors import DatasetError, ForeignFileError

__all__ = [
    "SHA256",
    "SIZE",
    "UNFINISHED",
    "Staging",
    "check_writable",
    "file_sha256",
    "locked",
    "publish",
    "read_json",
    "refuse_foreign",
    "remove_leftovers",
    "replacing",
    "temporary",
    "write_bytes",
    "write_json",
    "write_text",
]

_PROBE = 4096  # bytes: a block of most disks
_LAST = {".tsv": 1, ".json": 2}  # the place of an extension in the order; all others come first
SIZE, SHA256 = "FileSize", "FileSHA256"
"""What a sidecar says of the file that it describes, in bytes and in hexadecimal."""
UNFINISHED = "Unfinished"
"""A sidecar with this entry says whose its file is, and that it may not be whole yet."""


def write_bytes(path: str | os.PathLike[str], content: bytes, *, anew: bool = False) -> None:
    """Write a whole file at once; one that already has this content is not touched.

    Args:
        anew: touch it all the same: its time says that it is up to date.

    Raises:
        DatasetError: the disk is full, or the folder cannot be written.
    """
    path = Path(path)
    try:
        if not anew and path.read_bytes() == content:
            return
    except OSError:
        pass  # not there yet, or not readable: it is written anew
    with replacing(path) as stream:
        stream.write(content)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """:func:`write_bytes` of UTF-8 text."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: str | os.PathLike[str], tree: Mapping[str, Any]) -> None:
    """Write JSON with sorted keys; the same tree gives the same bytes.

    Raises:
        ValueError: the tree holds NaN or infinity, which JSON does not know.
    """
    text = json.dumps(tree, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
    write_text(path, text + "\n")


def read_json(path: str | os.PathLike[str]) -> Any:
    """The tree of a JSON file that somebody else wrote.

    Raises:
        OSError: it cannot be read.
        ValueError: not JSON, not UTF-8, or nested so deeply that no one meant it.
    """
    text = Path(path).read_text(encoding="utf-8-sig")
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def file_sha256(path: str | os.PathLike[str]) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def refuse_foreign(files: Iterable[Path], mark: Path) -> None:
    """See that files may be written: none is there, or the one that marks them as ours is, too.

    Nothing is lost with an empty file.

    Raises:
        ForeignFileError: one is there without the mark.
    """
    there = [file for file in files if file.is_dir() or (file.exists() and file.stat().st_size)]
    if there and not mark.is_file():
        raise ForeignFileError(
            f"{there[0]} exists, and is not from an earlier run (there is no {mark.name} of it), "
            "so it was not replaced; move it away, or choose another output folder"
        )


def publish(staged: str | os.PathLike[str], final: str | os.PathLike[str]) -> None:
    """Move a finished file into place, across file systems too.

    Raises:
        DatasetError: the disk is full, or the folder cannot be written; ``staged`` is kept.
    """
    staged = Path(staged)
    with replacing(final) as target, staged.open("rb") as source:
        shutil.copyfileobj(source, target, 1 << 20)
    staged.unlink()


def check_writable(folder: str | os.PathLike[str], *, what: str = "the output folder") -> None:
    """Make a folder where it is missing, and see that files can be written into it.

    Args:
        what: it is, for the message.

    Raises:
        DatasetError: they cannot.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with temporary(folder) as (_, stream):
            stream.write(bytes(_PROBE))
            stream.flush()
    except OSError as error:
        raise DatasetError(
            f"{what} {folder} cannot be written ({error.strerror or error}); choose "
            "another folder, free some space, or change its permissions"
        ) from error


class Staging:
    """The files of one session, published together when all of them are finished.

    ::

        with Staging(out_dir, work_dir) as staging:
            write_labels(staging.path(label_map_path(t1w, task.label_map)), labels)
            write_json(staging.path(sidecar_path(...)), Sidecar(...).to_json())

    Nothing is published if the block raises. The order is: sidecars that change are taken
    away, but one that is marked as unfinished; images come, then tables, then sidecars, that
    one at last. So a sidecar certifies its file: where it stands without that mark, the file
    beside it is whole and was made as the sidecar says, and a session with all its sidecars is
    finished. A sidecar states the size and the SHA-256 of its file, so that what happens to
    the file later can be told, too.

    Args:
        out_dir: where the files go.
        work_dir: where they are staged; None for the system's temporary folder.
        guard: called with the path of each file that would be written, before any is; raises
            if a file that must not be replaced is there.
    """

    def __init__(
        self,
        out_dir: str | os.PathLike[str],
        work_dir: str | os.PathLike[str] | None = None,
        guard: Callable[[Path], None] | None = None,
    ) -> None:
        self._out = Path(out_dir)
        self._work = None if work_dir is None else Path(work_dir)
        self._guard = guard
        self._folder: Path | None = None

    def __enter__(self) -> Staging:
        if self._work is not None:
            self._work.mkdir(parents=True, exist_ok=True)
        self._folder = Path(tempfile.mkdtemp(prefix="staging-", dir=self._work))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._folder is not None
        try:
            if kind is None:
                self._publish(self._folder)
        finally:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    def path(self, relative: str | os.PathLike[str]) -> Path:
        """Where to write the file that will be ``OUT_DIR/relative``; its folder exists.

        Raises:
            ValueError: the path leaves OUT_DIR, or the block has ended.
        """
        inner = Path(relative)
        if self._folder is None:
            raise ValueError("files are staged inside `with Staging(...)` only")
        if inner.is_absolute() or ".." in inner.parts:
            raise ValueError(f"a path inside OUT_DIR was expected, got {inner}")
        path = self._folder / inner
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def replaces(self, relative: str | os.PathLike[str]) -> bool:
        """Whether there is such a file in OUT_DIR already."""
        return (self._out / relative).exists()

    def _publish(self, folder: Path) -> None:
        files = [path for path in folder.rglob("*") if path.is_file()]
        files.sort(key=lambda path: (_LAST.get(path.suffix, 0), path.as_posix()))
        pairs = [(path, self._out / path.relative_to(folder)) for path in files]
        for parent in {final.parent for _, final in pairs}:
            _check_inside(self._out, parent)
        begun = any((_tree(final) or {}).get(UNFINISHED) for _, final in pairs
                    if final.suffix == ".json")  # fmt: skip
        for _, final in pairs:
            if self._guard is not None and not begun:
                self._guard(final)
        _certify(files)
        new = [final for _, final in pairs if not final.exists()]
        try:
            changed = [pair for pair in pairs if pair[0].suffix == ".json" and not _same(*pair)]
            _mark(changed)
            for staged, final in sorted(pairs, key=lambda pair: pair in changed[:1]):
                publish(staged, final)  # that with the mark is the last
        except BaseException:
            for final in new:  # a full disk, perhaps: leave no half of a session
                final.unlink(missing_ok=True)
            raise


def _certify(files: list[Path]) -> None:
    """Put size and SHA-256 of each file into the sidecar that is staged beside it."""
    described: dict[Path, Path] = {}
    for file in files:  # images come first: a label map's own table shares its sidecar
        described.setdefault(file.with_name(file.name.partition(".")[0] + ".json"), file)
    for sidecar, file in described.items():
        if sidecar != file and (tree := _tree(sidecar)) is not None:
            write_json(sidecar, {**tree, SIZE: file.stat().st_size, SHA256: file_sha256(file)})


def _mark(sidecars: Sequence[tuple[Path, Path]]) -> None:
    """Take sidecars away that will change, but one: it says that what is there now is ours.

    Without it, the files of a run that is killed now would be those of a stranger.
    """
    for number, (staged, final) in enumerate(sidecars):
        if number == 0 and (tree := _tree(staged)) is not None:
            write_json(final, {**tree, UNFINISHED: True})
        else:
            final.unlink(missing_ok=True)


def _tree(path: Path) -> dict[str, Any] | None:
    """The object of a JSON file; None if it holds none."""
    try:
        tree = read_json(path)
    except (OSError, ValueError):
        return None
    return tree if isinstance(tree, dict) else None


def remove_leftovers(out_dir: str | os.PathLike[str], *, older_than: float = 86400) -> int:
    """Remove what killed runs left behind; how many files.

    A file that a run of this machine is writing is locked, so what is not is left over. Of
    other machines, and where there are no locks, only old files are.

    Args:
        older_than: seconds.
    """
    oldest = time.time() - older_than
    removed = 0
    for path in Path(out_dir).rglob(".deepmrseg-*.tmp"):
        try:
            ours = path.name.startswith(f".deepmrseg-{_boot()}-")
            if path.stat().st_mtime <= oldest or (ours and not _is_locked(path)):
                path.unlink()
                removed += 1
        except OSError:
            continue  # another run was faster, or it is not ours to remove
    return removed


@cache
def _boot() -> str:
    """What tells this run of the kernel from others: within it, locks can be relied on."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")[:8]
    except OSError:
        return secrets.token_hex(4)


def _is_locked(path: Path) -> bool:
    with path.open("rb") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return True
    return False


@contextmanager
def temporary(folder: Path) -> Iterator[tuple[Path, BinaryIO]]:
    """A new hidden file, locked while it is open; it is gone, or has moved, at the end.

    Raises:
        OSError: it cannot be made.
    """
    while True:
        # a short name of our own: the final name may already be as long as the disk allows
        path = folder / f".deepmrseg-{_boot()}-{secrets.token_hex(6)}.tmp"
        with path.open("xb") as stream:
            with suppress(OSError):  # some network file systems cannot
                fcntl.flock(stream, fcntl.LOCK_EX)
            if not os.fstat(stream.fileno()).st_nlink:
                continue  # taken for a leftover before it was locked
            try:
                yield path, stream
            finally:
                path.unlink(missing_ok=True)
        return


@contextmanager
def locked(path: str | os.PathLike[str]) -> Iterator[None]:
    """Be alone with this lock among all processes, where the file system can lock.

    The lock is the kernel's: it ends with the process that holds it, however that ends.

    Raises:
        DatasetError: the file cannot be made.
    """
    try:
        stream = Path(path).open("a")  # noqa: SIM115
    except OSError as error:
        raise DatasetError(f"{path}: cannot be written ({error.strerror or error})") from error
    with stream:
        with suppress(OSError):  # some network file systems cannot
            fcntl.flock(stream, fcntl.LOCK_EX)
        yield


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """A file to write to that takes its place when it is whole; until then nobody sees it.

    Raises:
        DatasetError: the disk is full, or the folder cannot be written.
    """
    final = Path(path)
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        with temporary(final.parent) as (part, stream):
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
            os.replace(part, final)
        _sync_folder(final.parent)
    except OSError as error:
        raise DatasetError(
            f"{final}: cannot be written ({error.strerror or error}); free some space "
            "or check the permissions, and run again: completed sessions are kept"
        ) from error


def _check_inside(out: Path, folder: Path) -> None:
    """See that no link in OUT_DIR leads what is written out of it, into the raw data perhaps."""
    real = folder.resolve()
    if not real.is_relative_to(out.resolve()):
        raise DatasetError(
            f"{folder}: a link points outside OUT_DIR, to {real}; replace it by a "
            "folder, or choose another OUT_DIR"
        )


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError:
        pass  # some network file systems cannot; the rename itself is done
    finally:
        os.close(handle)


def _same(one: Path, other: Path) -> bool:
    try:
        return one.read_bytes() == other.read_bytes()
    except OSError:
        return False

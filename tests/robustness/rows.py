"""Every input and fault that the app must survive, and what the user is promised.

``docs/robustness.md`` has one line for each; the tests write it (``tests/robustness/table.py``).
"""

from __future__ import annotations

from typing import NamedTuple


class Row(NamedTuple):
    """One input or fault; ``name`` is what a test is marked with."""

    area: str
    name: str
    promise: str


def _rows(area: str, promise: str, *names: str) -> tuple[Row, ...]:
    return tuple(Row(area, name, promise) for name in names)


_IMAGES, _HEADERS, _HEADS = "Images", "Headers", "Heads"
_DATA, _FOLDERS, _FAULTS = "Data sets and names", "Folders", "Disks, signals, processes"
_STUDY = "Studies and tables"
_MODELS, _PLACES, _GPU = "Models", "Places", "GPU"

ROWS: tuple[Row, ...] = (
    *_rows(_IMAGES, "session failed: which file, what is wrong, what to do",
           "truncated gzip", "corrupt gzip", "empty file", "text named .nii.gz",
           "broken annex link"),
    *_rows(_IMAGES, "session failed: what the file is, what to do",
           "git-annex pointer file, Git LFS pointer file, HTML page, DICOM named .nii.gz"),
    *_rows(_IMAGES, "squeezed with a warning", "4D with one volume"),
    *_rows(_IMAGES, "failed: reports the shape", "4D with several volumes"),
    *_rows(_IMAGES, "cleaned with a warning", "NaN or infinity"),
    *_rows(_IMAGES, "failed: no signal", "all zeros", "constant"),
    *_rows(_IMAGES, "same as other types", "negative values", "float64", "int32", "scaled ints"),
    *_rows(_HEADERS, "failed", "singular affine", "zero affine", "NaN in the affine"),
    *_rows(_HEADERS, "failed unless --force-header", "no sform and no qform"),
    *_rows(_HEADERS, "warning, sform used", "sform and qform differ"),
    *_rows(_HEADERS, "the same anatomy gets the same labels, to within resampling",
           "oblique", "any of the 48 axis orientations"),
    *_rows(_HEADERS, "failed or flagged: not a whole head", "upside-down header"),
    *_rows(_HEADERS, "flagged by QC", "axes exchanged in the header"),
    *_rows(_HEADERS, "failed before voxels are read", "impossible size in the header"),
    *_rows(_HEADERS, "failed before voxels are read, or a finding",
           "a position that is no number, or impossible"),
    *_rows(_HEADERS, "a finding for each", "contradictory numbers in the header"),
    *_rows(_HEADERS, "label maps are placed as the scan by every program",
           "sform sheared by rounding, qform good"),
    *_rows(_HEADS, "works with a warning about quality", "5 mm slices"),
    *_rows(_HEADS, "works within --mem", "0.5 mm voxels, 512^3"),
    *_rows(_HEADS, "failed or flagged: not a whole head", "20 mm slab", "a crop"),
    *_rows(_HEADS, "works", "skull-stripped", "defaced", "contrast-enhanced"),
    *_rows(_HEADS, "flagged by QC", "a T2w named T1w",
           "a FLAIR, a T2w or a PD named T1w", "a CT named T1w"),
    *_rows(_HEADS, "failed or flagged", "a phantom"),
    *_rows(_HEADS, "task skipped with the reason", "no T1w", "no FLAIR"),
    *_rows(_HEADS, "task skipped with the cause", "no T1w, by a filter or by its name"),
    *_rows(_HEADS, "the last lines of the run name it", "a run with findings of severity error"),
    *_rows(_HEADS, "registered", "FLAIR on another grid"),
    *_rows(_HEADS, "flagged: poor alignment", "FLAIR of another participant"),
    *_rows(_DATA, "the choice is documented, logged, and set by --bids-filter-file",
           "several T1w in a session"),
    *_rows(_DATA, "warning", "invalid JSON sidecar", "invalid TSV next to the image"),
    *_rows(_DATA, "error before processing starts, naming the folder",
           "no dataset_description.json", "not a BIDS data set"),
    *_rows(_DATA, "works; reports escape it",
           "label or path with spaces, accents, quotes, <script>", "path of 200 characters"),
    *_rows(_STUDY, "ordered by date, else by numbers in the labels; else no change has a sign",
           "sessions whose labels are not in the order of time"),
    *_rows(_STUDY, "named and not used; exit code 3",
           "a damaged table of volumes at the group level"),
    *_rows(_STUDY, "error before anything is written",
           "group with a BIDS_DIR that is not the source of OUT_DIR"),
    *_rows(_STUDY, "earlier label maps keep their names; every session is in the tables",
           "two models with other labels in one OUT_DIR"),
    *_rows(_STUDY, "used where the meaning is clear, with a warning",
           "participants.tsv of R, of a spreadsheet, in other encodings"),
    *_rows(_FOLDERS, "works", "read-only BIDS_DIR"),
    *_rows(_FOLDERS, "error before processing starts", "OUT_DIR not writable", "OUT_DIR = BIDS_DIR",
           "OUT_DIR inside BIDS_DIR, not under derivatives/", "work dir inside BIDS_DIR"),
    *_rows(_FOLDERS, "error before processing starts; no file of others is replaced",
           "OUT_DIR of another app", "OUT_DIR of another data set"),
    *_rows(_FOLDERS, "reported as it is, in the terminal, sessions.tsv and the report",
           "a second run with labels or filters", "a result that was deleted, cut or overwritten",
           "the results of one session under the names of another",
           "two scans exchanged, or one replaced, after they were segmented"),
    *_rows(_FAULTS,
           "clear error, completed sessions are kept; the next run completes the rest, "
           "byte-identical",
           "disk full", "memory limit", "worker killed", "SIGINT", "SIGTERM",
           "power cut (SIGKILL at any instant)"),
    *_rows(_FAULTS, "one line for each report, exit code 3", "disk full at the report"),
    *_rows(_FAULTS, "error before processing starts, or one line; no half-written file",
           "deepmrseg predict and train on a full or read-only disk"),
    *_rows(_FAULTS, "both finish, or the second reports the conflict; no damaged file",
           "two runs on one OUT_DIR at once"),
    *_rows(_MODELS, "rejected before processing starts: expected and found SHA-256",
           "model file changed", "model file truncated"),
    *_rows(_MODELS, "rejected before processing starts",
           "model of a newer format", "model is a pickle"),
    *_rows(_PLACES, "works", "no network", "no home directory", "arbitrary user id",
           "read-only container", "closed standard streams, no HOME, caches not writable"),
    *_rows(_PLACES, "error before processing starts: which template, which variable to set",
           "TemplateFlow template not installed and no network"),
    *_rows(_GPU, "error before processing starts", "GPU requested but not available"),
    *_rows(_GPU, "smaller batches, then CPU with a warning if auto", "GPU memory too small"),
)  # fmt: skip

NOT_TESTED_YET: set[str] = set()
"""Rows that no test fills so far: take a name out when its test is there."""

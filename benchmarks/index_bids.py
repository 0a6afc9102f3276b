"""How long it takes to find the sessions of a large data set.

Makes 500 subjects x 2 sessions with anat, func and dwi (8,000 empty files) in a temporary
folder, and asks for all of them, for one of them, and twice with an index that is kept
(`--bids-database-dir`), each in a process of its own, so that importing pybids counts. Wanted:
at most 5 s, and at most 1 s for one of them.

Usage: python benchmarks/index_bids.py [SUBJECTS]
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

_FILES = {
    "anat": ("T1w.nii.gz", "FLAIR.nii.gz"),
    "func": ("task-rest_bold.nii.gz", "task-rest_bold.json", "task-rest_events.tsv"),
    "dwi": ("dwi.nii.gz", "dwi.bval", "dwi.bvec"),
}
_MEASURE = """
import sys, time
from deepmrseg_bids.bids.query import find_sessions
start = time.perf_counter()
found = find_sessions(
    sys.argv[1], participant_labels=sys.argv[3:], database_dir=sys.argv[2] or None
)
print(f"{len(found)} sessions in {time.perf_counter() - start:.2f} s")
"""


def make_dataset(root: Path, subjects: int) -> None:
    """Empty files under ``root``: two sessions a subject, eight files a session."""
    description = {"Name": "benchmark", "BIDSVersion": "1.10.0"}
    (root / "dataset_description.json").write_text(json.dumps(description), encoding="utf-8")
    for number in range(1, subjects + 1):
        for session in ("1", "2"):
            stem = f"sub-{number:04d}_ses-{session}"
            for datatype, endings in _FILES.items():
                folder = root / f"sub-{number:04d}" / f"ses-{session}" / datatype
                folder.mkdir(parents=True)
                for ending in endings:
                    (folder / f"{stem}_{ending}").touch()


def main() -> None:
    """Make the data set and print the times."""
    subjects = int(sys.argv[1]) if len(sys.argv) > 1 else 500
    cases = [
        (f"{subjects} subjects", False, []),
        ("one subject", False, ["0001"]),
        ("with a database, first run", True, []),
        ("with a database, second run", True, []),
    ]
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder, "raw")
        raw.mkdir()
        make_dataset(raw, subjects)
        for name, kept, labels in cases:
            database = f"{folder}/db" if kept else ""
            command = [sys.executable, "-c", _MEASURE, raw, database, *labels]
            answer = subprocess.run(command, check=True, capture_output=True, text=True)
            print(f"{name}: {answer.stdout.strip()}")


if __name__ == "__main__":
    main()

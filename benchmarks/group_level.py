"""Time and memory of the group level with many sessions.

``python benchmarks/group_level.py [--sessions 2000] [--tasks deepbrain] [--pages] [--scans]`` makes
volumes up: `brain` and other tasks, with their composite regions, of people with two sessions each,
with ages and dates. Nothing is segmented. With ``--scans`` each session has a scan of 256 x 256 x
192 voxels of 1 mm (the same noise) and label maps of `brain` and `deepbrain`, so that the page has
its mosaics. ``--keep DIR`` keeps what was made up, for a look at the page.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import numpy as np

from deepmrseg_bids.bids import names
from deepmrseg_bids.bids.derivatives import write_dataset_files
from deepmrseg_bids.bids.provenance import Provenance, Sidecar
from deepmrseg_bids.bids.tables import MorphRow, SessionRow, write_morph, write_sessions
from deepmrseg_bids.findings import Finding
from deepmrseg_bids.imaging.grid import Grid
from deepmrseg_bids.imaging.labels import Label, LabelTable
from deepmrseg_bids.imaging.nifti import LabelMap, write_labels
from deepmrseg_bids.inference.bundle import shipped_bundles
from deepmrseg_bids.tasks.regions import read_regions
from deepmrseg_bids.tasks.registry import find_task

_BRAIN = LabelTable((Label(1, "Brain"),))


@dataclass(frozen=True)
class MadeUp:
    """What a table of volumes holds: names, and their volumes in an average head in mm3."""

    names: Sequence[tuple[int, str]]
    typical: np.ndarray

    @classmethod
    def of(cls, names: Sequence[tuple[int, str]], rng: np.random.Generator) -> MadeUp:
        """Drawn by chance."""
        return cls(names, rng.uniform(400, 8000, len(names)))

    def rows(self, size: float, brain: float, rng: np.random.Generator) -> list[MorphRow]:
        """Of one head, ``size`` times the average."""
        volumes = self.typical * size * np.exp(rng.normal(0, 0.08, len(self.names)))
        return [
            MorphRow(index, name, float(v), float(v) * 0.9, float(v) * 1.1,
                     float(100 * v / brain), float(rng.uniform(0.85, 0.95)))
            for (index, name), v in zip(self.names, volumes, strict=True)
        ]  # fmt: skip


def made_up(folder: Path, sessions: int, tasks: Sequence[str]) -> None:
    """BIDS_DIR and OUT_DIR of people with two sessions each."""
    raw, out = folder / "raw", folder / "out"
    rng = np.random.default_rng(1)
    tables = {
        task: find_task(task).table or LabelTable.read(shipped_bundles()[task] / "labels.tsv")
        for task in tasks
    }
    kinds = {(task, ""): MadeUp.of([(one.index, one.name) for one in table], rng)
             for task, table in tables.items()}  # fmt: skip
    for task in tasks:
        if regions := find_task(task).regions:
            of = [(one.index, one.name) for one in read_regions(regions)]
            kinds[task, names.REGIONS] = MadeUp.of(of, rng)
    odd = Finding("oblique", "info", "tilted by 12 degrees")
    facts = Sidecar("Volumes", Provenance({}, {}, {}, {}), [odd]).to_json()
    people, log = ["participant_id\tage\tsex"], []
    for number in range(sessions // 2):
        subject = f"sub-{number:04}"
        age = rng.uniform(20, 90)
        people.append(f"{subject}\t{age:.1f}\t{'FM'[number % 2]}")
        size = float(np.exp(rng.normal(0, 0.1)))
        lines = ["session_id\tacq_time\tage"]
        for visit in (1, 2):
            session = f"ses-{visit}"
            lines.append(f"{session}\t20{10 + visit}-03-0{visit}T10:00:00\t{age + visit:.1f}")
            t1w = f"{subject}_{session}_T1w.nii.gz"
            brain = 1_400_000 * size
            whole = MorphRow(1, "Brain", brain, brain * 0.97, brain * 1.03, 100.0, 0.97)
            write_quickly(out / names.morph_path(t1w, "brain"), [whole], facts)
            for (task, part), kind in kinds.items():
                path = out / names.morph_path(t1w, task, desc=part or None)
                write_quickly(path, kind.rows(size, brain, rng), facts)
            log += [SessionRow(subject, session, task, "done", "", 5.0, 900.0, "info:oblique")
                    for task in ("brain", *tasks)]  # fmt: skip
        (raw / subject).mkdir(parents=True)
        (raw / subject / f"{subject}_sessions.tsv").write_text("\n".join(lines) + "\n")
    (raw / "participants.tsv").write_text("\n".join(people) + "\n")
    write_sessions(out / "logs" / "sessions.tsv", log)
    tables = {"brain": _BRAIN, **tables}
    write_dataset_files(out, raw, tasks=list(map(find_task, tables)), tables=tables, version="0")


def add_scans(folder: Path) -> None:
    """A scan and two label maps for every session: links to the same three files."""
    grid = Grid((256, 256, 192), np.diag([1.0, 1.0, 1.0, 1.0]))
    i, j, k = np.ogrid[:256, :256, :192]
    away = ((i - 128) / 75) ** 2 + ((j - 128) / 90) ** 2 + ((k - 96) / 70) ** 2
    noise = np.random.default_rng(2).normal(0, 40, grid.shape)
    scan = np.clip(1000 * (away < 1.3) + noise, 0, None)
    deep = np.zeros(grid.shape)
    for number, index in enumerate((23, 30, 31, 32, 36, 37, 47, 48, 55, 56, 57, 58, 59, 60)):
        middle = 128 + (15 if number % 2 else -15), 90 + 10 * (number // 2), 96
        distance = (i - middle[0]) ** 2 + (j - middle[1]) ** 2 + (k - middle[2]) ** 2
        deep[distance < 100] = index
    for name, data in (("scan", scan), ("brain", away < 1), ("deepbrain", deep)):
        write_labels(folder / f"{name}.nii.gz", LabelMap(data.astype(np.uint16), grid))
    for table in sorted((folder / "out").glob("sub-*/ses-*/anat/*_seg-brain_morph.tsv")):
        t1w = table.name.replace("_seg-brain_morph.tsv", "_T1w.nii.gz")
        raw = names.anat_folder(t1w) / t1w
        (folder / "raw" / raw).parent.mkdir(parents=True, exist_ok=True)
        os.link(folder / "scan.nii.gz", folder / "raw" / raw)
        for task in ("brain", "deepbrain"):
            path = names.label_map_path(t1w, find_task(task).label_map)
            os.link(folder / f"{task}.nii.gz", folder / "out" / path)
            said = folder / "out" / names.sidecar_path(path)
            said.write_text(json.dumps({"SpatialReference": f"bids:raw:{raw}"}))


def write_quickly(path: Path, rows: list[MorphRow], facts: dict[str, object]) -> None:
    """As in a run, but without waiting for the disk."""
    with mock.patch.object(os, "fsync"):
        write_morph(path, rows, provenance=facts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sessions", type=int, default=2000)
    parser.add_argument("--tasks", nargs="+", default=["deepbrain"], metavar="TASK")
    parser.add_argument("--keep", type=Path, metavar="DIR")
    parser.add_argument("--pages", action="store_true", help="write group.html too")
    parser.add_argument("--scans", action="store_true", help="and draw mosaics of scans")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = args.keep or Path(name)
        made_up(folder, args.sessions, args.tasks)
        if args.scans:
            add_scans(folder)
        command = [sys.executable, "-m", "deepmrseg_bids.cli.deepmrseg_bids",
                   str(folder / "raw"), str(folder / "out"), "group", "-q"]  # fmt: skip
        if not (args.pages or args.scans):
            command.append("--no-reports")
        began = time.perf_counter()
        subprocess.run(command, check=True)
        seconds = time.perf_counter() - began
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        files = sorted((folder / "out").glob("group*"))
        cpu = used.ru_utime + used.ru_stime
        print(
            f"{args.sessions} sessions: {seconds:.1f} s, {cpu:.1f} s of processor time, "
            f"{used.ru_maxrss / 1024:.0f} MiB"
        )
        sheets = sorted((folder / "out" / "figures").glob("*.webp"))
        if sheets:
            size = sum(sheet.stat().st_size for sheet in sheets) / 2**20
            print(f"{len(sheets)} sheets of mosaics, {size:.1f} MiB")
        print(f"{len(files)} files, {sum(f.stat().st_size for f in files) / 2**20:.1f} MiB")


if __name__ == "__main__":
    main()

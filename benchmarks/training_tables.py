"""Write the tables of samples that the shipped models are trained on.

    python benchmarks/training_tables.py DATA OUT

``DATA`` holds ``deepbrain/``, ``heads/``, ``wml/``, ``labelmaps/`` and ``hippocampus/``;
``OUT`` receives a table for each model with absolute paths, and some that only the
experiments of docs/accuracy.md need. What only teaches (automatic labels beside manual ones,
label maps to synthesise scans from) is marked so and never judges.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

COLUMNS = (
    "sample_id", "participant_id", "T1w", "FLAIR", "dseg", "mask", "protocol", "weight",
    "teaches_only", "lesions",
)  # fmt: skip


def heads(data: Path) -> list[dict[str, str]]:
    """Raw heads with automatic whole-brain labels: 50 of young and old, 16 clinical."""
    rows = []
    for root in (data / "heads", data / "wml" / "clinical"):
        for t1w in sorted(root.glob("sub-*/anat/*_T1w.nii.gz")):
            subject = t1w.name.split("_")[0]
            dseg = (
                root / "derivatives/dlmuse" / subject / "anat" / f"{subject}_seg-muse_dseg.nii.gz"
            )
            if dseg.is_file():
                name = f"{root.name}_{subject}"
                rows.append(
                    {
                        "sample_id": name,
                        "participant_id": name,
                        "T1w": str(t1w),
                        "dseg": str(dseg),
                        "protocol": "muse",
                    }
                )
    return rows


def label_maps(data: Path, weight: float) -> list[dict[str, str]]:
    """Whole-head label maps, to synthesise scans of any contrast from."""
    return [
        {
            "sample_id": path.name.split(".")[0],
            "dseg": str(path),
            "protocol": "freesurfer",
            "weight": str(weight),
            "teaches_only": "1",
        }
        for path in sorted((data / "labelmaps").glob("*_dseg.nii.gz"))
    ]


def clinical_pairs(folder: Path) -> list[dict[str, str]]:
    """T1w and FLAIR of 16 older people, with automatic labels of lesions on the FLAIR."""
    rows = []
    for flair in sorted(folder.glob("sub-*/anat/*_FLAIR.nii.gz")):
        subject = flair.name.split("_")[0]
        name = f"{subject}_space-FLAIR_seg-wml_dseg.nii.gz"
        rows.append(
            {
                "sample_id": f"clinical_{subject}",
                "participant_id": f"clinical_{subject}",
                "T1w": str(flair.with_name(f"{subject}_T1w.nii.gz")),
                "FLAIR": str(flair),
                "dseg": str(folder / "derivatives/dlwmls" / subject / "anat" / name),
            }
        )
    return rows


def with_lesions(data: Path, weight: float) -> list[dict[str, str]]:
    """The label maps, each with the lesions of ``wml/lesions`` to put into it."""
    lesions = str(data / "wml" / "lesions")
    return [{**row, "protocol": "", "lesions": lesions} for row in label_maps(data, weight)]


def textured(data: Path, weight: float) -> list[dict[str, str]]:
    """Raw T1w of IXI, to make FLAIRs with the texture of real heads from, and lesions in them."""
    more = {"weight": str(weight), "teaches_only": "1", "lesions": str(data / "wml" / "lesions")}
    return [{**row, **more} for row in heads(data) if row["sample_id"].startswith("heads_")]


def permissive(data: Path) -> list[dict[str, str]]:
    """Deep structures without manual labels: IXI with automatic ones, and label maps."""
    ixi = [row for row in heads(data) if row["sample_id"].startswith("heads_")]
    return [{**row, "mask": row["dseg"]} for row in ixi] + label_maps(data, 0.15)


def own_table(folder: Path) -> list[dict[str, str]]:
    """The rows of a set's own samples.tsv, with absolute paths."""
    with (folder / "samples.tsv").open(newline="") as stream:
        rows = list(csv.DictReader(stream, delimiter="\t"))
    return [
        {**row, "T1w": str(folder / row["T1w"]), "dseg": str(folder / row["dseg"])} for row in rows
    ]


def main() -> None:
    data, out = Path(sys.argv[1]).resolve(), Path(sys.argv[2])
    out.mkdir(parents=True, exist_ok=True)
    manual = own_table(data / "deepbrain")
    tables = {
        "brain": heads(data) + label_maps(data, 1.0),
        "deepbrain_manual": manual,
        "wholebrain_manual": [{**row, "protocol": "neuromorphometrics"} for row in manual],
        "wholebrain": [{**row, "protocol": "neuromorphometrics"} for row in manual]
        + [{**row, "mask": row["dseg"], "weight": "0.3"} for row in heads(data)],
        "sides": [{**row, "protocol": "neuromorphometrics"} for row in manual]
        + [{**row, "mask": row["dseg"]} for row in heads(data)]
        + label_maps(data, 0.5),
        "deepbrain": manual + label_maps(data, 0.15),
        "deepbrain_permissive": permissive(data),
        "icv": label_maps(data, 1.0),
        "outline": [{**row, "protocol": "neuromorphometrics"} for row in manual]
        + [{**row, "mask": row["dseg"], "weight": "0.4"} for row in heads(data)]
        + label_maps(data, 1.0),
        "hippocampus": own_table(data / "hippocampus"),
        "wml": clinical_pairs(data / "wml" / "clinical")
        + with_lesions(data, 1.3)
        + textured(data, 0.2),
    }
    for task, rows in tables.items():
        with (out / f"{task}.tsv").open("w", newline="") as stream:
            writer = csv.DictWriter(
                stream, COLUMNS, delimiter="\t", extrasaction="ignore", lineterminator="\n"
            )
            writer.writeheader()
            writer.writerows(rows)
        print(f"{out / task}.tsv: {len(rows)} samples")


if __name__ == "__main__":
    main()

r"""Put a trained bundle into the package, with its accuracy, intervals and model card.

    python benchmarks/ship_model.py RUN/bundle EVALUATION TASK [CROSSVAL]

``EVALUATION`` is what `deepmrseg evaluate` wrote for the samples that the run kept back
(``RUN/validation.tsv``). For a run that kept nobody back it is what `deepmrseg crossval` wrote
with the same settings, or `deepmrseg evaluate` for another run with the same settings that kept
a fold back. The volume intervals of the bundle come from it, or from ``CROSSVAL``: the folder
of a cross-validation of networks trained alike, which judged more people than one fold, or a
bundle whose intervals are kept.

    python benchmarks/ship_model.py RUN/bundle - TASK

A model for which there is no reference: its card says so, in the place of an accuracy.

    python benchmarks/ship_model.py RUN/bundle BUNDLE TASK

The weights of a run that went on from ``BUNDLE`` (``--init``), with the accuracy of that one.

    python benchmarks/ship_model.py RUN/bundle EVALUATION TASK [CROSSVAL] \
        --calibrate PER_SAMPLE.tsv ... --ranges 1500 5000 15000 --none-below 300

``--regions`` adds the intervals of composite regions (`benchmarks/region_volumes.py`).

Intervals by range of the volume, the floor and the confidence come from these tables of samples
(`per_sample.tsv`, as `deepmrseg evaluate` writes them), none of which the networks were trained on,
whose confidence is that of the posteriors (a bundle without ``confidence_fit``). ``--ranges``
are the ends of the ranges in mm3, ``--none-below`` is the reference volume below which there are
few lesions (the floor comes from these scans); ``--if-none`` states what may have been missed where
nothing was found, in mm3 (`benchmarks/missed_lesions.py`). The coverage of the intervals, each from
all other samples, and the rank correlation of the confidence with the true Dice are printed and go
into the card.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
from pathlib import Path
from typing import Any

from scipy import stats

from deepmrseg_bids.inference.bundle import ModelBundle
from deepmrseg_bids.inference.calibration import Calibration
from deepmrseg_bids.train.calibrate import confidence_fit, coverage, floor_of, interval_ranges
from deepmrseg_bids.train.evaluation import Evaluated, read_rows

MODELS = Path(__file__).parents[1] / "deepmrseg_bids" / "models"

DATA = {
    "brain": (
        "IXI (50 heads, T1w, 2 mm) and 16 clinical heads of older adults with "
        "automatic labels (DLMUSE); 12 whole-head label maps from which scans "
        "are synthesised"
    ),
    "deepbrain": (
        "28 T1w scans of OASIS with manual labels "
        "provided by Neuromorphometrics, Inc. under academic subscription "
        "(MICCAI 2012 multi-atlas set); in a small proportion also scans "
        "synthesised from 12 whole-head label maps"
    ),
    "icv": (
        "scans synthesised from 12 whole-head label maps, in which all that lies inside the skull "
        "is labelled; no real scan"
    ),
    "outline": (
        "28 T1w scans of OASIS with manual labels provided by Neuromorphometrics, Inc. under "
        "academic subscription (MICCAI 2012 multi-atlas set); with less weight IXI (50 heads, "
        "T1w, 2 mm) and 16 clinical heads of older adults with automatic labels (DLMUSE), a "
        "quarter of all these held out; scans synthesised from 12 whole-head label maps"
    ),
    "sides": (
        "28 T1w scans of OASIS with manual labels provided by Neuromorphometrics, Inc. under "
        "academic subscription (MICCAI 2012 multi-atlas set); IXI (50 heads, T1w, 2 mm) and 16 "
        "clinical heads of older adults with automatic labels (DLMUSE); scans synthesised from 12 "
        "whole-head label maps"
    ),
    "wholebrain": (
        "28 T1w scans of OASIS with manual labels provided by Neuromorphometrics, Inc. under "
        "academic subscription (MICCAI 2012 multi-atlas set); with less weight IXI (50 heads, "
        "T1w, 2 mm) and 16 clinical heads of older adults with automatic labels (DLMUSE)"
    ),
    "hippocampus": "200 crops of the Medical Segmentation Decathlon, task 04, with manual labels",
    "wml": (
        "16 clinical FLAIR-T1w pairs of older adults, 2 mm, with automatic labels (DLWMLS); 5 "
        "pairs of older adults, slices of 3 mm, with manual labels of one rater; 2 of patients "
        "with multiple sclerosis, 1 mm, with labels of several raters; pairs synthesised from 12 "
        "whole-head label maps and from 50 T1w heads of IXI, with lesions of 27 patients with "
        "multiple sclerosis and of a lesion simulator"
    ),
}
BEFORE = {
    "brain": ", after 1100 steps with less noise and fewer brain-extracted heads",
    "deepbrain": ", after 4200 steps on three of four folds: 2400 on the manually labelled scans "
    "alone (`deepbrain-extracted`), 1800 with weaker augmentation (version 0.2.0)",
    "hippocampus": "",
    "wml": ", after 8000 steps with fewer bright regions that are no lesions, 1500 with slices of "
    "up to 6 mm and 1300 with slices of up to 8 mm, all without the manual labels and without one "
    "of four folds of the clinical pairs",
    "wholebrain": ", after 1900 steps on the manually labelled scans of three of four folds, and "
    "660, 2000, 2600 and 2800 with whole heads at a weight of 0.3, 0.2, 0.35 and 0.6 each",
}
LICENCE = {
    "brain": "research use; IXI: CC BY-SA 3.0; automatic labels: SBIA software licence; "
    "label maps: Apache-2.0",
    "deepbrain": "non-commercial use only (CC BY-NC, the terms of its manual labels)",
    "icv": "research use; label maps: Apache-2.0",
    "outline": "non-commercial use only (CC BY-NC, the terms of its manual labels)",
    "sides": "non-commercial use only (CC BY-NC, the terms of its manual labels)",
    "wholebrain": "non-commercial use only (CC BY-NC, the terms of its manual labels)",
    "hippocampus": "CC BY-SA 4.0 (the terms of its training data)",
    "wml": "research use; clinical scans and automatic labels: SBIA software licence; IXI: CC "
    "BY-SA 3.0; label maps: Apache-2.0; lesion shapes: Apache-2.0 and CC BY 4.0; scans of multiple "
    "sclerosis: CC BY 4.0",
}
CITE = {
    "brain": "IXI (brain-development.org); Bashyam et al. 2025 (DLMUSE); NiChart (clinical heads); "
    "Billot et al. 2023",
    "deepbrain": "Landman & Warfield 2012; Marcus et al. 2007 (OASIS); Billot et al. 2023",
    "icv": "Billot et al. 2023",
    "outline": "Landman & Warfield 2012; Marcus et al. 2007 (OASIS); IXI (brain-development.org); "
    "Bashyam et al. 2025 (DLMUSE); NiChart (clinical heads); Billot et al. 2023",
    "sides": "Landman & Warfield 2012; Marcus et al. 2007 (OASIS); IXI (brain-development.org); "
    "Bashyam et al. 2025 (DLMUSE); NiChart (clinical heads); Billot et al. 2023",
    "wholebrain": "Landman & Warfield 2012; Marcus et al. 2007 (OASIS); IXI "
    "(brain-development.org); Bashyam et al. 2025 (DLMUSE); NiChart (clinical heads)",
    "hippocampus": "Simpson et al. 2019; Antonelli et al. 2022",
    "wml": "NiChart/DLWMLS; CBICA tutorials (manual labels); Billot et al. 2023; Senra Filho et "
    "al. 2019; Lesjak et al. 2018",
}
PEOPLE = {
    "brain": "adults, healthy (IXI) and older clinical patients; scanners of 1.5 T and 3 T",
    "deepbrain": "adults aged 18 to 90 years, most of them healthy; one scanner type (1.5 T)",
    "icv": "adults (label maps of 12 heads)",
    "outline": "adults aged 18 to 90 years, healthy and older clinical patients",
    "sides": "adults aged 18 to 90 years, healthy and older clinical patients",
    "wholebrain": "adults aged 18 to 90 years, most of them healthy; older clinical patients",
    "hippocampus": "adults, healthy and with psychotic disorders",
    "wml": "older clinical patients (small-vessel disease); lesion shapes and "
    "locations from patients with multiple sclerosis",
}
LIMITS = {
    "brain": "The reference labels are automatic. The mask includes the ventricles "
    "and the fluid of the sulci. Not validated in infants, tumours, large "
    "resections or other species.",
    "deepbrain": "It was trained on few scans of one scanner type; contrast that differs "
    "from MP-RAGE (for example 2D spin echo), strong atrophy, tumours and "
    "resections were rare or absent.",
    "icv": "It was trained on synthetic scans alone, and bone is as dark as fluid in a T1w: the "
    "border follows the shape of the head where the image does not show it. Not validated with "
    "manual outlines. Skull-stripped images have no intracranial volume.",
    "outline": "It draws the border of a brain whose mask is known to about 3 mm, and follows "
    "that mask where the image does not show the border. Fluid of the sulci is outside; the "
    "ventricles are inside. Trained on T1w alone.",
    "sides": "It only tells right from left.",
    "wholebrain": "Cortical regions are defined by landmarks on which raters differ: single "
    "regions of the frontal and orbital cortex are unreliable, lobes less so. Volumes of the "
    "cortex are 7 % too small in the mean; the intervals correct for that. It was trained on "
    "few scans; strong contrast differences, tumours and resections were absent. Label 15, 63 to "
    "66, 74 and other codes that fewer than half of the training scans have are not used.",
    "hippocampus": "It was trained on crops at 1 mm; thick slices reduce accuracy. The "
    "border between the anterior and the posterior part follows the protocol "
    "of its training set.",
    "wml": "White matter that is bright on FLAIR is labelled as lesion: "
    "small-vessel disease and multiple sclerosis are not distinguished, and "
    "infarcts, oedema and gliosis can be labelled. Not validated in tumours. "
    "Lesions in cortex, cerebellum and spinal cord are missed. Few faint "
    "lesions are not separated reliably from other bright spots: in five older people with "
    "manual labels of 0.1 to 7.9 ml the volume is wrong by 0.01 to 1.5 ml (median 0.6 ml; networks "
    "that were not trained on the person); in two other patients with manual labels Dice is 0.76 "
    "with many lesions, 0.20 with few. "
    "The labels of the clinical scans are automatic, at 2 mm, and omit visible lesions, so "
    "agreement with them does not measure the accuracy of volumes.",
}
OTHER_RUN = (
    "The shipped network was trained on all samples. The values below are "
    "from a network trained with the same settings on three of four folds "
    "(split by participant) and evaluated on the fourth."
)
HELD_OUT = (
    "One of four folds (split by participant) was held out; the values below "
    "are measured on that fold."
)


USE = {
    "brain": "brain volume, and locating the structures segmented by the other models.",
    "deepbrain": "regional volumes of groups of adults in research.",
    "icv": "head size, to adjust volumes for.",
    "outline": "the brain mask at 1 mm in the task brain.",
    "sides": "telling right from left in the task wholebrain.",
    "wholebrain": "regional volumes of groups of adults in research; composite regions rather than "
    "single cortical regions where few people are compared.",
    "hippocampus": "volumes of both parts of the hippocampus for groups of adults in research.",
    "wml": "lesion volumes of groups of adults in research, from FLAIR with T1w; "
    "with lower accuracy from FLAIR alone.",
}


def protocol(summary: dict[str, Any], facts: dict[str, Any]) -> str:
    """How the figures were made."""
    if "folds" not in summary:
        return HELD_OUT if facts["samples_held_out"] else OTHER_RUN
    again = f", {summary['repeats']} times" if summary["repeats"] > 1 else ""
    return (
        "The shipped network was trained on all samples. The values below are "
        "from networks trained with the same settings in a "
        f"{summary['folds']}-fold cross-validation{again}: each sample was "
        "evaluated with a network that was not trained on that participant."
    )


def judged(summary: dict[str, Any]) -> dict[str, Any]:
    """The part of a summary that tells about the shipped kind of network."""
    if "folds" not in summary:
        return summary
    kind = "deepmrseg"
    return {
        **summary,
        "f1_mean": summary["f1_mean"][kind],
        "structures": [row for row in summary["structures"] if row["network"] == kind],
        "volume_interval": summary["volume_interval"][kind],
    }


def intervals(source: Path) -> dict[str, Any]:
    """The volume intervals of a cross-validation or of a bundle, and of how many samples."""
    if not (source / "bundle.json").is_file():
        return judged(json.loads((source / "summary.json").read_text()))
    facts = ModelBundle.open(source).facts
    return {
        "volume_interval": facts["volume_interval"],
        "samples": facts["volume_interval_samples"],
    }


def card(task: str, facts: dict[str, Any], summary: dict[str, Any], bundle: ModelBundle) -> str:
    """The model card, Markdown."""
    command = "crossval" if "folds" in summary else "evaluate"
    about = (
        f"{protocol(summary, facts)} The 90 % intervals of "
        f"volumes are estimated from {facts['volume_interval_samples']} samples "
        "that were not used to train the networks."
    )
    lines = [*head(task, facts, about), *about_calibration(facts)]
    lines += [
        "",
        (
            f"Accuracy on {summary['samples']} samples, each evaluated with a network "
            f"that was not trained on it (`deepmrseg {command}`):"
        ),
        "",
        "| structure | Dice, mean (SD) | F2 | BACC | CCC of volumes |",
        "| --- | --- | --- | --- | --- |",
    ]
    for row in summary["structures"]:
        values = [row[key] for key in ("f1_mean", "f1_sd", "f2_mean", "bacc_mean", "ccc")]
        f1, sd, f2, bacc, ccc = ("n/a" if v is None else f"{v:.3f}" for v in values)
        lines.append(f"| {row['name']} | {f1} ({sd}) | {f2} | {bacc} | {ccc} |")
    lines += [
        "",
        f"Mean Dice: {summary['f1_mean']:.3f}. SHA-256 of the weights: `{bundle.sha256}`.",
    ]
    return "\n".join(lines) + "\n"


def head(task: str, facts: dict[str, Any], about: str) -> list[str]:
    """What every card says: data, people, terms, training, and how it was judged."""
    return [
        f"# Model card: {task}",
        "",
        "For research only. Not a medical device; not for diagnosis or treatment.",
        "",
        f"- **Training data**: {DATA[task]}.",
        f"- **People**: {PEOPLE[task]}.",
        f"- **Terms of the weights**: {LICENCE[task]}.",
        f"- **Cite**: {CITE[task]}; Doshi et al. 2019 (arXiv 1907.02110).",
        (
            f"- **Training**: {facts['steps']} steps on {facts['samples_trained_on']} samples"
            f"{BEFORE[task] if 'started_from' in facts else ''}; the settings are in `train.toml`."
        ),
        f"- **Protocol**: {about}",
        f"- **Intended use**: {USE[task]}",
        f"- **Known limits**: {LIMITS[task]}",
    ]


UNJUDGED = {
    "icv": "There is no manual outline of a skull to compare it with; docs/accuracy.md says what "
    "was done instead.",
    "outline": "docs/accuracy.md compares it with manual outlines of people it was not trained on.",
    "sides": "It is evaluated together with `wholebrain`.",
}


def without_reference(source: Path, task: str) -> None:
    """Ship a model whose accuracy alone cannot be measured."""
    target = MODELS / task
    if target.exists():
        shutil.rmtree(target)
    shutil.copytree(source, target)
    tree = json.loads((target / "bundle.json").read_text())
    facts = {"training_data": DATA[task], "licence": LICENCE[task], "cite": CITE[task],
             "protocol": UNJUDGED[task]}  # fmt: skip
    tree["facts"] |= facts
    (target / "bundle.json").write_text(json.dumps(tree, indent=2, ensure_ascii=False) + "\n")
    bundle = ModelBundle.open(target)
    lines = head(task, bundle.facts, UNJUDGED[task])
    lines += ["", f"SHA-256 of the weights: `{bundle.sha256}`."]
    (target / "card.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"{target}: {bundle.label}")


def go_on(source: Path, before: Path, task: str) -> None:
    """Ship what was trained further; its card says that the accuracy is that of before."""
    old, card_before = ModelBundle.open(before), (before / "card.md").read_text(encoding="utf-8")
    text = (
        "The values below are older than the last training steps: they are from networks trained "
        "with weaker augmentation"
    )
    steps = json.loads((source / "bundle.json").read_text())["facts"]["steps"]
    target = MODELS / task
    kept = {name: value for name, value in old.facts.items() if name not in ("started_from",)}
    if target.exists():
        shutil.rmtree(target)
    shutil.copytree(source, target)
    tree = json.loads((target / "bundle.json").read_text())
    tree["facts"] = {**kept, **tree["facts"], "protocol": f"{old.facts['protocol']} {text}."}
    tree["facts"] |= {name: kept[name] for name in ("dice_held_out",) if name in kept}
    tree["facts"]["steps"] = steps
    (target / "bundle.json").write_text(json.dumps(tree, indent=2, ensure_ascii=False) + "\n")
    new = ModelBundle.open(target)
    card_now = card_before.replace(old.sha256, new.sha256)
    card_now = card_now.replace(
        "; the settings are in `train.toml`",
        f", then {steps} steps with stronger augmentation (settings in `train.toml`)",
    )
    card_now = card_now.replace("- **Intended use**", f"- **Note**: {text}.\n- **Intended use**")
    (target / "card.md").write_text(card_now, encoding="utf-8")
    print(f"{target}: {new.label}")


def calibrated(
    rows: list[Evaluated], ends: list[float], none_below: float, if_none: float | None
) -> dict[str, Any]:
    """The facts of a bundle about volumes by range, the floor and the confidence."""
    facts: dict[str, Any] = {}
    for name in dict.fromkeys(row.name for row in rows):
        own = [row for row in rows if row.name == name]
        stated: dict[str, Any] = {
            "volume_interval_ranges": interval_ranges(own, ends),
            "confidence_fit": confidence_fit(own),
        }
        try:
            stated["volume_floor"] = floor_of(own, none_below_mm3=none_below)
        except ValueError as error:
            print(f"no floor: {error}")
        if if_none is not None:
            stated["volume_if_none"] = if_none
        for key, value in stated.items():
            facts.setdefault(key, {})[name] = value
        facts.setdefault("calibration", {})[name] = {
            "samples": len(own),
            "coverage": [[None if math.isinf(end) else end, n, round(share, 3)]
                         for end, n, share in coverage(own, ends)],
            "confidence_rank_correlation": round(ranked(own), 3),
        }  # fmt: skip
    return facts


def ranked(rows: list[Evaluated]) -> float:
    """Spearman's correlation of true Dice and confidence, each fitted to all other samples."""
    known = [row for row in rows if row.confidence is not None and row.agreement.volume_mm3 > 0]
    told = []
    for place, row in enumerate(known):
        fit = confidence_fit([*known[:place], *known[place + 1 :]])
        found = Calibration(fit=(fit[0], fit[1], fit[2]))
        told.append(found.confidence(row.confidence, row.agreement.volume_mm3))
    return float(stats.spearmanr(told, [row.agreement.f1 for row in known]).statistic)


def about_calibration(facts: dict[str, Any]) -> list[str]:
    """Lines of the card: floor, intervals by range with their coverage, confidence."""
    lines = []
    for name, known in facts.get("calibration", {}).items():
        stated, start = facts["volume_interval_ranges"][name], 0.0
        floor = facts.get("volume_floor", {}).get(name)
        least = "" if floor is None else (
            f"a volume below {floor / 1000:.1f} ml is not distinguishable from none: as "
            "much is found beyond the reference in people with few. "
        )  # fmt: skip
        lines.append(
            f"- **{name}, by load**: {least}Confidence is the Dice expected from load and "
            f"posteriors; its rank correlation with the true Dice is "
            f"{known['confidence_rank_correlation']:.2f} ({known['samples']} samples, each "
            "omitted from the fit once). 90 % intervals, and the share of omitted samples that "
            "they contain:"
        )
        held = {end: (n, share) for end, n, share in known["coverage"]}
        for end, low, high in stated["ranges"]:
            text = f"{start / 1000:g} ml and more" if end is None else (
                f"{start / 1000:g} to {end / 1000:g} ml")  # fmt: skip
            n, share = held.get(end, (0, float("nan")))
            lines.append(f"    - {text}: factors {low:.2f} to {high:.2f}; {share:.2f} of {n}")
            start = end or start
    return lines


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path)
    parser.add_argument("evaluation", type=Path)
    parser.add_argument("task")
    parser.add_argument("crossval", type=Path, nargs="?")
    parser.add_argument("--regions", type=Path)
    parser.add_argument("--calibrate", type=Path, nargs="+", default=[])
    parser.add_argument("--ranges", type=float, nargs="+", default=[1500.0, 5000.0, 15000.0])
    parser.add_argument("--none-below", type=float, default=300.0)
    parser.add_argument("--if-none", type=float)
    return parser.parse_args()


def main() -> None:
    args = arguments()
    source, evaluation, task = args.source, args.evaluation, args.task
    if str(evaluation) == "-":
        without_reference(source, task)
        return
    if (evaluation / "bundle.json").is_file():
        go_on(source, evaluation, task)
        return
    summary = judged(json.loads((evaluation / "summary.json").read_text()))
    source_of_intervals = intervals(args.crossval) if args.crossval else summary
    of_regions = json.loads(args.regions.read_text())["volume_interval"] if args.regions else {}
    rows = [row for path in args.calibrate for row in read_rows(path)]
    by_load = calibrated(rows, args.ranges, args.none_below, args.if_none) if rows else {}
    target = MODELS / task
    if target.exists():
        shutil.rmtree(target)
    shutil.copytree(source, target)
    tree = json.loads((target / "bundle.json").read_text())
    tree["facts"] |= {
        "training_data": DATA[task],
        "licence": LICENCE[task],
        "cite": CITE[task],
        "dice_held_out": {"mean": round(summary["f1_mean"], 4)}
        | {row["name"]: round(row["f1_mean"], 4) for row in summary["structures"]},
        "protocol": protocol(summary, tree["facts"]),
        "volume_interval": {**source_of_intervals["volume_interval"], **of_regions},
        "volume_interval_samples": source_of_intervals["samples"],
    } | by_load
    (target / "bundle.json").write_text(json.dumps(tree, indent=2, ensure_ascii=False) + "\n")
    bundle = ModelBundle.open(target)
    (target / "card.md").write_text(card(task, bundle.facts, summary, bundle), encoding="utf-8")
    print(f"{target}: mean Dice {summary['f1_mean']:.4f} on {summary['samples']} samples")
    print("\n".join(about_calibration(tree["facts"])))


if __name__ == "__main__":
    main()

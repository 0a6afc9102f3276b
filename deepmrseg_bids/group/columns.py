"""The tables of the group level: their columns, and what each of them means.

A column is described as in a BIDS sidecar: ``Description``, and ``Units`` where it has some.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

__all__ = [
    "ABSENT",
    "AGREEMENT",
    "ASYMMETRY",
    "BACKGROUND",
    "CHANGE",
    "FLOOR",
    "LESION_AGREEMENT",
    "LESION_PLACES",
    "LESION_SUMMARY",
    "NORMS",
    "QC",
    "RATED",
    "RATINGS",
    "RATINGS_AGREEMENT",
    "RETEST",
    "STRUCTURES",
    "SUMMARY",
    "Columns",
]

Columns: TypeAlias = Mapping[str, Mapping[str, str]]


def _of(text: str, units: str = "") -> dict[str, str]:
    return {"Description": text, **({"Units": units} if units else {})}


_WHO = {
    "participant_id": _of("Participant, with sub-"),
    "session_id": _of("Session, with ses-; n/a if the data set has no sessions"),
}
_WHAT = {
    "index": _of("Label value of the structure in the label map"),
    "name": _of("Name of the structure"),
}
_DEVIATION = {
    "deviation": _of(
        "Robust z: deviation of the value from the median of all sessions, in "
        "robust standard deviations (1.4826 times the median absolute "
        "deviation); cube roots of volumes are used; n/a with fewer than 10 sessions"
    ),
    "outlier": _of("yes if the absolute robust z is above 3.5; n/a with fewer than 10 sessions"),
}

MISSING = "missing_reason"
ABSENT: Columns = {MISSING: _of("Reason why the session has no volumes of this task")}
"""The last column of ``group_seg-<task>_morph.tsv``, where sessions have no volumes."""

RATED: Columns = {
    "rating": _of(
        "Rating of the result (--ratings): pass, doubtful or fail; of several raters the most "
        "severe one; n/a if it is not rated"
    ),
    "excluded": _of("yes if the rating is fail: the result is excluded from statistics"),
}
"""More columns of tables with one row per session, where ratings were given."""

RATINGS: Columns = {
    **_WHO,
    "task": _of("Task"),
    "rating": RATED["rating"],
    "comment": _of("Comments of the raters"),
}
"""``group_ratings.tsv``: one row per session and task with volumes."""

NORMS: Columns = {
    "name": _WHAT["name"],
    "sex": _of("f or m; n/a for both"),
    "age": _of("Age", "years"),
}
"""``group_norms.tsv``: one row per structure, sex and age; a column for each centile follows."""

RATINGS_AGREEMENT: Columns = {
    "task": _of("Task"),
    "rater_1": _of("First rater"),
    "rater_2": _of("Second rater"),
    "n": _of("Number of results that both have rated"),
    "agreement_percent": _of("Results with the same rating", "percent"),
    "kappa": _of("Cohen's kappa; n/a if both gave one rating to all results"),
    "kappa_low": _of("Lower bound of the 95 % interval of kappa"),
    "kappa_high": _of("Upper bound of the 95 % interval of kappa"),
    "kappa_weighted": _of("Cohen's kappa with linear weights for pass, doubtful, fail"),
}
"""``group_ratings_agreement.tsv``: one row per task and pair of raters."""

STRUCTURES: Columns = {
    **_WHO,
    **_WHAT,
    "volume_mm3": _of("Volume of the structure", "mm^3"),
    "volume_low_mm3": _of("Lower bound of the 90 % interval of the volume", "mm^3"),
    "volume_high_mm3": _of("Upper bound of the 90 % interval of the volume", "mm^3"),
    "confidence": _of("Confidence: Dice predicted from the posteriors of the network, 0 to 1"),
    "volume_icv_percent": _of(
        "Volume adjusted for head size by proportion: percentage of the intracranial volume; n/a "
        "where there is no skull",
        "percent",
    ),
    "volume_brain_percent": _of(
        "Volume adjusted for brain size by proportion: percentage of the volume of the brain mask",
        "percent",
    ),
    "volume_residual_mm3": _of(
        "Volume adjusted for head size by the residual method: volume expected "
        "in a head of mean size, from a linear fit of the volume of this "
        "structure over the size of the head that ResidualHeadSize names",
        "mm^3",
    ),
    **_DEVIATION,
}
"""``group_seg-<task>_structures.tsv``: one row a session and structure."""

FLOOR: Columns = {
    "volume_floor_mm3": _of(
        "Floor of the model: smaller volumes are not distinguishable from none", "mm^3"
    ),
    "below_floor": _of("yes if the volume is below the floor of the model, otherwise no"),
}
"""Further columns of it, where a model states a floor."""

BACKGROUND: Columns = {
    "volume_expected_mm3": _of(
        "Volume expected for age, sex and head size, from a robust regression over the sessions "
        "of this study; ExpectedVolume lists the terms of each structure",
        "mm^3",
    ),
    "z_adjusted": _of(
        "Volume minus expected volume, in robust standard deviations of that difference in this "
        "study (1.4826 times the median absolute deviation)"
    ),
    "volume_harmonised_mm3": _of(
        "Volume harmonised over sites with ComBat (--harmonise); effects of age, sex and brain "
        "size are kept",
        "mm^3",
    ),
    "norm_centile": _of(
        "Centile of the volume in the reference of --norms, for age and sex; volumes outside the "
        "outermost centiles have the outermost one"
    ),
}
"""More columns of ``group_seg-<task>_structures.tsv``, those of them that are known."""

_LESIONS = {
    "lesion": "all lesions (26-connected components) on the grid of the FLAIR",
    "periventricular": "the lesions next to a lateral ventricle",
    "juxtacortical": "the lesions next to the cortex",
    "deep": "the other lesions of the cerebral white matter",
    "infratentorial": "the lesions in the brain stem or the cerebellum",
    "unknown": "the lesions whose location could not be determined",
}
LESION_PLACES: Columns = {
    **_WHO,
    **{
        column: of
        for name, text in _LESIONS.items()
        for column, of in (
            (f"{name}_count", _of(f"Number of {text}")),
            (f"{name}_volume_mm3", _of(f"Volume of {text}", "mm^3")),
        )
    },
}
"""``group_seg-<task>_lesions.tsv``: one row a session."""

ASYMMETRY: Columns = {
    **_WHO,
    "name": _of("Name of the pair: name of its structures without the side"),
    "left_mm3": _of("Volume of the left structure", "mm^3"),
    "right_mm3": _of("Volume of the right structure", "mm^3"),
    "asymmetry_percent": _of(
        "Left minus right, in percent of the mean of both: positive if left is larger", "percent"
    ),
    **_DEVIATION,
}
"""``group_seg-<task>_asymmetry.tsv``: one row a session and pair of structures."""

CHANGE: Columns = {
    "participant_id": _of("Participant, with sub-"),
    **_WHAT,
    "n": _of("Number of sessions that have a time and this volume"),
    "first_session": _of("Earliest of these sessions; n/a if two have the earliest time"),
    "last_session": _of("Latest of these sessions; n/a if two have the latest time"),
    "years": _of("Time from the first to the last session", "year"),
    "time_from": _of("Source of the times: scans.tsv, sessions.tsv or age"),
    "first_volume_mm3": _of("Volume in the first session", "mm^3"),
    "last_volume_mm3": _of("Volume in the last session", "mm^3"),
    "change_mm3_per_year": _of(
        "Slope of the least-squares line through the sessions; n/a for less than 30 days",
        "mm^3/year",
    ),
    "change_percent_per_year": _of(
        "Slope relative to the mean volume of the sessions", "percent/year"
    ),
    "change_percent": _of("Change from the first to the last session, of the first", "percent"),
    "change_low_percent": _of(
        "Lower bound of the 90 % interval of change_percent, from the intervals of both volumes: "
        "errors are assumed to be independent, so the interval is conservative",
        "percent",
    ),
    "change_high_percent": _of("Upper bound of the 90 % interval of change_percent", "percent"),
}
"""``group_seg-<task>_change.tsv``: one row a participant with several sessions and structure."""

RETEST: Columns = {
    **_WHAT,
    "n": _of("Number of participants with two or more sessions"),
    "ccc": _of("Concordance of the volumes of the first two sessions"),
    "ccc_low": _of("Lower bound of the 95 % interval of ccc"),
    "ccc_high": _of("Upper bound of the 95 % interval of ccc"),
    "icc": _of(
        "ICC(2,1), absolute agreement, of the first two sessions; n/a for fewer than 3 participants"
    ),
    "bias_mm3": _of(
        "Mean of second minus first volume, in participants whose sessions have a known order",
        "mm^3",
    ),
    "limit_low_mm3": _of("Lower limit of agreement (Bland-Altman, 95 %) of the bias", "mm^3"),
    "limit_high_mm3": _of("Upper limit of agreement (Bland-Altman, 95 %) of the bias", "mm^3"),
    "cv_percent": _of(
        "Within-subject coefficient of variation over all sessions (root mean square)", "percent"
    ),
    "years_median": _of("Median time between the first two sessions, if known", "year"),
    "n_ordered": _of(
        "Number of these participants of whom it is known, by dates or numbers in the session "
        "labels, which of the two sessions is the first, even if another session has no known "
        "place; bias_mm3 is about them"
    ),
}
"""``group_seg-<task>_retest.tsv``: one row a structure."""

_STATUS = _of(
    "done if its volumes are in the group tables; skipped or failed as in logs/sessions.tsv; "
    "missing if it was done but its table of volumes is missing or damaged; n/a if it was not "
    "requested"
)
QC: Columns = {
    **_WHO,
    "brain_status": _STATUS,
    "deepbrain_status": _STATUS,
    "hippocampus_status": _STATUS,
    "wholebrain_status": _STATUS,
    "wml_status": _STATUS,
    "reasons": _of(
        "Reasons for failed, skipped or missing tasks: task: reason, separated by '; '; for "
        "results of an earlier run, why the last run did not repeat them"
    ),
    "confidence_mean": _of("Mean confidence over the structures of all tasks"),
    "confidence_worst": _of("Lowest confidence of a structure"),
    "confidence_worst_structure": _of("Structure with the lowest confidence"),
    "severity": _of("Severity of the most severe finding: error, warning, info or none"),
    "findings": _of("severity:code of each finding, most severe first, separated by commas"),
    "outlier": _of("yes if a volume, an asymmetry or all volumes jointly are outliers"),
    "outlier_score": _of(
        "Largest absolute robust z; use it for sorting; n/a with fewer than 10 sessions"
    ),
    "joint_deviation": _of(
        "Robust z of the volumes of all tasks jointly, in robust standard "
        "deviations above the median session; n/a with fewer than 10 sessions"
    ),
    "outlier_reasons": _of("Reasons for the outlier, the most extreme first, separated by '; '"),
    "verdict": _of(
        "problem: a task failed, a finding has the severity error, or a result is rated fail; "
        "check: a finding has the severity warning, the session is an outlier, or all of its tasks "
        "were skipped; ok otherwise"
    ),
    "verdict_reason": _of("The reasons for the verdict, in a sentence"),
}
"""``group_qc.tsv``: one row a session."""

AGREEMENT: Columns = {
    "sample_id": _of("Name of the image without suffix"),
    **_WHAT,
    "f1": _of("F1, the Dice coefficient"),
    "f2": _of("F2, which weights recall higher than precision"),
    "bacc": _of("Balanced accuracy over the image of the reference"),
    "hd95_mm": _of("HD95: 95th percentile of the symmetric surface distances", "mm"),
    "volume_mm3": _of("Volume, on the grid of the comparison", "mm^3"),
    "reference_volume_mm3": _of("Volume in the reference", "mm^3"),
    **_WHO,
    "reference": _of("Name of the reference"),
    "asd_mm": _of("Average symmetric surface distance", "mm"),
    "volume_difference_mm3": _of("Absolute difference of the two volumes", "mm^3"),
    "presence": _of(
        "Presence of the structure: both, missed (only in the reference), false "
        "(not in the reference), absent (in neither)"
    ),
    "grid": _of("same, or resampled: the label map was resampled to the grid of the reference"),
    "reference_file": _of("Label map of the reference, relative to the reference folder"),
}
"""``group_seg-<task>_agreement.tsv``: one row a session, reference and structure."""

LESION_AGREEMENT: Columns = {
    "lesions": _of("Number of lesions (26-connected components)"),
    "reference_lesions": _of("Number of lesions in the reference"),
    "lesion_recall": _of("Proportion of reference lesions that were detected"),
    "lesion_precision": _of("Proportion of predicted lesions that are in the reference"),
    "lesion_f1": _of("Harmonic mean of recall and precision"),
}
"""More columns of the agreement of ``wml``."""

SUMMARY: Columns = {
    **_WHAT,
    "n": _of("Number of sessions in the means of F1 and F2"),
    "f1_mean": _of("Mean F1 (Dice)"),
    "f1_sd": _of("Standard deviation of F1"),
    "f2_mean": _of("Mean F2"),
    "f2_sd": _of("Standard deviation of F2"),
    "bacc_mean": _of("Mean balanced accuracy"),
    "bacc_sd": _of("Standard deviation of balanced accuracy"),
    "ccc": _of("Concordance correlation coefficient of the volumes"),
    "reference": _of("Name of the reference"),
    "n_volumes": _of("Number of sessions in the comparison of volumes"),
    "ccc_low": _of("Lower bound of the 95 % interval of ccc"),
    "ccc_high": _of("Upper bound of the 95 % interval of ccc"),
    "icc": _of("ICC(2,1), absolute agreement, of the volumes; n/a for fewer than 3 sessions"),
    "bias_mm3": _of("Mean of volume minus reference volume", "mm^3"),
    "limit_low_mm3": _of("Lower limit of agreement (Bland-Altman, 95 %)", "mm^3"),
    "limit_high_mm3": _of("Upper limit of agreement (Bland-Altman, 95 %)", "mm^3"),
    "hd95_mm_mean": _of("Mean of hd95_mm", "mm"),
    "hd95_mm_sd": _of("Standard deviation of hd95_mm", "mm"),
    "asd_mm_mean": _of("Mean of asd_mm", "mm"),
    "asd_mm_sd": _of("Standard deviation of asd_mm", "mm"),
    "volume_difference_mm3_mean": _of("Mean of volume_difference_mm3", "mm^3"),
    "volume_difference_mm3_sd": _of("Standard deviation of volume_difference_mm3", "mm^3"),
}
"""``group_seg-<task>_agreement_summary.tsv``: one row a reference and structure."""

LESION_SUMMARY: Columns = {
    f"{score}_{kind}": _of(f"{text} of {score}")
    for score in ("lesion_recall", "lesion_precision", "lesion_f1")
    for kind, text in (("mean", "Mean"), ("sd", "Standard deviation"))
}
"""More columns of the summary of ``wml``."""

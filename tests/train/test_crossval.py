"""Cross-validation: honest folds, equal terms, and nothing done twice."""

from __future__ import annotations

import csv
import dataclasses
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from deepmrseg_bids.cli import deepmrseg as command
from deepmrseg_bids.errors import TrainingError
from deepmrseg_bids.inference.bundle import ModelBundle
from deepmrseg_bids.metrics.overlap import StructureAgreement
from deepmrseg_bids.train import crossval as module
from deepmrseg_bids.train.comparison import Judged, calibration, compare, summaries
from deepmrseg_bids.train.config import TrainConfig, load_config
from deepmrseg_bids.train.crossval import CrossValidation, crossval
from deepmrseg_bids.train.evaluation import Evaluated
from deepmrseg_bids.train.samples import load_samples
from deepmrseg_bids.train.training_run import TrainingRun
from tests.support import ball
from tests.train.conftest import TOML

Toy = Callable[..., TrainConfig]


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream, delimiter="\t"))


@pytest.fixture(scope="module")
def families(tmp_path_factory) -> Path:
    """Four people, the first and the last scanned twice."""
    folder = tmp_path_factory.mktemp("families")
    lines = ["sample_id\tparticipant_id\tT1w\tdseg"]
    for scan, person in enumerate(("a", "a", "b", "c", "d", "d")):
        for kind, data in zip(("t1", "dseg"), ball(scan), strict=True):
            nib.save(nib.Nifti1Image(data, np.eye(4)), folder / f"{kind}-{scan}.nii.gz")
        lines.append(f"s{scan}\t{person}\tt1-{scan}.nii.gz\tdseg-{scan}.nii.gz")
    (folder / "samples.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder / "samples.tsv"


@dataclass(frozen=True)
class Whole:
    """A cross-validation of two folds that nobody disturbs, and what was trained for it."""

    config: TrainConfig
    out: Path
    judged: Sequence[Judged]
    trained: Sequence[tuple[TrainConfig, set[str]]]


@pytest.fixture(scope="module")
def whole(families: Path, tmp_path_factory) -> Whole:
    folder = tmp_path_factory.mktemp("whole")
    (folder / "settings.toml").write_text(TOML, encoding="utf-8")
    config = load_config(folder / "settings.toml", steps=6, checkpoint_every=2)
    with pytest.MonkeyPatch.context() as patch:
        calls = watch_training(patch)
        protocol = CrossValidation(config, folder / "cv", folds=2)
        judged = crossval(load_samples(families), protocol)
    return Whole(config, folder / "cv", judged, calls)


def watch_training(patch: pytest.MonkeyPatch) -> list[tuple[TrainConfig, set[str]]]:
    """What is trained from now on, with which settings and people, in order."""
    calls: list[tuple[TrainConfig, set[str]]] = []
    real = module.train

    def spy(run: TrainingRun) -> Path:
        calls.append((run.config, {sample.participant_id for sample in run.samples}))
        return real(run)

    patch.setattr(module, "train", spy)
    return calls


@pytest.fixture
def trained(monkeypatch) -> list[tuple[TrainConfig, set[str]]]:
    return watch_training(monkeypatch)


@pytest.fixture
def interrupted(monkeypatch) -> None:
    """What is written down before the first network is trained stays."""

    def train(run: TrainingRun) -> Path:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "train", train)


def test_one_command_gives_the_tables_the_tests_and_the_pictures_of_the_paper(
    families, settings_file, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(command, "prepare_process", lambda: None)
    monkeypatch.setattr(command, "set_up_logging", lambda _: None)
    settings = settings_file(("steps = 40", "steps = 25"))
    out = tmp_path / "cv"
    asked = ["crossval", str(families), "--config", str(settings), "-o", str(out),
               "--folds", "2", "--device", "cpu", "--omp-nthreads", "1"]  # fmt: skip
    assert command.main(asked) == 0
    rows = read(out / "per_sample.tsv")
    assert list(rows[0])[:9] == ["sample_id", "index", "name", "f1", "f2", "bacc", "hd95_mm",
                                 "volume_mm3", "reference_volume_mm3"]  # fmt: skip
    assert sorted((r["network"], r["sample_id"]) for r in rows) == sorted(
        (network, f"s{scan}") for network in ("deepmrseg", "unet") for scan in range(6)
    )
    summary = read(out / "summary.tsv")
    assert list(summary[0])[:10] == ["index", "name", "n", "f1_mean", "f1_sd", "f2_mean",
                                     "f2_sd", "bacc_mean", "bacc_sd", "ccc"]  # fmt: skip
    assert [(r["network"], r["name"], r["n"]) for r in summary] == [
        ("deepmrseg", "Ball", "6"),
        ("unet", "Ball", "6"),
    ]
    for entry in summary:
        mine = [float(r["f1"]) for r in rows if r["network"] == entry["network"]]
        assert float(entry["f1_mean"]) == pytest.approx(np.mean(mine), rel=1e-4)
        assert float(entry["f1_sd"]) == pytest.approx(np.std(mine, ddof=1), rel=1e-3, abs=1e-5)
    assert {r["measure"] for r in read(out / "comparison.tsv")} == {
        "f1", "f2", "bacc", "volume_error_mm3",
    }  # fmt: skip
    tree = json.loads((out / "summary.json").read_text(), parse_constant=pytest.fail)
    assert (tree["folds"], tree["repeats"], tree["samples"]) == (2, 1, 6)
    text = capsys.readouterr().out
    assert "| Ball | 6 | " in text
    assert "Wilcoxon" in text
    for picture in ("boxplot_f1", "boxplot_f2", "boxplot_bacc", "volumes", "cases_deepmrseg",
                    "cases_unet"):  # fmt: skip
        assert (out / f"figures/{picture}.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(p.name for p in out.glob("repeat-0/fold-*/unet/labels/*")) == [
        f"s{scan}.nii.gz" for scan in range(6)
    ]


def test_no_person_teaches_the_network_that_judges_them(families, toy: Toy, tmp_path, trained):
    samples = load_samples(families)
    protocol = CrossValidation(toy(steps=1), tmp_path / "cv", folds=3, repeats=2)
    judged = crossval(samples, protocol)
    assert judged is not None
    person = {sample.sample_id: sample.participant_id for sample in samples}
    runs = dict.fromkeys((one.repeat, one.fold, one.network) for one in judged)
    assert len(trained) == len(runs) == 3 * 2 * 2
    for (repeat, fold, network), (config, taught) in zip(runs, trained, strict=True):
        seen = {person[one.row.sample_id] for one in judged
                if (one.repeat, one.fold, one.network) == (repeat, fold, network)}  # fmt: skip
        assert not seen & taught
        assert seen | taught == {"a", "b", "c", "d"}
        assert config.loop.folds == 0  # and nobody was validated on
    for repeat in range(2):
        once = [one.row.sample_id for one in judged
                if one.repeat == repeat and one.network == "unet"]  # fmt: skip
        assert sorted(once) == sorted(person)


def test_repeats_deal_people_anew(balls, toy: Toy, tmp_path, interrupted):
    protocol = CrossValidation(toy(steps=1), tmp_path / "cv", folds=2, repeats=3)
    with pytest.raises(KeyboardInterrupt):
        crossval(load_samples(balls(12)), protocol)
    rows = read(tmp_path / "cv/folds.tsv")
    splits = {
        repeat: frozenset(
            frozenset(r["sample_id"] for r in rows if r["repeat"] == repeat and r["fold"] == fold)
            for fold in "01"
        )
        for repeat in "012"
    }
    assert len(set(splits.values())) == 3


def test_both_networks_get_the_same_settings_but_for_their_kind(whole: Whole):
    (first, taught), (second, also_taught) = whole.trained[:2]
    assert (first.network.kind, second.network.kind) == ("deepmrseg", "unet")
    assert taught == also_taught
    assert first.loop == second.loop
    assert first.augment == second.augment
    bundles = [ModelBundle.open(whole.out / f"repeat-0/fold-0/{kind}/bundle")
               for kind in ("deepmrseg", "unet")]  # fmt: skip
    assert bundles[0].network.width == bundles[1].network.width
    assert bundles[0].preparation == bundles[1].preparation


def test_a_killed_cross_validation_goes_on_and_ends_as_if_nothing_had_happened(
    families, whole: Whole, tmp_path, monkeypatch
):
    samples, config = load_samples(families), whole.config
    real, calls = module.train, []

    def dies(run: TrainingRun) -> Path:
        calls.append(run.out.relative_to(tmp_path / "killed").as_posix())
        if len(calls) == 2:
            real(dataclasses.replace(run, stop_at=3))
            raise KeyboardInterrupt
        return real(run)

    monkeypatch.setattr(module, "train", dies)
    protocol = CrossValidation(config, tmp_path / "killed", folds=2)
    with pytest.raises(KeyboardInterrupt):
        crossval(samples, protocol)
    assert not (tmp_path / "killed/summary.tsv").exists()
    again = crossval(samples, protocol)
    assert again == whole.judged
    assert calls == ["repeat-0/fold-0/deepmrseg", "repeat-0/fold-0/unet",
                     "repeat-0/fold-0/unet", "repeat-0/fold-1/deepmrseg",
                     "repeat-0/fold-1/unet"]  # fmt: skip
    crossval(samples, protocol)
    assert len(calls) == 5  # a finished one only writes its tables


def test_one_fold_is_one_job_and_the_last_job_writes_the_tables(
    families, toy: Toy, tmp_path, trained
):
    samples = load_samples(families)
    protocol = CrossValidation(toy(steps=1), tmp_path / "cv", folds=2)
    assert crossval(samples, protocol, fold=1) is None
    assert len(trained) == 2
    assert not (tmp_path / "cv/repeat-0/fold-0").exists()
    assert not (tmp_path / "cv/summary.tsv").exists()
    assert crossval(samples, protocol, fold=0) is not None
    assert len(trained) == 4
    assert (tmp_path / "cv/summary.tsv").exists()


def test_processes_beside_each_other_find_what_one_alone_finds(families, whole: Whole, tmp_path):
    protocol = CrossValidation(whole.config, tmp_path / "two", folds=2)
    spread = crossval(load_samples(families), protocol, processes=2, threads=2)
    assert spread == whole.judged


def test_another_set_of_samples_or_settings_does_not_enter_the_same_folder(
    families, balls, toy: Toy, tmp_path, interrupted
):
    out, samples = tmp_path / "cv", load_samples(families)
    with pytest.raises(KeyboardInterrupt):
        crossval(samples, CrossValidation(toy(steps=1), out, folds=2))
    with pytest.raises(TrainingError, match="other settings"):
        crossval(samples, CrossValidation(toy(steps=2), out, folds=2))
    with pytest.raises(TrainingError, match="other samples or folds"):
        crossval(samples, CrossValidation(toy(steps=1), out, folds=3))
    with pytest.raises(TrainingError, match="other samples or folds"):
        crossval(load_samples(balls(5)), CrossValidation(toy(steps=1), out, folds=2))
    with pytest.raises(KeyboardInterrupt):  # more is welcome
        crossval(samples, CrossValidation(toy(steps=1), out, folds=2, repeats=2))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"folds": 1}, "at least 2 folds"),
        ({"repeats": 0}, "at least 1 repeat"),
        ({"networks": ()}, "networks are"),
        ({"networks": ("resnet",)}, "networks are"),
    ],
)
def test_a_protocol_that_means_nothing_is_refused(toy: Toy, tmp_path, change, message):
    with pytest.raises(TrainingError, match=message):
        CrossValidation(toy(), tmp_path, **change)


def test_a_fold_that_does_not_exist_and_too_few_people_are_errors(families, toy: Toy, tmp_path):
    samples = load_samples(families)
    with pytest.raises(TrainingError, match="--fold is 0 to 1, got 2"):
        crossval(samples, CrossValidation(toy(), tmp_path / "a", folds=2), fold=2)
    with pytest.raises(TrainingError, match="at least 5 participants"):
        crossval(samples, CrossValidation(toy(), tmp_path / "b", folds=5))
    assert not (tmp_path / "b").exists()


def one(network: str, sample: str, f1: float, volume: float, *, repeat: int = 0, index: int = 1):
    agreement = StructureAgreement(index, f1, f1, f1, 1.0, volume, 100.0 + index, "both")
    return Judged(network, repeat, 0, Evaluated(sample, f"S{index}", agreement, None))


def test_a_sample_counts_once_however_often_it_was_judged():
    judged = [
        one("deepmrseg", "x", 0.8, 90, repeat=0), one("deepmrseg", "x", 0.9, 110, repeat=1),
        one("unet", "x", 0.7, 80, repeat=0), one("unet", "x", 0.7, 80, repeat=1),
        one("deepmrseg", "y", 0.6, 101, repeat=0), one("unet", "y", 0.5, 111, repeat=0),
    ]  # fmt: skip
    rows = {row["measure"]: row for row in compare(judged, "deepmrseg", "unet")}
    assert rows["f1"]["n"] == 2
    assert rows["f1"]["difference_mean"] == pytest.approx((0.15 + 0.1) / 2)
    assert rows["f1"]["first_mean"] == pytest.approx((0.85 + 0.6) / 2)
    # |90 - 101| and |110 - 101| against 21: ten fewer; 0 against 10: ten fewer
    assert rows["volume_error_mm3"]["difference_mean"] == pytest.approx(-10.5)
    assert rows["volume_error_mm3"]["rank_biserial"] == -1.0
    found = summaries(judged)["deepmrseg"]
    assert found[0]["n"] == 3


def test_the_concordance_over_repeats_is_the_mean_of_that_of_each():
    def row(sample: str, found: float, reference: float, repeat: int) -> Judged:
        agreement = StructureAgreement(1, 0.5, 0.5, 0.5, 1.0, found, reference, "both")
        return Judged("unet", repeat, 0, Evaluated(sample, "Ball", agreement, None))

    perfect = [row("a", 100, 100, 0), row("b", 200, 200, 0)]
    # Lin: 2 * cov / (var + var + (difference of means)^2), over n: 2 * 2500 / (2500 + 2500 + 1e4)
    shifted = [row("a", 200, 100, 1), row("b", 300, 200, 1)]
    assert summaries(perfect + shifted)["unet"][0]["ccc"] == pytest.approx((1 + 1 / 3) / 2)


def test_p_values_are_corrected_for_the_number_of_structures():
    rng = np.random.default_rng(3)
    judged = []
    for index in (1, 2, 3):
        for sample in range(12):
            better = 0.6 + 0.1 * rng.random() + 0.03 * index
            judged.append(one("deepmrseg", f"s{sample}", better, 100, index=index))
            judged.append(one("unet", f"s{sample}", 0.65 + 0.1 * rng.random(), 100, index=index))
    rows = [row for row in compare(judged, "deepmrseg", "unet") if row["measure"] == "f1"]
    order = sorted(rows, key=lambda row: row["p"])
    expected, worst = [], 0.0
    for place, row in enumerate(order):
        worst = max(worst, min(1.0, row["p"] * (3 - place)))
        expected.append(worst)
    assert [row["p_holm"] for row in order] == pytest.approx(expected)
    assert any(row["p_holm"] > row["p"] for row in rows)


def test_a_structure_that_nobody_has_is_not_tested():
    judged = [one(network, "x", math.nan, 0.0) for network in ("deepmrseg", "unet")]
    rows = compare(judged, "deepmrseg", "unet")
    assert {row["measure"] for row in rows} == {"volume_error_mm3"}


def test_intervals_are_judged_on_folds_that_did_not_make_them():
    def row(sample: int, fold: int, ratio: float, sure: float, f1: float) -> Judged:
        agreement = StructureAgreement(1, f1, f1, f1, 1.0, 100.0, 100.0 * ratio, "both")
        return Judged("unet", 0, fold, Evaluated(f"s{sample}", "Ball", agreement, sure))

    near = [row(k, k % 2, 1 + 0.01 * (k % 5), 0.9 - 0.01 * k, 0.9 - 0.02 * k) for k in range(20)]
    ball, everything = calibration(near, "unet")
    assert (ball["index"], ball["name"], ball["n"]) == (1, "Ball", 20)
    assert ball["coverage"] >= 0.9
    assert ball["rho"] == pytest.approx(1.0)
    assert (everything["index"], everything["name"]) == (0, "all")
    # a fold whose volumes are twice too small lies outside of what the other fold promises
    far = [row(k, k % 2, 2.0 + 0.01 * (k % 5) if k % 2 else 1 + 0.01 * (k % 5), 0.9, 0.8)
           for k in range(20)]  # fmt: skip
    ball, _ = calibration(far, "unet")
    assert ball["coverage"] == 0.0
    assert math.isnan(ball["rho"])  # one confidence for all ranks nothing

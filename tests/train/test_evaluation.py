"""Tables of agreement, and the intervals that calibrate a model's volumes."""

import csv
import json
import math
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from deepmrseg_bids.cli import deepmrseg
from deepmrseg_bids.errors import TrainingError
from deepmrseg_bids.imaging.labels import Label, LabelTable
from deepmrseg_bids.inference.bundle import NewBundle, Preparation
from deepmrseg_bids.metrics.overlap import StructureAgreement
from deepmrseg_bids.train.evaluation import (
    Evaluated,
    interval_coverage,
    read_rows,
    volume_intervals,
    write_rows,
    write_tables,
)
from tests.tiny import level_network, tiny_head

NAN = math.nan


def row(sample, volume, reference, *, index=1, name="Ball", f1=0.5, f2=0.5, bacc=0.7, hd=1.0):
    pair = (volume > 0, reference > 0)
    status = {(True, True): "both", (True, False): "false", (False, True): "missed",
              (False, False): "absent"}[pair]  # fmt: skip
    agreement = StructureAgreement(index, f1, f2, bacc, hd, volume, reference, status)
    return Evaluated(sample, name, agreement, 0.875 if volume else None)


ROWS = [
    row("a", 100.0, 110.0, f1=0.9, f2=0.92, bacc=0.95, hd=1.5),
    row("b", 200.0, 190.0, f1=0.7, f2=0.68, bacc=0.85, hd=2.5),
    row("a", 0.0, 0.0, index=4, name="Cube", f1=NAN, f2=NAN, bacc=NAN, hd=NAN),
    row("b", 0.0, 20.0, index=4, name="Cube", f1=0.0, f2=0.0, bacc=0.5, hd=NAN),
]


def read(path):
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream, delimiter="\t"))


def test_the_samples_have_the_columns_of_the_contract(tmp_path):
    write_tables(ROWS, tmp_path)
    rows = read(tmp_path / "per_sample.tsv")
    contract = ["sample_id", "index", "name", "f1", "f2", "bacc", "hd95_mm", "volume_mm3",
                "reference_volume_mm3"]  # fmt: skip
    assert list(rows[0]) in (contract, [*contract, "confidence"])
    assert list(rows[0].values())[:9] == ["a", "1", "Ball", "0.9", "0.92", "0.95", "1.5", "100",
                                          "110"]  # fmt: skip
    assert list(rows[3].values())[:9] == ["b", "4", "Cube", "0", "0", "0.5", "n/a", "0", "20"]
    assert len(rows) == 4


def test_the_summary_has_the_columns_and_the_numbers_of_the_contract(tmp_path):
    write_tables(ROWS, tmp_path)
    ball, cube = read(tmp_path / "summary.tsv")
    assert list(ball) == ["index", "name", "n", "f1_mean", "f1_sd", "f2_mean", "f2_sd",
                          "bacc_mean", "bacc_sd", "ccc"]  # fmt: skip
    assert (ball["index"], ball["name"], ball["n"]) == ("1", "Ball", "2")
    golden = {
        "f1_mean": 0.8, "f1_sd": 0.2 / math.sqrt(2),
        "f2_mean": 0.8, "f2_sd": 0.24 / math.sqrt(2),
        "bacc_mean": 0.9, "bacc_sd": 0.1 / math.sqrt(2),
        # Lin, with variances over n: 2 * 2000 / (2500 + 1600 + 0)
        "ccc": 4000 / 4100,
    }  # fmt: skip
    assert {key: float(ball[key]) for key in golden} == pytest.approx(golden, rel=1e-5)
    assert (cube["index"], cube["n"], cube["f1_mean"], cube["f1_sd"]) == ("4", "1", "0", "n/a")


def test_the_summary_as_json_is_what_is_returned_and_holds_no_nan(tmp_path):
    summary = write_tables(ROWS, tmp_path / "new" / "folder")
    text = (tmp_path / "new" / "folder" / "summary.json").read_text()
    assert json.loads(text, parse_constant=pytest.fail) == summary
    assert summary["samples"] == 2
    assert summary["f1_mean"] == pytest.approx(0.4)  # of 0.8 and 0
    assert [entry["name"] for entry in summary["structures"]] == ["Ball", "Cube"]
    assert summary["structures"][1]["f1_sd"] is None
    assert summary["volume_interval"] == {}


def test_a_structure_that_nobody_has_has_no_mean(tmp_path):
    absent = row("a", 0.0, 0.0, f1=NAN, f2=NAN, bacc=NAN, hd=NAN)
    summary = write_tables([absent], tmp_path)
    assert summary["f1_mean"] is None
    assert read(tmp_path / "summary.tsv")[0]["f1_mean"] == "n/a"


def three(*ratios, name="Ball"):
    return [row(f"s{k}", 100.0, 100.0 * ratio, name=name) for k, ratio in enumerate(ratios)]


def test_intervals_are_students_t_on_the_logarithm_of_the_ratio():
    """Logarithms -0.1, 0, 0.1: mean 0, sd 0.1, t(0.95; 2) = 2.919986."""
    rows = three(math.exp(-0.1), 1.0, math.exp(0.1))
    reach = 2.919986 * 0.1 * math.sqrt(4 / 3)  # 0.337171
    assert volume_intervals(rows) == {
        "Ball": pytest.approx([math.exp(-reach), math.exp(reach)], abs=1e-4)
    }
    assert volume_intervals(rows)["Ball"] == pytest.approx([0.7138, 1.4010], abs=2e-4)


def test_the_coverage_of_intervals_leaves_each_sample_out_once():
    """The interval of three alike is narrow: it holds the fourth if that is alike, too."""
    alike = three(1.00, 1.01, 0.99, 1.005)
    assert interval_coverage(alike) == 1
    assert interval_coverage([*alike[:3], *three(3.0, name="Other")]) is None
    odd = [*three(1.00, 1.01, 0.99), row("odd", 100.0, 200.0)]
    assert interval_coverage(odd) == 0.75  # with the odd one, the interval of the others is wide
    assert interval_coverage([]) is None


def test_a_model_that_finds_too_little_gets_an_interval_above_its_volumes():
    """Logarithms 0.15, 0.2, 0.25: mean 0.2, sd 0.05."""
    low, high = volume_intervals(three(*(math.exp(x) for x in (0.15, 0.2, 0.25))))["Ball"]
    assert math.log(low * high) / 2 == pytest.approx(0.2, abs=1e-4)
    assert math.log(high / low) / 2 == pytest.approx(0.1685854, abs=1e-4)


def test_another_level_gives_another_interval():
    rows = three(0.9, 1.0, 1.1)
    (low90, high90), (low50, high50) = (
        volume_intervals(rows, level=level)["Ball"] for level in (0.9, 0.5)
    )
    assert low90 < low50 < 1 < high50 < high90


def test_equal_ratios_leave_no_width():
    assert volume_intervals(three(1.1, 1.1, 1.1)) == {"Ball": [1.1, 1.1]}


def test_structures_with_fewer_than_three_samples_are_left_out():
    rows = [*three(0.9, 1.1), *three(0.9, 1.0, 1.1, name="Cube")]
    assert list(volume_intervals(rows)) == ["Cube"]


def test_samples_without_both_volumes_do_not_count():
    rows = [*three(0.9, 1.1), row("m", 0.0, 50.0), row("f", 50.0, 0.0)]
    assert volume_intervals(rows) == {}


def test_an_interval_never_reaches_beyond_a_factor_of_three():
    assert volume_intervals(three(0.1, 1.0, 10.0)) == {"Ball": [0.3333, 3.0]}


@pytest.mark.parametrize("ratio", [5.0, 0.2])
def test_the_low_end_is_never_above_the_high_end(ratio):
    low, high = volume_intervals(three(ratio, ratio, ratio))["Ball"]
    assert low <= high


def test_what_was_written_is_read_again(tmp_path):
    write_rows(ROWS, tmp_path / "rows.tsv")
    again = read_rows(tmp_path / "rows.tsv")
    write_rows(again, tmp_path / "again.tsv")
    assert (tmp_path / "again.tsv").read_bytes() == (tmp_path / "rows.tsv").read_bytes()
    assert [row.agreement.status for row in again] == ["both", "both", "absent", "missed"]
    assert [row.confidence for row in again] == [0.875, 0.875, None, None]


@pytest.mark.parametrize("text", ["", "a\tb\n1\t2\n", "sample_id\tindex\tname\nx\tone\tBall\n"])
def test_a_table_of_something_else_is_not_read(tmp_path, text):
    path = tmp_path / "rows.tsv"
    path.write_text(text)
    if not text:
        assert read_rows(path) == []
        return
    with pytest.raises(TrainingError, match="not a table of samples"):
        read_rows(path)


# -- the command, for tasks of one's own -------------------------------------------------------


def own_bundle(folder: Path, *labels: Label) -> Path:
    """A model without the settings of a training, as somebody may have made it elsewhere."""
    network = level_network()
    NewBundle(
        task="mine",
        network=network.config,
        preparation=Preparation(spacing=4.0, intensity="head"),
        labels=LabelTable(labels),
        state=network.state_dict(),
        version="1",
        settings="",
        card="",
        facts={},
    ).write(folder)
    return folder


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A head with the labels 1 and 2."""
    folder = tmp_path_factory.mktemp("own")
    head = tiny_head(1)
    nib.save(head, folder / "t1w.nii.gz")
    labels = np.zeros(head.shape, np.uint8)
    labels[10:30, 10:40, 10:30] = 1
    labels[18:24, 18:30, 16:22] = 2
    nib.save(nib.Nifti1Image(labels, head.affine), folder / "dseg.nii.gz")
    (folder / "s.tsv").write_text("sample_id\tT1w\tdseg\na\tt1w.nii.gz\tdseg.nii.gz\n")
    return folder


@pytest.mark.parametrize("words", [["--model", "{0}"], ["--task", "mine", "--model", "mine={0}"]])
def test_a_model_of_a_task_of_ones_own_is_evaluated(sample, words, tmp_path, capsys):
    bundle = own_bundle(tmp_path / "bundle", Label(1, "Head"), Label(2, "Core"))
    command = ["evaluate", str(sample / "s.tsv"), "-o", str(tmp_path / "out")]
    assert deepmrseg.main([*command, *(word.format(bundle) for word in words)]) == 0
    rows = read(tmp_path / "out" / "per_sample.tsv")
    assert [(entry["index"], entry["name"]) for entry in rows] == [("1", "Head"), ("2", "Core")]
    assert min(float(entry["f1"]) for entry in rows) > 0.5
    assert "Core" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("labels", "words", "told"),
    [
        ((7, 8), ["--model", "{0}"], "none of its labels is one of the model (7, 8)"),
        ((1, 2), ["--task", "mine"], "unknown task 'mine'; known are brain"),
    ],
)
def test_what_cannot_be_evaluated_ends_in_one_line(sample, labels, words, told, tmp_path, capsys):
    bundle = own_bundle(tmp_path / "bundle", *(Label(index, f"L{index}") for index in labels))
    command = ["evaluate", str(sample / "s.tsv"), "-o", str(tmp_path / "out")]
    assert deepmrseg.main([*command, *(word.format(bundle) for word in words)]) == 2
    (line,) = [text for text in capsys.readouterr().err.splitlines() if "INFO" not in text]
    assert line.startswith("error: ") and told in line

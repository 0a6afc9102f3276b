"""What a cross-validation shows: the paper's table, and the numbers that belong in it."""

import math

import pytest

from deepmrseg_bids.metrics.overlap import StructureAgreement
from deepmrseg_bids.reports.crossval import markdown_table
from deepmrseg_bids.train.comparison import Judged
from deepmrseg_bids.train.evaluation import Evaluated


def judged(network, sample, name, f1, found, reference):
    index = {"Ball": 1, "Cube": 2}[name]
    agreement = StructureAgreement(index, f1, f1 - 0.01, 0.9, 1.0, found, reference, "both")
    return Judged(network, 0, 0, Evaluated(sample, name, agreement, None))


def everything(networks):
    scores = {"deepmrseg": (0.9, 0.8), "unet": (0.85, 0.7)}
    return [
        judged(network, sample, name, score, volume, 100.0 * place)
        for network in networks
        for place, (sample, score) in enumerate(
            zip(("a", "b"), scores[network], strict=True), start=1
        )
        for name, volume in (("Ball", 100.0 * place), ("Cube", 100.0 * place + 50))
    ]


def cells(line):
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_the_table_has_a_row_a_structure_and_the_networks_side_by_side():
    lines = markdown_table(everything(["deepmrseg", "unet"])).splitlines()
    assert cells(lines[0]) == [
        "structure", "n", "F1 DeepMRSeg", "F1 UNet", "F2 DeepMRSeg", "F2 UNet",
        "BACC DeepMRSeg", "BACC UNet", "CCC DeepMRSeg", "CCC UNet",
    ]  # fmt: skip
    ball, cube, mean = (cells(line) for line in lines[2:5])
    assert ball[:4] == ["Ball", "2", "0.850 (0.071)", "0.775 (0.106)"]
    assert ball[8:] == ["1.000", "1.000"]
    # Lin, over n: 2 * 2500 / (2500 + 2500 + 50^2)
    assert cube[8:] == ["0.667", "0.667"]
    assert mean[0] == "mean"
    assert mean[2:4] == ["0.850", "0.775"]
    assert mean[8] == "0.833"


def test_two_networks_are_tested_against_each_other_below_the_table():
    text = markdown_table(everything(["deepmrseg", "unet"]))
    assert "DeepMRSeg compared with UNet" in text
    row = next(line for line in text.splitlines() if line.startswith("| Ball | f1 |"))
    assert cells(row)[2:4] == ["2", "+0.075"]


def test_one_network_alone_is_tested_against_nothing():
    text = markdown_table(everything(["unet"]))
    assert "compared with" not in text
    assert "DeepMRSeg" not in text


def test_a_score_that_nobody_has_is_not_a_number_in_the_table():
    rows = [judged("unet", "a", "Ball", math.nan, 0.0, 0.0),
            judged("unet", "b", "Ball", math.nan, 0.0, 0.0)]  # fmt: skip
    absent = [
        Judged(r.network, 0, 0, Evaluated(r.row.sample_id, "Ball", StructureAgreement(
            1, math.nan, math.nan, math.nan, math.nan, 0.0, 0.0, "absent"), None))
        for r in rows
    ]  # fmt: skip
    line = markdown_table(absent).splitlines()[2]
    assert cells(line)[2:5] == ["n/a (n/a)"] * 3


@pytest.mark.parametrize("networks", [["deepmrseg"], ["deepmrseg", "unet"]])
def test_the_table_is_markdown_with_rows_of_one_length(networks):
    lines = [line for line in markdown_table(everything(networks)).splitlines() if line]
    first = [len(cells(line)) for line in lines[:5]]
    assert len(set(first)) == 1

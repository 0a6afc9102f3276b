"""The methods text: the structures, data and terms of the bundles that ran, whatever their name."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from deepmrseg_bids.imaging.labels import Label, LabelTable
from deepmrseg_bids.inference.bundle import ModelBundle, Preparation
from deepmrseg_bids.network import NetworkConfig
from deepmrseg_bids.tasks.methods import methods_facts, structures_in_words
from deepmrseg_bids.tasks.registry import find_task

FACTS = {"training_data": "thirty heads", "licence": "CC BY 4.0", "cite": "Somebody 2020"}


def bundle(name: str, *structures: str, **facts: str) -> ModelBundle:
    return ModelBundle(
        task=name,
        network=NetworkConfig("deepmrseg", 3, 1, 2, width=4, depth=1),
        preparation=Preparation(1.0, "crop"),
        labels=table(*structures),
        version="1",
        sha256="ab",
        path=Path("/models") / name,
        facts=dict(facts),
    )


def table(*names: str) -> LabelTable:
    return LabelTable(tuple(Label(number, name) for number, name in enumerate(names, start=1)))


def test_the_structures_are_those_of_the_bundle_that_ran() -> None:
    """A bundle of one's own for deepbrain is not described as the shipped one."""
    models = {name: bundle(name, "Inside") for name in ("brain", "icv", "outline")}
    models["deepbrain"] = bundle("deepbrain", "Left-Nut")
    text = methods_facts(find_task("deepbrain"), models)["Text"]
    assert "left nut" in text and find_task("deepbrain").methods in text
    assert "thalamus" not in text and "accumbens" not in text.lower()


def test_a_task_with_a_table_of_its_own_names_what_it_writes() -> None:
    models = {
        name: bundle(name, "Inside")
        for name in ("brain", "icv", "outline", "deepbrain", "hippocampus")
    }
    text = methods_facts(find_task("hippocampus"), models)["Text"]
    assert "hippocampus anterior" in text and "inside" not in text.lower().split()


@pytest.mark.parametrize(
    ("network", "words"),
    [
        (NetworkConfig("deepmrseg", 3, 1, 2, width=4, depth=1), "DeepMRSeg network in three"),
        (NetworkConfig("unet", 3, 1, 2, width=4, depth=1), "UNet in three"),
        (NetworkConfig("unet", 2, 2, 2, width=4, depth=1), "UNet in two"),
    ],
)
def test_the_network_is_named(network: NetworkConfig, words: str) -> None:
    one = replace(bundle("brain", "Brain"), network=network)
    assert (
        words
        in methods_facts(
            find_task("brain"),
            {**dict.fromkeys(("icv", "outline"), bundle("icv", "Skull")), "brain": one},
        )["Text"]
    )


def test_data_terms_and_citation_are_as_far_as_each_bundle_states_them() -> None:
    models = {
        "brain": bundle("brain", "Brain", **FACTS),
        "icv": bundle("icv", "Inside"),
        "outline": bundle("outline", "Inside"),
        "deepbrain": bundle("deepbrain", "Nut", licence="CC0", cite=""),
        "other": bundle("other", "Nut", licence="not of this task"),
    }
    assert methods_facts(find_task("deepbrain"), models)["Models"] == {
        "brain": {
            "TrainingData": "thirty heads",
            "Licence": "CC BY 4.0",
            "Cite": "Somebody 2020",
        },
        "icv": {},
        "outline": {},
        "deepbrain": {"Licence": "CC0"},
    }


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (("Brain",), "brain"),
        (("Left-Nut", "Right-Nut"), "nut (left and right)"),
        (("Left-A", "Right-A", "Left-Nut", "Right-Nut"), "A and nut (left and right)"),
        (("Left-Nut", "Right-Nut", "Stem"), "nut (left and right) and stem"),
        (("Left-Nut",), "left nut"),
        (("Left-Nut", "Right-Bean", "Stem"), "left nut, right bean and stem"),
        (("Thalamus-Proper", "CSF", "Left_Nut"), "thalamus proper, CSF and left nut"),
        (tuple(f"Part-{n}" for n in range(30)), "30 structures of the label table"),
    ],
)
def test_structures_are_listed_in_words_with_sides_together(
    names: tuple[str, ...], words: str
) -> None:
    assert structures_in_words(table(*names)) == words

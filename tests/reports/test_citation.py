"""The methods text: what ran is in it, every citation has its entry, and TeX is escaped."""

from __future__ import annotations

import re
from pathlib import Path

from deepmrseg_bids.inference.bundle import ModelBundle, shipped_bundles
from deepmrseg_bids.reports.citation import Citation, TaskMethods, write_citation
from deepmrseg_bids.reports.references import BIBTEX, NAMED
from deepmrseg_bids.tasks.methods import methods_facts
from deepmrseg_bids.tasks.registry import find_task, task_names

FACTS = {
    "Text": "Structures: a_b & c (100 %).",
    "Models": {
        "brain": {"TrainingData": "50 heads", "Licence": "research", "Cite": "IXI; Nobody 1999"}
    },
}


def made(**options: object) -> Citation:
    tasks = [TaskMethods("Brain", FACTS, "1.0 abc", paired=True)]
    return Citation("1.2", "2.9", tasks, **options)  # type: ignore[arg-type]


def test_the_text_has_what_ran_its_training_data_credits_and_registration(tmp_path: Path) -> None:
    citation = made(spaces=["MNI152NLin2009cAsym"])
    text = " ".join(citation.paragraphs)
    for words in ("deepmrseg-bids 1.2", "PyTorch 2.9", "Brain (model 1.0 abc)", "50 heads [@ixi]",
                  "(Nobody 1999)", "registered to the FLAIR", "MNI152NLin2009cAsym",
                  "90 %"):  # fmt: skip
        assert words in text
    alone = Citation("1", "2", [TaskMethods("Brain", {})])
    assert "registered" not in " ".join(alone.paragraphs)
    paths = write_citation(tmp_path, citation)
    assert [path.name for path in paths] == ["CITATION.md", "CITATION.tex", "CITATION.bib"]
    assert "- brain: research" in paths[0].read_text()


def test_every_citation_has_its_entry_and_tex_is_escaped() -> None:
    citation = made()
    tex, bib = citation.tex(), citation.bib()
    cited = {key for group in re.findall(r"citep{([^}]*)}", tex) for key in group.split(",")}
    assert cited == set(citation.keys) == set(re.findall(r"^@\w+{(\w+),", bib, re.MULTILINE))
    assert r"a\_b \& c (100 \%)" in tex and "[@" not in tex
    assert set(NAMED.values()) <= BIBTEX.keys()
    assert all(entry.count("{") == entry.count("}") for entry in BIBTEX.values())


def test_the_credits_of_every_shipped_model_are_named() -> None:
    bundles = {path.name: ModelBundle.open(path) for path in shipped_bundles().values()}
    for name in task_names():
        facts = methods_facts(find_task(name), bundles)
        citation = Citation("1", "2", [TaskMethods(name, facts)])
        text = " ".join(citation.paragraphs)
        for model in facts["Models"].values():
            assert model["TrainingData"] in text
            for credit in model["Cite"].split(";"):
                (key,) = {key for word, key in NAMED.items() if word in credit}
                assert f"@{key}" in text and f"{{{key}," in citation.bib(), credit


def test_what_was_done_with_skull_stripped_images_is_not_what_was_done_with_heads() -> None:
    bundles = {path.name: ModelBundle.open(path) for path in shipped_bundles().values()}
    heads, stripped, _ = methods_facts(find_task("brain"), bundles)["Text"].split(". ", 2)
    assert heads.startswith("In heads with a skull") and "skull was segmented" in heads
    assert stripped.startswith("For skull-stripped images")

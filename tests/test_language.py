"""What users read is plain scientific English: phrases that have a plainer equivalent are listed.

Each entry of the list has an example, and what to write instead.
"""

from __future__ import annotations

import argparse
import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from deepmrseg_bids.cli import deepmrseg, deepmrseg_bids

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "deepmrseg_bids"
REPORTS = PACKAGE / "reports"


class Phrase(NamedTuple):
    """A pattern that no text for users may hold, with an example and what to write instead."""

    pattern: str
    example: str
    instead: str


PHRASES = (
    Phrase(r"what became of", "what became of each task", "task status"),
    Phrase(r"anew", "the index is made anew", "again, regenerated"),
    Phrase(r"told", "outliers are told of larger studies only", "reported"),
    Phrase(r"(says?|said) so", "the log says so", "the log reports this"),
    Phrase(
        r"(page|row|table|job|line|column|box|node|image|map|file|time|change|point|cut)s? a "
        r"(session|subject|study|task|structure|sample|step|scan|lesion|year|person|run|fold|row)",
        "one page a subject", "per",
    ),
    Phrase(r"page of (a|the|each|every|its) (subject|study)", "the page of the study",
           "subject report, group report"),
    Phrase(r"(subject|study)'s page", "the subject's page", "subject report"),
    Phrase(r"(sagittal|coronal|axial|three|five|one|other) cuts?", "five axial cuts", "slice"),
    Phrase(r"(how|not|less|as|too) sure(ly)?|unsure|sureness", "how sure the network is",
           "confident, confidence"),
    Phrase(r"promise[sd]?", "the Dice that the posteriors promise", "predicted; announces"),
    Phrase(r"(lie|lies|lay|lying) (on|in|among|beside|outside|where)", "the T1w lies on the FLAIR",
           "is aligned with, is in"),
    Phrase(r"laid (on|over|onto)", "laid on each other", "aligned with, registered to"),
    Phrase(r"brought (to|onto|on|into)", "brought to the grid of the scan", "resampled to"),
    Phrase(r"nothing but", "they need nothing but make", "only"),
    Phrase(r"outside what they know", "infants are outside what they know", "not validated in"),
    Phrase(r"terms hold|hold too", "their terms hold too", "those terms also apply"),
    Phrase(r"(not )?done again|do(es)? (it |this one )?again", "what is finished is not done again",
           "completed sessions are skipped; is repeated"),
    Phrase(r"(line|file|one) wins|wins over", "the command line wins", "takes precedence"),
    Phrase(r"taken for names|taken to mean", "numbers are taken for names",
           "label values are assumed to match"),
    Phrase(r"no end is", "no end is further than a factor of 3 away", "bounds are limited to"),
    Phrase(r"teach(es|ing)?|taught", "few scans teach it", "train"),
    Phrase(r"judg(e|es|ed|ing)", "the fold that judges", "evaluate"),
    Phrase(r"kept back", "one fold was kept back", "held out"),
    Phrase(r"measured badly", "small structures are measured badly", "unreliable"),
    Phrase(r"than its rim", "the middle of the brain is darker than its rim",
           "contrast is not T1-like"),
    Phrase(r"square to square", "outlines go on from square to square", "across tiles"),
    Phrase(r"in the study:", "In the study: 84 (+0.6)", "cohort percentile"),
    Phrase(r"tasks of sessions", "2 tasks of sessions not done", "tasks failed or skipped"),
    Phrase(r"found to be odd", "nothing was found to be odd", "no findings"),
    Phrase(r"surface distance of 95|95 % surface distance", "95 % surface distance", "HD95"),
    Phrase(r"begun", "begun anew", "started"),
    Phrase(r"br(oke|eaks?) off", "the registration broke off", "failed, is incomplete"),
    Phrase(r"settle[sd]?", "the search did not settle", "converge"),
    Phrase(r"tak(e|es|ing) back", "taking back 3 jobs", "cancelling"),
    Phrase(r"at hand|to be had", "neither at hand nor to be had", "installed, downloadable"),
    Phrase(r"1 (core|session|task|thread|job|sample|label map|voxel|validation)s",
           "1 sessions are not in it", "1 session"),
    Phrase(r"mend(s|ed)?", "mend the table", "correct"),
    Phrase(r"left out|leaves? (it |them )?out", "the row is left out",
           "omitted, skipped, not used"),
    Phrase(r"in the place of", "0.1 in the place of 0.2", "instead of"),
    Phrase(r"at (one|a) glance", "all sessions at one glance", "an overview"),
    Phrase(r"stands? (in|on|beside|before|behind|under)", "it stands in the table", "is in"),
    Phrase(r"beside", "a table beside the image", "next to, in addition to"),
    Phrase(r"(from|of) where \w+ saw", "12 mm from where deepbrain saw it", "location"),
    Phrase(r"by eye|the eye sees", "looked at by eye", "visual inspection"),
    Phrase(r"made[ -]up", "made-up sessions", "simulated"),
    Phrase(r"whole people", "one fold, whole people", "split by participant"),
    Phrase(r"specks?", "faint specks", "spots, small lesions"),
    Phrase(r"(go|goes|going|went) on (from|with|without|waiting|until)", "the run goes on without",
           "continue"),
    Phrase(r"ask(s|ed)? for", "tasks that were not asked for", "requested, requires"),
    Phrase(r"carr(y|ied) over", "nothing to carry over", "resample"),
    Phrase(r"the other way round", "or the other way round", "vice versa"),
    Phrase(r"knows? (no|nothing|only)", "the model knows no thalamus", "has no"),
    Phrase(r"has to spare", "what the machine has to spare", "available"),
    Phrase(r"killed for memory", "killed for memory",
           "because of memory"),
    Phrase(r"(looked|looks?) for from", "it is looked for from there", "the search starts at"),
    Phrase(r"not said", "licence: not said", "unknown"),
    Phrase(r"say (more|less)", "say more", "print more messages"),
    Phrase(r"chance (that|to|of)", "chance to exchange left and right", "probability"),
    Phrase(r"the same bytes", "they give the same bytes", "byte-identical"),
)  # fmt: skip
FORBIDDEN = {
    phrase: re.compile(rf"(?<![\w-]){phrase.pattern.replace(' ', chr(92) + 's+')}(?![\w-])", re.I)
    for phrase in (p._replace(pattern=f"(?:{p.pattern})") for p in PHRASES)
}


def dialect(text: str) -> list[str]:
    """The forbidden phrases in a text, each with what to write instead."""
    return [
        f"{match[0]!r}: write {phrase.instead!r} (in: {text[max(match.start() - 40, 0) :][:120]!r})"
        for phrase, pattern in FORBIDDEN.items()
        for match in pattern.finditer(text)
    ]


def messages(source: str) -> Iterator[str]:
    """The texts in Python code: string literals of more than a word, without docstrings."""
    tree = ast.parse(source)
    silent = {
        id(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            silent |= {id(part) for part in ast.walk(node)}
            yield "".join(
                str(part.value) if isinstance(part, ast.Constant) else "..." for part in node.values
            )
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and " " in str(node.value) and id(node) not in silent:
            yield str(node.value)


def page_text(template: str) -> str:
    """What is left of a template without its code: words, and attributes that are read aloud."""
    bare = re.sub(r"{#.*?#}|<style>.*?</style>|{% block style %}.*?{% endblock %}", " ", template,
                  flags=re.DOTALL)  # fmt: skip
    return re.sub(r"{%(.*?)%}|{{(.*?)}}", r" \1\2 ", bare, flags=re.DOTALL)


def script_texts(source: str) -> Iterator[str]:
    """The texts in a script, without its comments."""
    bare = re.sub(r"/\*.*?\*/|^\s*//.*$|\s// .*$", "", source, flags=re.DOTALL | re.MULTILINE)
    for match in re.finditer(r'"((?:\\.|[^"\\\n])*)"|`([^`]*)`', bare):
        text = match[1] or match[2] or ""
        if " " in text:
            yield text


def parsers(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """A parser and those of its commands."""
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield from parsers(command)


def helps() -> dict[str, str]:
    """The ``--help`` of each command by its name."""
    both = (deepmrseg_bids.build_parser(), deepmrseg.build_parser())
    return {one.prog: one.format_help() for parser in both for one in parsers(parser)}


def pages() -> list[Path]:
    """Texts that users open as files."""
    fronts = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "Makefile")]
    fronts += [ROOT / "singularity" / "README.md", REPORTS / "assets" / "README.md"]
    cards = PACKAGE.glob("models/*/card.md")
    presets = PACKAGE.glob("train/presets/*.toml")
    return [*fronts, *sorted((ROOT / "docs").glob("*.md")), *sorted(cards), *sorted(presets)]


def named(paths: list[Path]) -> list[object]:
    return [pytest.param(path, id=path.relative_to(ROOT).as_posix()) for path in paths]


@pytest.mark.parametrize("phrase", PHRASES, ids=lambda phrase: phrase.example)
def test_a_phrase_of_the_list_is_found_wherever_it_is_planted(phrase: Phrase) -> None:
    planted = phrase.example
    assert dialect(planted) and dialect(f"First, {planted.capitalize()}.")
    assert dialect(planted.replace(" ", "\n    "))
    code = f'def f():\n    """Plain."""\n    raise ValueError(f"{{x}}: {planted}")\n'
    assert dialect("\n".join(messages(code)))
    assert dialect(page_text(f"<p>{{{{ number }}}} {planted}</p>"))
    assert dialect("\n".join(script_texts(f'note.textContent = "{planted} it";')))


def test_docstrings_and_comments_are_not_read_by_users() -> None:
    code = '"""Made anew."""\n\n\ndef f():\n    """Told."""\n    return 1  # begun anew\n'
    assert list(messages(code)) == []
    assert (
        list(script_texts('// made anew\n/** told "anew and so" */\nconst a = 1; // "at hand"'))
        == []
    )


@pytest.mark.parametrize("path", named(pages()))
def test_documents_are_in_plain_english(path: Path) -> None:
    assert dialect(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("path", named(sorted(PACKAGE.rglob("*.py"))))
def test_messages_are_in_plain_english(path: Path) -> None:
    texts = messages(path.read_text(encoding="utf-8"))
    assert [found for text in texts for found in dialect(text)] == []


@pytest.mark.parametrize("path", named(sorted((REPORTS / "templates").glob("*.j2"))))
def test_reports_are_in_plain_english(path: Path) -> None:
    assert dialect(page_text(path.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize("path", named(sorted((REPORTS / "assets").glob("*.js"))))
def test_scripts_of_reports_are_in_plain_english(path: Path) -> None:
    texts = script_texts(path.read_text(encoding="utf-8"))
    assert [found for text in texts for found in dialect(text)] == []


def test_the_help_of_every_command_is_in_plain_english() -> None:
    texts = helps()
    assert {"deepmrseg-bids", "deepmrseg train", "deepmrseg models"} <= set(texts)
    assert {name: found for name, text in texts.items() if (found := dialect(text))} == {}


def test_descriptors_and_model_facts_are_in_plain_english() -> None:
    facts = [json.loads(path.read_text()) for path in PACKAGE.glob("models/*/bundle.json")]
    texts = [(ROOT / "boutiques.json").read_text(), *(json.dumps(one["facts"]) for one in facts)]
    assert len(facts) >= 4
    assert [found for text in texts for found in dialect(text)] == []


_COUNTS = re.compile(r"\b(len|sum|int|round|count_nonzero)\(|\.(size|count|steps|waited|classes)\b")
_PLURAL = re.compile(
    r" (cells|sessions|tasks|volumes|classes|voxels|steps|samples|lesions|structures|runs|threads|"
    r"cores|processes|images|participants|rows|columns|jobs|files|findings|grids|others|labels|"
    r"subjects|scans|lines|times|dimensions|models|errors|warnings|pairs|values)\b"
)


def _uncounted(source: str) -> Iterator[str]:
    """The numbers that stand before a plural noun whatever they are."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.JoinedStr):
            for value, rest in zip(node.values, node.values[1:], strict=False):
                if (
                    isinstance(value, ast.FormattedValue)
                    and isinstance(rest, ast.Constant)
                    and _COUNTS.search(ast.unparse(value.value))
                    and _PLURAL.match(rest.value)
                ):
                    yield ast.unparse(node)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield from (found.group() for found in re.finditer(f"%d{_PLURAL.pattern}", node.value))


def test_a_number_and_its_noun_agree() -> None:
    """``1 sessions`` cannot be written: numbers come with their nouns from ``wording.counted``."""
    assert list(_uncounted('f"{len(rows)} sessions"')) and list(_uncounted('"%d cores"'))
    found = {
        str(path.relative_to(PACKAGE)): texts
        for path in PACKAGE.rglob("*.py")
        if (texts := list(_uncounted(path.read_text(encoding="utf-8"))))
    }
    assert found == {}

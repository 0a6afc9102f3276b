"""The methods text of a run for a manuscript, and its references, as Markdown, LaTeX and BibTeX."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deepmrseg_bids.files import write_text
from deepmrseg_bids.reports.references import BIBTEX, NAMED

__all__ = ["Citation", "TaskMethods", "write_citation"]

_KEY = re.compile(r"\[@([\w;@ ]+)\]")
_TEX = str.maketrans({c: f"\\{c}" for c in "&%$#_{}"})


@dataclass(frozen=True)
class TaskMethods:
    """How a task was done.

    Attributes:
        title: of the task.
        facts: ``Text`` and ``Models``, as :func:`~deepmrseg_bids.tasks.methods.methods_facts`.
        model: version and checksum of the model.
        paired: the T1w was registered to the FLAIR.
    """

    title: str
    facts: Mapping[str, Any]
    model: str = ""
    paired: bool = False


@dataclass(frozen=True)
class Citation:
    """What ran.

    Attributes:
        version, torch: of this software and of PyTorch.
        intervals: volumes have prediction intervals.
        spaces: templates that scans were registered to.
    """

    version: str
    torch: str
    tasks: Sequence[TaskMethods]
    intervals: bool = True
    spaces: Sequence[str] = ()

    @property
    def paragraphs(self) -> list[str]:
        """The text; citations are ``[@key]``, as in Pandoc's Markdown."""
        first = (
            f"Magnetic resonance images were segmented with deepmrseg-bids {self.version}, which "
            "implements DeepMRSeg, a convolutional network with residual and inception blocks "
            f"[@doshi2019], in PyTorch {self.torch} [@paszke2019]."
        )
        texts = [first]
        for task in self.tasks:
            text = str(task.facts.get("Text") or "").strip()
            model = f" (model {task.model})" if task.model else ""
            texts.append(f"{task.title}{model}: {text}")
        for name, facts in self._models().items():
            data, cites = facts.get("TrainingData"), self._cites(facts.get("Cite", ""))
            if data:
                texts.append(f"The model {name} was trained on {data}{cites}.")
        texts.append("Label maps are on the voxel grid of the input image.")
        texts += self._registration()
        if self.intervals:
            texts.append(
                "Volumes have 90 % prediction intervals, estimated from the errors of the model on "
                "scans that were not used for training."
            )
        return texts

    def _registration(self) -> list[str]:
        texts = []
        if any(task.paired for task in self.tasks):
            texts.append(
                "T1-weighted images were registered to the FLAIR images (rigid, mutual "
                "information) with ANTs [@tustison2021]."
            )
        if self.spaces:
            texts.append(
                f"Images were registered to {', '.join(self.spaces)} (affine, then symmetric "
                "normalisation) with ANTs [@avants2008; @tustison2021], with templates of "
                "TemplateFlow [@ciric2022]."
            )
        return texts

    def _models(self) -> dict[str, Mapping[str, str]]:
        found: dict[str, Mapping[str, str]] = {}
        for task in self.tasks:
            models = task.facts.get("Models")
            for name, facts in models.items() if isinstance(models, Mapping) else ():
                if isinstance(facts, Mapping):
                    found.setdefault(str(name), {k: str(v) for k, v in facts.items()})
        return found

    def _cites(self, text: str) -> str:
        """The credits of a model: keys of known references, others as the bundle states them."""
        keys: list[str] = []
        others: list[str] = []
        for part in filter(None, (one.strip() for one in text.split(";"))):
            key = next((key for name, key in NAMED.items() if name in part), "")
            (keys if key else others).append(key or part)
        cited = f" [{'; '.join(f'@{key}' for key in keys)}]" if keys else ""
        return cited + (f" ({'; '.join(others)})" if others else "")

    @property
    def terms(self) -> dict[str, str]:
        """The terms of each model."""
        return {name: facts["Licence"] for name, facts in self._models().items()
                if facts.get("Licence")}  # fmt: skip

    @property
    def keys(self) -> list[str]:
        """The references that the text cites, each once."""
        found = [key for text in self.paragraphs for group in _KEY.findall(text)
                 for key in re.findall(r"\w+", group)]  # fmt: skip
        return list(dict.fromkeys(found))

    def markdown(self) -> str:
        """For Pandoc, with the references in a file beside it."""
        terms = "".join(f"- {name}: {text}\n" for name, text in self.terms.items())
        credit = f"\n## Terms of the models\n\n{terms}" if terms else ""
        body = "\n\n".join(self.paragraphs)
        return f"# Methods\n\n{body}\n{credit}\n## References\n\nSee CITATION.bib.\n"

    def tex(self) -> str:
        """A LaTeX document."""

        def cite(match: re.Match[str]) -> str:
            return f"\\citep{{{','.join(re.findall(r'[A-Za-z0-9]+', match[1]))}}}"

        parts = []
        for text in self.paragraphs:
            plain = _KEY.sub("\0", text).translate(_TEX).split("\0")
            cited = [*(cite(match) for match in _KEY.finditer(text)), ""]
            parts.append("".join(a + b for a, b in zip(plain, cited, strict=True)))
        body = "\n\n".join(parts)
        return (
            "\\documentclass{article}\n\\usepackage{natbib,url}\n\\begin{document}\n"
            f"\\section*{{Methods}}\n\n{body}\n\n"
            "\\bibliographystyle{plainnat}\n\\bibliography{CITATION}\n\\end{document}\n"
        )

    def bib(self) -> str:
        """The references as BibTeX."""
        return "\n".join(BIBTEX[key] for key in self.keys)


def write_citation(folder: Path, citation: Citation) -> list[Path]:
    """Write ``CITATION.md``, ``.tex`` and ``.bib``."""
    texts = {"md": citation.markdown(), "tex": citation.tex(), "bib": citation.bib()}
    for kind, text in texts.items():
        write_text(folder / f"CITATION.{kind}", text)
    return [folder / f"CITATION.{kind}" for kind in texts]

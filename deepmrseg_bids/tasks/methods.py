"""The methods text of a result: how its task works, and on what terms the models that ran stand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from deepmrseg_bids.imaging.labels import LabelTable
from deepmrseg_bids.tasks.spec import TaskSpec
from deepmrseg_bids.wording import counted

if TYPE_CHECKING:
    from deepmrseg_bids.inference.bundle import ModelBundle

__all__ = ["methods_facts", "structures_in_words"]

_MOST_NAMED = 20  # structures; of more only their number is given
_FACTS = {"training_data": "TrainingData", "licence": "Licence", "cite": "Cite"}


def methods_facts(task: TaskSpec, bundles: Mapping[str, ModelBundle]) -> dict[str, Any]:
    """What a sidecar and a report say of the method.

    The structures, the training data, the terms and what to cite are those of the bundles that
    ran, whatever the task is called.

    Args:
        bundles: the models of the task, by name.

    Returns:
        ``Text``: a sentence or two; ``Models``: by name ``TrainingData``, ``Licence`` and
        ``Cite``, as far as the bundle states them.
    """
    own = bundles[task.models[-1]]
    table = task.table or own.labels
    text = "" if task.brain_mask else f"Segmented structures: {structures_in_words(table)}. "
    dimensions = {2: "two", 3: "three"}[own.network.spatial_dims]
    network = {"deepmrseg": "DeepMRSeg network", "unet": "UNet"}[own.network.kind]
    text += f"{task.methods} ".lstrip() + f"The model is a {network} in {dimensions} dimensions."
    models = {
        model: {key: str(bundles[model].facts[name]) for name, key in _FACTS.items()
                if bundles[model].facts.get(name)}
        for model in task.models
    }  # fmt: skip
    return {"Text": text, "Models": models}


def structures_in_words(table: LabelTable) -> str:
    """The structures of a table in words, sides together.

    >>> from deepmrseg_bids.imaging.labels import Label
    >>> names = ("Left-Caudate", "Right-Caudate", "Brain-Stem")
    >>> structures_in_words(LabelTable(tuple(Label(k, n) for k, n in enumerate(names, 1))))
    'caudate (left and right) and brain stem'
    """
    sides: dict[str, set[str]] = {}
    for name in table.names:
        side, dash, rest = name.partition("-")
        sided = bool(dash) and side in ("Left", "Right")
        sides.setdefault(rest if sided else name, set()).add(side if sided else "")
    if len(sides) > _MOST_NAMED:
        return f"{counted(len(table), 'structure')} of the label table"
    both = {name for name, found in sides.items() if {"Left", "Right"} <= found}
    words = [_spelt(name) for name in sides]
    if both and len(both) == len(sides):
        return f"{_listed(words)} (left and right)"
    marked = [
        f"{_spelt(name)} (left and right)" if name in both
        else f"{next(iter(found)).lower()} {_spelt(name)}".strip()
        for name, found in sides.items()
    ]  # fmt: skip
    return _listed(marked)


def _spelt(name: str) -> str:
    """``Thalamus-Proper`` as ``thalamus proper``; abbreviations stay as they are."""
    words = name.replace("_", "-").split("-")
    return " ".join(word if word.isupper() else word.lower() for word in words)


def _listed(words: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(words[:-1]), words[-1])))

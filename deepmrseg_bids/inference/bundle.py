"""A model bundle: a folder with the weights and all that is needed to use them.

::

    bundle.json           format, task, network, preparation, version, SHA-256 of the weights
    weights.safetensors   the weights: loading them can never run code
    labels.tsv            the label table
    train.toml            the settings it was trained with
    card.md               the model card
"""

from __future__ import annotations

import dataclasses
import json
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deepmrseg_bids.errors import BundleError, LabelTableError
from deepmrseg_bids.files import file_sha256, write_bytes, write_text
from deepmrseg_bids.imaging.file_kinds import pointer_hint
from deepmrseg_bids.imaging.intensity import IntensityMode
from deepmrseg_bids.imaging.labels import LabelTable

if TYPE_CHECKING:
    from torch import Tensor

    from deepmrseg_bids.network import Frame, NetworkConfig

__all__ = ["FORMAT", "ModelBundle", "NewBundle", "Preparation", "file_sha256", "shipped_bundles"]

FORMAT = 1
_MODELS = Path(__file__).parents[1] / "models"


@dataclass(frozen=True)
class Preparation:
    """How an image becomes what the network sees.

    Attributes:
        spacing: edge of the isotropic voxels, millimetres.
        intensity: see :func:`deepmrseg_bids.imaging.intensity.normalise`.
        shape: voxels of the crop; (0, 0, 0) stands for the whole field of view.
        margin: voxels kept around the structure, where the crop follows it.
        position: a second channel tells the network how far a voxel lies to the right of
            the crop's middle: a head is nearly its own mirror image.
        coordinates: three more channels, before that one, tell how far a voxel lies from the
            middle of the brain: :func:`deepmrseg_bids.imaging.intensity.brain_coordinates`.
        window: voxels of the crops the network was trained on; a larger image is seen in
            windows of this size. (0, 0, 0) stands for the whole image at once.
        mirrors: the network may be shown images in which left and right are exchanged; so it may
            if it was trained with such images.
        around: structures of ``deepbrain`` in whose middle the crop of a task of one's own is
            cut, or ``Brain``; if empty, the middle of the deep structures as ``brain`` finds it.
    """

    spacing: float
    intensity: IntensityMode
    shape: tuple[int, int, int] = (0, 0, 0)
    margin: int = 0
    position: bool = False
    coordinates: bool = False
    window: tuple[int, int, int] = (0, 0, 0)
    around: tuple[str, ...] = ()
    mirrors: bool = True

    def __post_init__(self) -> None:
        if not 0.2 <= self.spacing <= 10:
            raise ValueError(f"a spacing is between 0.2 and 10 mm, got {self.spacing}")
        if self.intensity not in ("head", "brain", "crop"):
            raise ValueError(f"intensity is head, brain or crop, got {self.intensity!r}")


@dataclass(frozen=True, eq=False)
class ModelBundle:
    """A trained network with what belongs to it; equal SHA-256 means equal weights.

    Attributes:
        facts: free entries for people and tables: training data, licence, accuracy.
    """

    task: str
    network: NetworkConfig
    preparation: Preparation
    labels: LabelTable
    sha256: str
    version: str
    path: Path
    facts: dict[str, Any]

    @property
    def label(self) -> str:
        """``version hash``, as tables and pages name it."""
        return f"{self.version} {self.sha256[:12]}"

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> ModelBundle:
        """Read a bundle and check its weights against their SHA-256.

        Raises:
            BundleError: a part is missing or broken, the format is newer, the weights are
                not safetensors, or they are not the ones the bundle was made with.
        """
        from deepmrseg_bids.network.config import NetworkConfig

        path = Path(path)
        facts = _read_facts(path)
        found = file_sha256(_weights_file(path))
        if found != facts["sha256"]:
            if hint := pointer_hint(_weights_file(path)):
                raise BundleError(f"{path}: the weights are {hint}")
            raise BundleError(
                f"{path}: the weights have changed: expected SHA-256 {facts['sha256']}, "
                f"found {found}; install the package again"
            )
        try:
            preparation = {"window": (0, 0, 0), **facts["preparation"]}
            preparation.setdefault("mirrors", _trained_with_mirrors(path))
            for name in ("shape", "window", *({"around"} & set(preparation))):
                preparation[name] = tuple(preparation[name])
            return cls(
                task=facts["task"],
                network=NetworkConfig(**facts["network"]),
                preparation=Preparation(**preparation),
                labels=LabelTable.read(path / "labels.tsv"),
                sha256=found,
                version=str(facts["version"]),
                path=path,
                facts=dict(facts["facts"]),
            )
        except LabelTableError as error:
            raise BundleError(f"{path}: labels.tsv cannot be used ({error})") from error
        except (TypeError, ValueError, KeyError) as error:
            raise BundleError(f"{path}: bundle.json cannot be used ({error})") from error

    @classmethod
    def shipped(cls, task: str) -> ModelBundle:
        """The bundle of this task that comes with the package."""
        return cls.open(_MODELS / task)

    def load(self) -> Frame:
        """The network with its weights, in evaluation mode, on the CPU, float32."""
        import torch
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        from deepmrseg_bids.network import build_network

        try:
            state = load_file(_weights_file(self.path))
        except (SafetensorError, OSError) as error:
            raise BundleError(f"{self.path}: the weights cannot be read ({error})") from error
        with torch.device("meta"):  # random weights would be made for nothing
            network = build_network(self.network)
        state = {name: value.float() if value.is_floating_point() else value
                 for name, value in state.items()}  # fmt: skip
        try:
            network.load_state_dict(state, assign=True)
        except RuntimeError as error:
            raise BundleError(
                f"{self.path}: these weights belong to a different network"
            ) from error
        return network.eval()


@dataclass(frozen=True, eq=False)
class NewBundle:
    """What a bundle is made of.

    Attributes:
        state: the weights, by name.
        settings: those it was trained with, as TOML.
        card: the model card, as Markdown.
        facts: see :class:`ModelBundle`.
    """

    task: str
    network: NetworkConfig
    preparation: Preparation
    labels: LabelTable
    state: Mapping[str, Tensor]
    version: str
    settings: str
    card: str
    facts: Mapping[str, Any]

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write the folder; the weights are stored in half precision, half the size."""
        from safetensors.torch import save

        path = Path(path)
        small = {
            name: (value.half() if value.is_floating_point() else value).contiguous()
            for name, value in self.state.items()
        }
        weights = path / "weights.safetensors"
        write_bytes(weights, save(small))
        self.labels.write(path / "labels.tsv")
        write_text(path / "train.toml", self.settings)
        write_text(path / "card.md", self.card)
        tree = {
            "format": FORMAT,
            "task": self.task,
            "version": self.version,
            "network": dataclasses.asdict(self.network),
            "preparation": dataclasses.asdict(self.preparation),
            "sha256": file_sha256(weights),
            "facts": dict(self.facts),
        }
        text = json.dumps(tree, indent=2, ensure_ascii=False) + "\n"
        write_text(path / "bundle.json", text)


def shipped_bundles() -> dict[str, Path]:
    """The folders of the bundles that come with the package, by task."""
    return {path.parent.name: path.parent for path in sorted(_MODELS.glob("*/bundle.json"))}


def _trained_with_mirrors(path: Path) -> bool:
    """Whether the settings of a training say that left and right were exchanged at times."""
    try:
        settings = tomllib.loads((path / "train.toml").read_text(encoding="utf-8"))
        return float(settings["augment"]["flip"]) > 0
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _weights_file(path: Path) -> Path:
    weights = path / "weights.safetensors"
    if not weights.is_file():
        raise BundleError(f"{path}: no weights.safetensors; only that format is loaded")
    return weights


def _read_facts(path: Path) -> dict[str, Any]:
    try:
        facts = json.loads((path / "bundle.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise BundleError(f"{path}: not a model bundle ({error})") from error
    if not isinstance(facts, dict) or not isinstance(facts.get("format"), int):
        raise BundleError(f"{path}: bundle.json has no format")
    if facts["format"] > FORMAT:
        raise BundleError(
            f"{path}: the bundle has format {facts['format']}, this version reads up to "
            f"{FORMAT}; use a newer release"
        )
    missing = {"task", "version", "network", "preparation", "sha256", "facts"} - set(facts)
    if missing:
        raise BundleError(f"{path}: bundle.json lacks {', '.join(sorted(missing))}")
    return facts

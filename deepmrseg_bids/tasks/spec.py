"""What a task is: one frozen value in the file of each task, which the rest of the package reads.

A task is a name, the images it needs, the models that work for it, what it writes and how that
is shown. To add one is to write such a value, see :mod:`deepmrseg_bids.tasks.registry`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, TypeVar

from deepmrseg_bids.imaging.labels import LabelTable

if TYPE_CHECKING:
    from deepmrseg_bids.imaging.nifti import Volume
    from deepmrseg_bids.inference.predictor import Predictor
    from deepmrseg_bids.tasks.pipeline import SessionContext
    from deepmrseg_bids.tasks.results import Segmentation

__all__ = ["MODALITIES", "PAIRED", "T1W", "Costs", "Figure", "Output", "Predictors", "TaskSpec"]

T1W = "T1w"
PAIRED = "FLAIR"
MODALITIES = (T1W, PAIRED)
"""The images of a session that a task may ask for, by their BIDS suffix; tables and label maps
are named after the first of them that is there."""

Image = TypeVar("Image")
Predictors: TypeAlias = "Callable[[str], Predictor]"
"""Gives the predictor of a model, by its name."""


@dataclass(frozen=True)
class Output:
    """How BIDS names the label map of a task.

    Attributes:
        entities: of its name, ``{"seg": "deepbrain"}``.
        suffix: ``dseg``, or ``mask``.
        kind: the BIDS ``Type`` of a mask.
    """

    entities: Mapping[str, str]
    suffix: str = "dseg"
    kind: str | None = None


@dataclass(frozen=True)
class Figure:
    """How pictures show a task.

    Attributes:
        margin_mm: kept around what is labelled.
        plane: of the one slice in a mosaic: 0 sagittal, 1 coronal, 2 axial.
        window_inside: black and white are set by the labelled voxels.
    """

    margin_mm: float = 15.0
    plane: int = 1
    window_inside: bool = False


@dataclass(frozen=True)
class Costs:
    """What a task takes, as far as it is not read from its model (``docs/performance.md``).

    Attributes:
        window_seconds: of one window of its network, on a machine that all shards agree on.
        network_mib: memory of the network at work.
        labels: that are brought to the grid of the scan.
        crop_mm3: the box in which they are.
        passes: times that a crop is looked at, on average.
        looks: further windows, for finding the crop.
        crops: so many of them.
    """

    window_seconds: float = 0.6
    network_mib: int = 430
    labels: int = 1
    crop_mm3: float = 0.0
    passes: float = 1.0
    looks: float = 0.0
    crops: int = 1


@dataclass(frozen=True, eq=False)
class TaskSpec:
    """One segmentation task.

    Attributes:
        name: letters and digits; in file names (``seg-<name>``), tables and options.
        title: for people, in pages.
        description: what its label map is, for sidecars.
        segment: makes the segmentation of a session, from its images and what other tasks share.
        segment_prepared: the same for images that are what the network sees already (crops,
            brain-extracted), by modality, and what gives the predictor of a model.
        models: that it needs, in the order in which they run, the one that labels last.
        required, optional: the images it cannot do without, and those it makes use of; of
            ``MODALITIES``.
        bundle: the folder of its own model, where that does not come with this package.
        table: the labels that it writes, where they are not those of its model.
        regions: the table of the composite regions that are measured, too.
        parts: for a label, the numbers by which other atlases know its parts; a reference with
            these is compared with the whole.
        output: how its label map is called; ``_seg-<name>_dseg`` if not given.
        native: the image on whose grid the labels are found, and always written.
        lesions: single lesions are counted and listed.
        brain_mask: its one label is the brain. It is what other volumes are related to, and any
            label of a reference counts as brain.
        probabilities: its posteriors can be written; those of many labels are too large for that.
        whole_brain: its labels cover the brain, so that a brain mask can be compared with them.
        methods: a sentence on how it works, for the methods text of a report.
        judged_raw: cross-validation judges it on raw heads, not on prepared images.
    """

    name: str
    title: str
    description: str
    segment: Callable[[SessionContext], Segmentation]
    segment_prepared: Callable[[Mapping[str, Volume], Predictors], Segmentation]
    models: tuple[str, ...]
    required: tuple[str, ...] = (T1W,)
    optional: tuple[str, ...] = ()
    bundle: Path | None = None
    table: LabelTable | None = None
    regions: Path | None = None
    parts: Mapping[int, tuple[int, ...]] = field(default_factory=dict)
    output: Output | None = None
    native: str = T1W
    lesions: bool = False
    brain_mask: bool = False
    probabilities: bool = True
    whole_brain: bool = False
    methods: str = ""
    judged_raw: bool = False
    figure: Figure = field(default_factory=Figure)
    costs: Costs = field(default_factory=Costs)

    def __post_init__(self) -> None:
        if not (self.name.isascii() and self.name.isalnum()):
            raise ValueError(f"the name of a task has letters and digits, got {self.name!r}")
        if not self.models:
            raise ValueError(f"{self.name}: a task names the models that it needs")
        unknown = {*self.required, *self.optional, self.native} - set(MODALITIES)
        if unknown or not self.required:
            raise ValueError(
                f"{self.name}: a task needs images of {', '.join(MODALITIES)}, got "
                f"{sorted(unknown) or 'none'}"
            )

    @property
    def label_map(self) -> Output:
        """How BIDS names its label map."""
        return self.output or Output({"seg": self.name})

    @property
    def pair(self) -> bool:
        """Whether it looks at several images of a session."""
        return len(self.required) + len(self.optional) > 1

    def images(self, of: Mapping[str, Image]) -> dict[str, Image]:
        """The images of a session that it looks at; none if one that it needs is missing."""
        wanted = {*self.required, *self.optional}
        if any(modality not in of for modality in self.required):
            return {}
        return {name: of[name] for name in MODALITIES if name in wanted and name in of}

    def missing(self, there: Collection[str]) -> str:
        """Why it cannot be done with the images of a session; empty if it can."""
        lacking = [modality for modality in self.required if modality not in there]
        if not lacking:
            return ""
        if lacking[0] == T1W or not there:
            return f"the session has no {T1W} image"
        return f"{self.name} requires a {lacking[0]}, but the session has none"

    def suits(self, there: Collection[str]) -> bool:
        """Whether it is done where no task is named: all but the T1w that it needs is there."""
        return all(modality in there for modality in self.required if modality != T1W)

    def source(self, images: Mapping[str, Path]) -> Path:
        """The image that its tables are named after."""
        return next(iter(self.images(images).values()))

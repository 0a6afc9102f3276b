"""The settings of a training run: one TOML, which the run's folder and the bundle keep."""

from __future__ import annotations

import dataclasses
import reprlib
import tomllib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, Literal, TypeVar

import tomli_w

from deepmrseg_bids.errors import LabelTableError, TrainingError
from deepmrseg_bids.imaging.labels import Label, LabelTable
from deepmrseg_bids.inference.bundle import Preparation
from deepmrseg_bids.inference.predictor import Precision
from deepmrseg_bids.network import NetworkConfig
from deepmrseg_bids.wording import counted

__all__ = ["LARGEST_CODE", "AugmentConfig", "LoopConfig", "PairConfig", "TrainConfig",
           "changed_settings", "load_config", "preset_names", "settings_of"]  # fmt: skip

T = TypeVar("T")

_FREE = ("loop.checkpoint_every",)  # whatever its value, the same network comes out
_UNSET = (0, 0, 0)
_ABOUT = ("title", "training_data", "licence", "cite")

LARGEST_CODE = 2**15 - 1
"""Of a label map that is trained on."""


@dataclass(frozen=True)
class AugmentConfig:
    """How far each random change may go; 0 turns it off. Chances are in [0, 1].

    Attributes:
        flip: chance to exchange left and right (labels with a side change places).
        rotate_deg, scale, shear, shift_mm: half-ranges of the affine part.
        elastic_mm: standard deviation of the smooth displacement at its control points.
        bias: half-range of the logarithm of the smooth multiplicative field.
        shading: largest logarithm of the change of brightness over 100 mm, in any direction and
            from the middle outwards, as of a coil.
        gamma: half-range of the logarithm of the exponent.
        contrast: half-range of the logarithm of a factor on the scaled intensities, as if
            they had been scaled by a somewhat other box or mask.
        brightness: half-range of a shift of the scaled intensities, in deviations.
        noise: largest standard deviation of the noise, in deviations of the image.
        blur_mm: largest sigma of the smoothing.
        thick_mm: thickest slices that are imitated along a random axis.
        coarse_mm: largest cubic voxels that are imitated.
        remap: chance of a random intensity curve that keeps the order of tissues.
        invert: chance of a random intensity curve in any order (T2-like, inverted).
        strip: chance to remove all that is not brain; deface: chance to cut the face off.
        strip_room_mm: distance from the brain within which nothing is removed then.
    """

    flip: float = 0.0
    rotate_deg: float = 0.0
    scale: float = 0.0
    shear: float = 0.0
    shift_mm: float = 0.0
    elastic_mm: float = 0.0
    bias: float = 0.0
    shading: float = 0.0
    gamma: float = 0.0
    contrast: float = 0.0
    brightness: float = 0.0
    noise: float = 0.0
    blur_mm: float = 0.0
    thick_mm: float = 0.0
    coarse_mm: float = 0.0
    remap: float = 0.0
    invert: float = 0.0
    strip: float = 0.0
    strip_room_mm: float = 0.0
    deface: float = 0.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            chance = name in ("flip", "remap", "invert", "strip", "deface")
            if not 0 <= value <= (1 if chance else float("inf")):
                wanted = "a probability in [0, 1]" if chance else "at least 0"
                raise ValueError(f"augment {name} must be {wanted}, got {value!r}")


@dataclass(frozen=True)
class PairConfig:
    """Slices of T1w and FLAIR (networks in 2D): what is drawn beside :class:`AugmentConfig`.

    Intensities are relative to white matter; strengths of what is not labelled are relative
    to the contrast of the lesions.

    Attributes:
        drop_t1w: chance that the T1w is left out, so that a FLAIR alone can be segmented.
        thick_mm: thickest slices that are imitated.
        healthy: chance of a synthetic head without lesions.
        band: chance of labelled lesions that line the ventricles.
        lesion: least and largest brightness of lesions above grey matter in the FLAIR; faint
            ones are as frequent as bright ones (evenly spread logarithm).
        dirty: most diffuse brightness around the ventricles, not labelled.
        rim: brightest thin rims along the ventricles, not labelled.
        caps: brightest caps on the ventricles, some millimetres deep and soft, not labelled.
        flow: chance of bright fluid.
        plexus: chance of bright spots in the ventricles.
        grey: most by which places of grey matter are brighter than the rest of it.
        ghost: strongest ghost of motion.
        misplaced_mm, misplaced_deg: deviations of the T1w's place.
    """

    drop_t1w: float = 0.0
    thick_mm: float = 1.0
    healthy: float = 0.0
    band: float = 0.0
    lesion: tuple[float, float] = (0.15, 0.9)
    dirty: float = 0.0
    rim: float = 0.6
    caps: float = 0.0
    flow: float = 0.0
    plexus: float = 0.0
    grey: float = 0.0
    ghost: float = 0.0
    misplaced_mm: float = 0.0
    misplaced_deg: float = 0.0

    def __post_init__(self) -> None:
        if not (len(self.lesion) == 2 and 0 < self.lesion[0] <= self.lesion[1]):
            raise ValueError(
                f"pairs lesion must be two numbers above 0, the smaller one first, got "
                f"{self.lesion!r}"
            )
        for name in ("drop_t1w", "healthy", "band", "flow"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(
                    f"pairs {name} must be a probability in [0, 1], got {getattr(self, name)!r}"
                )
        for name in (
            "thick_mm",
            "dirty",
            "rim",
            "caps",
            "grey",
            "ghost",
            "misplaced_mm",
            "misplaced_deg",
        ):
            if not getattr(self, name) >= 0:
                raise ValueError(f"pairs {name} must be at least 0, got {getattr(self, name)!r}")


@dataclass(frozen=True)
class LoopConfig:
    """Optimisation: how many steps of what size, on what.

    Attributes:
        crop: voxels of one training crop.
        windows: the trained network sees a larger image in windows of that size; otherwise at once.
        schedule: ``onecycle`` warms up and then falls to zero along a cosine;
            ``exponential`` multiplies by ``decay`` an epoch (the paper's recipe).
        ema: decay of the running average of the weights; 0 keeps the last weights.
        folds, fold: people in fold ``fold`` of ``folds`` validate; ``folds = 0``: nobody.
        keep: the averaged weights that the bundle holds: those at the end, or those of the
            validation with the best mean Dice.
        patience: validations in a row without a new best mean Dice after which training
            stops; 0: it never stops early.
        precision: of the network's forward pass; the loss and the weights are float32.
            ``auto`` is bfloat16 where the hardware computes with it.
    """

    steps: int
    crop: tuple[int, ...]
    batch: int = 2
    windows: bool = True
    optimiser: Literal["adam", "adamw"] = "adamw"
    learning_rate: float = 0.003
    weight_decay: float = 0.0001
    schedule: Literal["onecycle", "exponential"] = "onecycle"
    decay: float = 0.98
    ema: float = 0.98
    folds: int = 4
    fold: int = 0
    seed: int = 0
    validate_every: int = 100
    checkpoint_every: int = 50
    keep: Literal["last", "best"] = "last"
    patience: int = 0
    precision: Precision = "auto"

    def __post_init__(self) -> None:
        checks = {
            "steps": (self.steps >= 1, "at least 1"),
            "crop": (
                len(self.crop) in (2, 3) and min(self.crop) >= 1,
                "two or three edges, in voxels",
            ),
            "batch": (self.batch >= 1, "at least 1"),
            "optimiser": (self.optimiser in ("adam", "adamw"), "adam or adamw"),
            "learning_rate": (self.learning_rate > 0, "above 0"),
            "schedule": (self.schedule in ("onecycle", "exponential"), "onecycle or exponential"),
            "ema": (0 <= self.ema < 1, "in [0, 1)"),
            "folds": (self.folds == 0 or self.folds >= 2, "0 or at least 2"),
            "fold": (0 <= self.fold < max(self.folds, 1), "below folds"),
            "validate_every": (self.validate_every >= 1, "at least 1"),
            "checkpoint_every": (self.checkpoint_every >= 1, "at least 1"),
            "keep": (self.keep in ("last", "best"), "last or best"),
            "patience": (self.patience >= 0, "at least 0"),
            "precision": (
                self.precision in ("auto", "float32", "bfloat16"),
                "auto, float32 or bfloat16",
            ),
        }
        for name, (good, expected) in checks.items():
            if not good:
                raise ValueError(f"loop {name} must be {expected}, got {getattr(self, name)!r}")


@dataclass(frozen=True)
class TrainConfig:
    """All that a training run needs beside its samples.

    Attributes:
        protocols: what the codes of each labelling protocol stand for: for each class (``"1"``
            is the first label) a list of codes, or ``"rest"`` for every other code above zero;
            and for ``"ignore"`` those that are background.
        about: what reports and sidecars state of the model: ``title`` of the task,
            ``training_data``, ``licence``, ``cite``.
        ignore: the codes that are background in label maps without a protocol, whose codes are
            the indices of ``labels``; ``"rest"``: all that are no index.
    """

    task: str
    labels: LabelTable
    network: NetworkConfig
    preparation: Preparation
    loop: LoopConfig
    augment: AugmentConfig = AugmentConfig()
    pairs: PairConfig = PairConfig()
    protocols: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    ignore: tuple[int, ...] | Literal["rest"] = ()
    about: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not (self.task.isascii() and self.task.isalnum()):
            raise TrainingError(f"the name of a task has letters and digits, got {self.task!r}")
        _check_about(self.about)
        if self.network.classes != len(self.labels) + 1:
            raise TrainingError(
                f"the network has {counted(self.network.classes, 'class', 'classes')}, the label "
                f"table requires {len(self.labels) + 1} (its labels and the background)"
            )
        dims = self.network.spatial_dims
        if dims != len(self.loop.crop):
            edges = "two" if dims == 2 else "three"
            raise TrainingError(
                f"loop crop must be {edges} edges for a network in {dims}D, got "
                f"{list(self.loop.crop)}"
            )
        self._check_channels()
        _check_codes("ignore", self.ignore)
        ignored = () if self.ignore == "rest" else self.ignore
        if both := [index for index in self.labels.indices if index in ignored]:
            raise TrainingError(f"ignore lists indices of labels: {both}")
        for name, entries in self.protocols.items():
            _check_protocol(f"[protocols.{name}]", entries, len(self.labels))

    def _check_channels(self) -> None:
        channels, seen = self.network.in_channels, self.preparation
        if self.network.spatial_dims == 2:
            if channels != 2 or seen.position or seen.coordinates:
                raise TrainingError(
                    "a 2D network has slices of FLAIR and T1w as input: it requires "
                    "in_channels = 2, and neither position nor coordinates, got in_channels "
                    f"= {channels}, position = {seen.position}, coordinates = "
                    f"{seen.coordinates}"
                )
            return
        expected = 1 + seen.position + 3 * seen.coordinates
        if channels != expected:
            raise TrainingError(
                f"the network needs in_channels = {expected}: one for the image, one for "
                f"position ({seen.position}), three for coordinates ({seen.coordinates}); got "
                f"{channels}"
            )
        if seen.coordinates and (seen.intensity != "brain" or any(seen.shape)):
            raise TrainingError(
                "coordinates say how far a voxel lies from the middle of the whole brain: they "
                f'need intensity = "brain" and no shape, got {seen.intensity!r} and '
                f"{list(seen.shape)}"
            )

    @property
    def text(self) -> str:
        """The settings in force as TOML, defaults included; ``load_config`` reads it back."""
        return tomli_w.dumps(_tree(self))


def _check_protocol(name: str, entries: Mapping[str, Any], classes: int) -> None:
    known = [str(number) for number in range(1, classes + 1)]
    for key, codes in entries.items():
        if key not in (*known, "ignore"):
            raise TrainingError(
                f"{name}: {key!r} is no class: they are 1 to {classes}, and `ignore`"
            )
        _check_codes(f"{name} {key}", codes)
    if sum(codes == "rest" for codes in entries.values()) > 1:
        raise TrainingError(f'{name}: only one entry can be "rest"')
    counts = Counter(c for codes in entries.values() if codes != "rest" for c in codes)
    if twice := sorted(code for code, count in counts.items() if count > 1):
        raise TrainingError(f"{name}: listed more than once: {', '.join(map(str, twice))}")


def _check_codes(name: str, codes: Any) -> None:
    if codes != "rest" and not (
        isinstance(codes, list | tuple)
        and all(type(code) is int and 0 < code <= LARGEST_CODE for code in codes)
    ):
        raise TrainingError(
            f'{name} must be a list of label codes from 1 to {LARGEST_CODE}, or "rest", got '
            f"{codes!r}"
        )


def _check_about(about: Mapping[str, str]) -> None:
    """Whether the table names what a bundle can state, in texts."""
    for key, text in about.items():
        if key not in _ABOUT:
            raise TrainingError(f"[about] states {', '.join(_ABOUT)}, got {key!r}")
        if not isinstance(text, str) or not text.strip():
            raise TrainingError(f"[about] {key} must be a text, got {text!r}")


def _tree(config: TrainConfig) -> dict[str, Any]:
    """The settings as the tables of a TOML file."""
    preparation = dataclasses.asdict(config.preparation)
    del preparation["mirrors"]  # follows from the augmentation
    tree = {
        "task": config.task,
        "ignore": config.ignore if config.ignore == "rest" else list(config.ignore),
        "labels": [dataclasses.asdict(label) for label in config.labels],
        "network": dataclasses.asdict(config.network),
        "about": dict(config.about),
        "preparation": {k: v for k, v in preparation.items() if v not in (_UNSET, ())},
        "loop": dataclasses.asdict(config.loop),
        "augment": dataclasses.asdict(config.augment),
        "pairs": {} if config.network.spatial_dims == 3 else dataclasses.asdict(config.pairs),
        "protocols": {name: dict(entries) for name, entries in config.protocols.items()},
    }
    return {name: table for name, table in tree.items() if table}


def changed_settings(before: TrainConfig, now: TrainConfig) -> list[str]:
    """The keys of which a change makes another network, with both values.

    How often a checkpoint is written, how a label is abbreviated and drawn, and what is stated
    about the model may change.
    """
    old, new = _flat(before), _flat(now)
    return [
        f"{key} (was {reprlib.repr(old.get(key))}, now {reprlib.repr(new.get(key))})"
        for key in sorted({*old, *new} - set(_FREE))
        if old.get(key) != new.get(key)
    ]


def _flat(config: TrainConfig) -> dict[str, Any]:
    """``table.key`` for each setting; the labels as pairs of index and name.

    Ignored codes are left out where they can only be background, ignored or not.
    """
    tree = _tree(config)
    tree.pop("ignore", None)
    tree.pop("about", None)
    for name, entries in config.protocols.items():
        if not any(codes == "rest" for key, codes in entries.items() if key != "ignore"):
            tree["protocols"][name] = {k: v for k, v in entries.items() if k != "ignore"}
    tree["labels"] = [(label.index, label.name) for label in config.labels]
    flat: dict[str, Any] = {}
    for name, table in tree.items():
        if isinstance(table, dict):
            flat |= {f"{name}.{key}": value for key, value in table.items()}
        else:
            flat[name] = table
    return flat


def preset_names() -> list[str]:
    """The settings that come with the package."""
    folder = resources.files("deepmrseg_bids.train") / "presets"
    return sorted(entry.name[:-5] for entry in folder.iterdir() if entry.name.endswith(".toml"))


def settings_of(bundle: Path) -> TrainConfig | None:
    """The settings that a bundle was trained with; None if it does not have them.

    Raises:
        TrainingError: it has some that cannot be used.
    """
    path = bundle / "train.toml"
    try:
        empty = not path.read_bytes().strip()
    except FileNotFoundError:
        empty = True
    except OSError as error:
        raise TrainingError(f"{path}: cannot be read ({error})") from error
    return None if empty else load_config(path)


def load_config(source: str | Path, **changes: Any) -> TrainConfig:
    """Read a TOML file, or a preset by name; ``changes`` replace fields of ``[loop]``.

    Raises:
        TrainingError: no such file or preset, not TOML, or a key or value that means nothing.
    """
    path = Path(source)
    if path.is_file():
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise TrainingError(f"{source}: cannot be read ({error})") from error
    elif str(source) in preset_names():
        folder = resources.files("deepmrseg_bids.train") / "presets"
        text = (folder / f"{source}.toml").read_text(encoding="utf-8")
    else:
        known = ", ".join(preset_names())
        raise TrainingError(f"{source}: neither a TOML file nor one of the presets {known}")
    try:
        tree = tomllib.loads(text)
        loop = {**tree["loop"], **{k: v for k, v in changes.items() if v is not None}}
        loop["crop"] = tuple(loop["crop"])
        pairs = dict(tree.get("pairs", {}))
        if "lesion" in pairs:
            pairs["lesion"] = tuple(pairs["lesion"])
        preparation = dict(tree["preparation"])
        for name in {"shape", "window", "around"} & set(preparation):
            preparation[name] = tuple(preparation[name])
        ignore = tree.get("ignore", ())
        unknown = set(tree) - {f.name for f in dataclasses.fields(TrainConfig)}
        if unknown:
            raise ValueError(f"unknown tables {sorted(unknown)}")
        return TrainConfig(
            task=tree["task"],
            labels=LabelTable(tuple(Label(**row) for row in tree["labels"])),
            network=_build(NetworkConfig, tree["network"]),
            preparation=_build(Preparation, preparation),
            loop=_build(LoopConfig, loop),
            augment=_build(AugmentConfig, tree.get("augment", {})),
            pairs=_build(PairConfig, pairs),
            protocols=tree.get("protocols", {}),
            ignore=tuple(ignore) if isinstance(ignore, list) else ignore,
            about=tree.get("about", {}),
        )
    except KeyError as error:
        raise TrainingError(f"{source}: {error} is missing") from error
    except (
        LabelTableError,
        TrainingError,
        TypeError,
        ValueError,
    ) as error:  # bad TOML is a ValueError
        raise TrainingError(f"{source}: these settings cannot be used ({error})") from error


def _build(kind: type[T], values: Mapping[str, Any]) -> T:
    return kind(**values)

"""What the codes of a label map stand for: classes, background, or a mistake."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepmrseg_bids.errors import TrainingError
from deepmrseg_bids.imaging.morphology import filled
from deepmrseg_bids.imaging.nifti import LabelMap
from deepmrseg_bids.train.config import LARGEST_CODE, TrainConfig

__all__ = ["check_codes", "class_map", "reference_classes"]


def class_map(config: TrainConfig, protocol: str) -> NDArray[np.uint8]:
    """For each label code, its class: (largest code + 1,) uint8.

    Without a protocol, the codes are the label table's own indices.
    """
    lookup = np.zeros(LARGEST_CODE + 1, dtype=np.uint8)
    if not protocol:
        for number, label in enumerate(config.labels, start=1):
            lookup[label.index] = number
        return lookup
    entries, ignored = _classes(config, protocol), _ignored(config, protocol)
    for key, codes in entries.items():
        if codes == "rest":
            lookup[1:] = int(key)
    for key, codes in entries.items():
        if codes != "rest":
            lookup[list(codes)] = int(key)
    if ignored != "rest":
        lookup[list(ignored)] = 0
    return lookup


def reference_classes(labels: LabelMap, protocol: str, config: TrainConfig) -> NDArray[np.uint8]:
    """The class of every voxel of a reference label map, (*labels.grid.shape).

    Codes that no class names are background; see :func:`check_codes` for whether they may be
    there.

    Raises:
        TrainingError: unknown protocol, or a code too large for any.
    """
    lookup = class_map(config, protocol)
    if labels.data.max() >= len(lookup):
        raise TrainingError(f"label codes go up to {len(lookup) - 1}, found {labels.data.max()}")
    entries = _classes(config, protocol) if protocol else {}
    return _filled(lookup[labels.data], entries)


def check_codes(
    labels: LabelMap, dseg: Path, protocol: str, config: TrainConfig, *, limit: int | None = None
) -> None:
    """See that the settings say of every code above zero what it stands for.

    Args:
        limit: codes from here on need no mention; None asks for all.

    Raises:
        TrainingError: a code that is in no class and is not ignored; the message lists them.
    """
    ignored = _ignored(config, protocol)
    if ignored == "rest":
        return
    known = class_map(config, protocol) > 0
    known[[0, *ignored]] = True
    present = np.unique(labels.data[labels.data > 0])
    if limit is not None:
        present = present[present < limit]
    unknown = [int(code) for code in present if code > LARGEST_CODE or not known[code]]
    if unknown:
        place = f"[protocols.{protocol}]" if protocol else "`labels`"
        key = f"[protocols.{protocol}]" if protocol else "the settings, before their first table"
        raise TrainingError(
            f"{dseg}: the label {_listed(unknown)} not in {place}. Add what is missing there, or "
            f'list what is background as `ignore` in {key} (ignore = "rest" for all other codes)'
        )


def _classes(config: TrainConfig, protocol: str) -> dict[str, Any]:
    """The codes of each class by its number, or ``"rest"``."""
    if protocol not in config.protocols:
        known = ", ".join(config.protocols) or "none"
        raise TrainingError(f"unknown protocol {protocol!r}; the settings know {known}")
    return {key: codes for key, codes in config.protocols[protocol].items() if key != "ignore"}


def _ignored(config: TrainConfig, protocol: str) -> Any:
    """The codes that are background, or ``"rest"``."""
    return config.protocols[protocol].get("ignore", ()) if protocol else config.ignore


def _listed(codes: Sequence[int]) -> str:
    """All of the codes, and neighbours together.

    >>> _listed([3])
    'code 3 is'
    >>> _listed([3, 5, 6, 7, 8, 12])
    'codes 3, 5 to 8, 12 are'
    """
    if len(codes) == 1:
        return f"code {codes[0]} is"
    runs: list[list[int]] = []
    for code in codes:
        if runs and code == runs[-1][-1] + 1:
            runs[-1].append(code)
        else:
            runs.append([code])
    texts = [f"{run[0]} to {run[-1]}" if len(run) > 2 else ", ".join(map(str, run)) for run in runs]
    return f"codes {', '.join(texts)} are"


def _filled(classes: NDArray[np.uint8], entries: Mapping[str, Any]) -> NDArray[np.uint8]:
    """Holes take the class that stands for the rest of the brain, if there is one."""
    rest = [int(number) for number, codes in entries.items() if codes == "rest"]
    if rest:
        holes = filled(classes > 0) & (classes == 0)
        classes = np.where(holes, np.uint8(rest[0]), classes)
    return classes

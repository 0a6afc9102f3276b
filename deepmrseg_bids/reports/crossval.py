"""What a cross-validation found, to look at: box plots, volumes, cases and the paper's table."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from deepmrseg_bids.files import replacing, write_text
from deepmrseg_bids.imaging.grid import Array, Grid, resample
from deepmrseg_bids.imaging.labels import LabelTable
from deepmrseg_bids.imaging.nifti import read_labels, read_volume
from deepmrseg_bids.reports.figures import to_ras
from deepmrseg_bids.tasks.spec import TaskSpec
from deepmrseg_bids.train.comparison import Judged, compare, summaries
from deepmrseg_bids.train.config import TrainConfig
from deepmrseg_bids.train.crossval import CrossValidation
from deepmrseg_bids.train.evaluation import reference_labels
from deepmrseg_bids.train.samples import Sample

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["markdown_table", "write_report"]

_SCORES = {"f1": "F1 (Dice)", "f2": "F2", "bacc": "balanced accuracy"}
_SHOWN = {"deepmrseg": "DeepMRSeg", "unet": "UNet"}
_COLOURS = {"deepmrseg": "#0072b2", "unet": "#d55e00"}  # told apart without colour vision
_CUTS = 4  # a direction and case


def write_report(
    judged: Sequence[Judged], protocol: CrossValidation, samples: Sequence[Sample]
) -> list[Path]:
    """Write ``table.md``, a box plot a score, the volumes, and the best, median, worst case.

    Args:
        judged: the rows of all runs, as :func:`deepmrseg_bids.train.crossval.crossval` gives.
        samples: where the images of the cases are found.

    Returns:
        The files, all of them in ``protocol.out``.
    """
    folder = protocol.out / "figures"
    written = [protocol.out / "table.md"]
    write_text(written[0], markdown_table(judged))
    for score in _SCORES:
        written.append(folder / f"boxplot_{score}.png")
        _box_plots(judged, score, written[-1])
    written.append(folder / "volumes.png")
    _volume_plots(judged, written[-1])
    for network in protocol.networks:
        written.append(folder / f"cases_{network}.png")
        _cases(judged, network, protocol, samples, written[-1])
    return written


def markdown_table(judged: Sequence[Judged]) -> str:
    """The table of the paper: a structure a row, its networks side by side, mean (SD).

    Below it, for each structure, Wilcoxon's signed-rank test between the networks if there
    are two.
    """
    found = summaries(judged)
    networks = list(found)
    columns = [f"{score} {_SHOWN[n]}" for score in ("F1", "F2", "BACC", "CCC") for n in networks]
    lines = ["| structure | n | " + " | ".join(columns) + " |", "|" + " --- |" * (2 + len(columns))]
    for entries in zip(*found.values(), strict=True):
        cells = [
            f"{_number(entry[f'{score}_mean'])} ({_number(entry[f'{score}_sd'])})"
            for score in _SCORES
            for entry in entries
        ]
        cells += [_number(entry["ccc"]) for entry in entries]
        name, n = entries[0]["name"], entries[0]["n"]
        lines.append(f"| {name} | {n} | " + " | ".join(cells) + " |")
    if len(found[networks[0]]) > 1:
        keys = [f"{score}_mean" for score in _SCORES] + ["ccc"]
        means = [_number(_mean([e[key] for e in found[n]])) for key in keys for n in networks]
        lines.append("| mean | | " + " | ".join(means) + " |")
    if len(networks) == 2:
        first, second = networks
        lines += [
            "",
            (
                f"{_SHOWN[first]} compared with {_SHOWN[second]}, paired over samples "
                "(Wilcoxon's signed-rank test, p after Holm's correction over "
                "structures; r: rank-biserial correlation; dz: Cohen's):"
            ),
            "",
            "| structure | measure | n | mean difference | p | r | dz |",
            "|" + " --- |" * 7,
        ]
        for row in compare(judged, first, second):
            lines.append(
                f"| {row['name']} | {row['measure']} | {row['n']} | "
                f"{row['difference_mean']:+.4g} | {row['p_holm']:.2g} | "
                f"{row['rank_biserial']:+.2f} | {row['cohens_dz']:+.2f} |"
            )
    return "\n".join(lines) + "\n"


def _box_plots(judged: Sequence[Judged], score: str, path: Path) -> None:
    """A box a structure and network, over samples and repeats (figures 6 to 8 of the paper)."""
    from matplotlib.figure import Figure

    names, networks = _names(judged), _networks(judged)
    figure = Figure(figsize=(max(4.5, 0.55 * len(names) * len(networks) + 2), 4.5), dpi=150,
                    layout="constrained")  # fmt: skip
    axes = figure.subplots()
    for place, network in enumerate(networks):
        values = [
            [v for v in (getattr(row.row.agreement, score) for row in judged
                         if row.network == network and row.row.name == name) if math.isfinite(v)]
            for name in names
        ]  # fmt: skip
        offset = 0.36 * (place - (len(networks) - 1) / 2)
        boxes = axes.boxplot(
            values,
            positions=np.arange(len(names)) + offset,
            widths=0.3,
            patch_artist=True,
            showmeans=True,
            medianprops={"color": "black"},
            meanprops={"marker": "D", "markersize": 4, "markerfacecolor": "white",
                       "markeredgecolor": "black"},
            flierprops={"marker": ".", "markersize": 3},
        )  # fmt: skip
        for box in boxes["boxes"]:
            box.set_facecolor(_COLOURS[network])
            box.set_alpha(0.7)
        boxes["boxes"][0].set_label(_SHOWN[network])
    steep = len(names) > 4
    axes.set_xticks(range(len(names)), names, rotation=35 if steep else 0,
                    ha="right" if steep else "center")  # fmt: skip
    axes.set_ylabel(_SCORES[score])
    axes.set_ylim(top=1.0)
    axes.grid(axis="y", alpha=0.3)
    figure.legend(loc="outside upper center", ncols=len(networks))
    with replacing(path) as part:
        figure.savefig(part, format="png")


def _volume_plots(judged: Sequence[Judged], path: Path) -> None:
    """Found against reference volumes, a panel a structure (row) and network (column)."""
    from matplotlib.figure import Figure

    names, networks = _names(judged), _networks(judged)
    found = summaries(judged)
    figure = Figure(figsize=(3.6 * len(networks), 3.4 * len(names)), dpi=120,
                    layout="constrained")  # fmt: skip
    panels = figure.subplots(len(names), len(networks), squeeze=False)
    for row, name in enumerate(names):
        pairs = [one.row.agreement for one in judged if one.row.name == name]
        volumes = [v for a in pairs for v in (a.volume_mm3, a.reference_volume_mm3)]
        ends = (0.95 * min(volumes), 1.05 * max(max(volumes), 1.0))
        for column, network in enumerate(networks):
            axes = panels[row, column]
            own = [one.row.agreement for one in judged
                   if one.row.name == name and one.network == network]  # fmt: skip
            axes.plot(ends, ends, color="0.6", lw=1, zorder=0)
            axes.plot([a.reference_volume_mm3 for a in own], [a.volume_mm3 for a in own], "o",
                      ms=3, alpha=0.6, color=_COLOURS[network])  # fmt: skip
            ccc = next(e["ccc"] for e in found[network] if e["name"] == name)
            axes.set_title(f"{name}, {_SHOWN[network]}: CCC {_number(ccc)}", fontsize=9)
            axes.set(xlabel="reference volume, mm³", ylabel="predicted volume, mm³",
                     xlim=ends, ylim=ends, aspect="equal")  # fmt: skip
    with replacing(path) as part:
        figure.savefig(part, format="png")


def _cases(
    judged: Sequence[Judged],
    network: str,
    protocol: CrossValidation,
    samples: Sequence[Sample],
    path: Path,
) -> None:
    """The best, the median and the worst case by mean Dice, in the first repeat."""
    from matplotlib.figure import Figure

    own = [one for one in judged if one.network == network and one.repeat == 0]
    scores: dict[str, float] = {}
    for sample in dict.fromkeys(one.row.sample_id for one in own):
        scores[sample] = _mean([o.row.agreement.f1 for o in own if o.row.sample_id == sample])
    order = sorted((s for s in scores if math.isfinite(scores[s])), key=lambda s: -scores[s])
    if not order:
        return
    where = {one.row.sample_id: one.fold for one in own}
    by_name = {sample.sample_id: sample for sample in samples}
    chosen = {"best": order[0], "median": order[len(order) // 2], "worst": order[-1]}
    figure = Figure(figsize=(2 * _CUTS * 1.7, len(chosen) * 2.2), dpi=120, layout="constrained")
    panels = figure.subplots(len(chosen), 2 * _CUTS, squeeze=False)
    for row, (title, sample) in enumerate(chosen.items()):
        labels = protocol.out / "repeat-0" / f"fold-{where[sample]}" / network / "labels"
        _draw_case(list(panels[row]), by_name[sample], labels / f"{sample}.nii.gz",
                   protocol.config)  # fmt: skip
        panels[row, 0].set_title(f"{title}: {sample}, Dice {scores[sample]:.3f}", fontsize=9,
                                 loc="left")  # fmt: skip
    figure.suptitle(
        f"{_SHOWN[network]}: predicted (lines) and reference (dots); "
        f"{'axial' if _slices(protocol.config) else 'sagittal'}, then coronal "
        "slices",
        fontsize=9,
    )
    with replacing(path) as part:
        figure.savefig(part, format="png")


def _draw_case(axes: Sequence[Axes], sample: Sample, found: Path, config: TrainConfig) -> None:
    """Cuts of one sample in two directions with both label maps."""
    labels = read_labels(found)
    expected = reference_labels(sample, _task(config), config, _table(config))
    volume = read_volume(sample.images[_task(config).native])
    image = volume.data
    if volume.grid != labels.grid:
        image = resample(volume.data, volume.grid, labels.grid)
    ras = [to_ras(data, labels.grid) for data in (image, labels.data, expected.data)]
    (scan, grid), (mine, _), (theirs, _) = ras
    either = (mine > 0) | (theirs > 0)
    box = [_ends(either, axis, room=6) for axis in range(3)]
    part = tuple(slice(*ends) for ends in box)
    scan, mine, theirs, either = scan[part], mine[part], theirs[part], either[part]
    low, high = np.percentile(scan, (1, 99.5))
    colours = {label.index: label.color for label in _table(config)}
    for place, axis in enumerate((2, 1) if _slices(config) else (0, 1)):
        used = np.flatnonzero(either.any(axis=tuple(a for a in range(3) if a != axis)))
        cuts = np.linspace(used[0], used[-1], _CUTS + 2).round().astype(int)[1:-1]
        for panel, cut in zip(axes[place * _CUTS : (place + 1) * _CUTS], cuts, strict=True):
            panel.imshow(_slice(scan, axis, cut), cmap="gray", vmin=low, vmax=high,
                         origin="lower", aspect=_aspect(grid, axis))  # fmt: skip
            for index, colour in colours.items():
                for data, style in ((mine, "-"), (theirs, ":")):
                    mask = _slice(data == index, axis, cut).astype(float)
                    if mask.any():
                        panel.contour(mask, [0.5], colors=[colour], linewidths=1.1,
                                      linestyles=style)  # fmt: skip
            panel.set_axis_off()


def _slices(config: TrainConfig) -> bool:
    """Whether the network sees slices of a FLAIR."""
    return config.network.spatial_dims == 2


def _task(config: TrainConfig) -> TaskSpec:
    """The task that was trained for; of one's own, as its settings say."""
    from deepmrseg_bids.tasks.custom import unknown_task
    from deepmrseg_bids.tasks.registry import find_task, task_names

    if config.task in task_names():
        return find_task(config.task)
    return unknown_task(config.task, {"NativeImage": "FLAIR"} if _slices(config) else {})


def _table(config: TrainConfig) -> LabelTable:
    """The labels that are judged: those of the network, or the one that a mask has."""
    task = _task(config)
    return task.table if task.brain_mask and task.table else config.labels


def _slice(data: Array, axis: int, cut: int) -> Array:
    flat: Array = np.take(data, cut, axis=axis)
    return flat.T


def _aspect(grid: Grid, axis: int) -> float:
    across, up = (grid.spacing[a] for a in range(3) if a != axis)
    return float(up / across)


def _ends(mask: NDArray[np.bool_], axis: int, *, room: int) -> tuple[int, int]:
    used = np.flatnonzero(mask.any(axis=tuple(a for a in range(3) if a != axis)))
    if not used.size:
        return 0, mask.shape[axis]
    return max(0, int(used[0]) - room), min(mask.shape[axis], int(used[-1]) + room + 1)


def _names(judged: Sequence[Judged]) -> list[str]:
    return list(dict.fromkeys(one.row.name for one in judged))


def _networks(judged: Sequence[Judged]) -> list[str]:
    return list(dict.fromkeys(one.network for one in judged))


def _mean(values: Sequence[float]) -> float:
    kept = [value for value in values if math.isfinite(value)]
    return float(np.mean(kept)) if kept else math.nan


def _number(value: Any) -> str:
    return f"{value:.3f}" if value is not None and math.isfinite(value) else "n/a"

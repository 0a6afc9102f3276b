"""The group report, ``group.html``: an overview of all sessions."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from deepmrseg_bids.bids.description import raw_folder, read_description
from deepmrseg_bids.bids.names import mosaic_path
from deepmrseg_bids.bids.ratings import RATING_COLUMNS, Rating
from deepmrseg_bids.files import write_bytes
from deepmrseg_bids.findings import CODES
from deepmrseg_bids.metrics.cohort import FEWEST
from deepmrseg_bids.reports.group.data import Cohort, payload, readable, titled
from deepmrseg_bids.reports.group.mosaic import COLUMNS, EDGE, Tile
from deepmrseg_bids.reports.guide import GROUP
from deepmrseg_bids.reports.page import packed, render_page
from deepmrseg_bids.tasks.registry import find_task, task_names

__all__ = ["write_group_report"]


def write_group_report(
    path: Path,
    cohort: Cohort,
    *,
    titles: Mapping[str, str] | None = None,
    command: str,
    mosaics: Mapping[str, Sequence[Tile]] | None = None,
    problems: Sequence[str] | None = None,
    version: str | None = None,
) -> None:
    """Write the report, in one step; the same values give the same bytes.

    Args:
        titles: of the tasks; those of the known ones unless given.
        command: the command line that was run.
        problems: what could not be used, one line each; those of the cohort unless given.
        mosaics: by task, the position of each session's picture.
        version: that of this package, unless given.
    """
    if titles is None:
        titles = {name: find_task(name).title for name in task_names()}
    data = payload(cohort) | {
        "titles": titles,
        "codes": CODES,
        "fewest": FEWEST,
        "ratings": [_row(one) for one in cohort.ratings],
        "mosaics": {task: _mosaic(task, tiles) for task, tiles in (mosaics or {}).items()},
    }
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    values = {} if version is None else {"version": version}
    page = render_page(
        "group.html.j2",
        scripts=["ratings.js", "cohort.js", "charts.js", "group.js"],
        libraries=["echarts"],
        beside=True,
        cohort=cohort,
        rating_columns=RATING_COLUMNS,
        guide=GROUP,
        problems=cohort.problems if problems is None else problems,
        titles=titles,
        codes=CODES,
        fewest=FEWEST,
        mosaics=sorted(data["mosaics"]),
        command=command,
        dataset=_dataset(path.parent),
        titled=titled,
        readable=readable,
        # what no UTF-8 can say becomes a question mark, as in the rest of the page
        data=packed(text.encode("utf-8", "replace")),
        **values,
    )
    write_bytes(path, page, anew=True)


def _dataset(out_dir: Path) -> str:
    """The name of the raw data set, where that is on this disk."""
    raw = raw_folder(out_dir)
    name = read_description(raw).get("Name") if raw else None
    return name if isinstance(name, str) else ""


def _row(one: Rating) -> dict[str, str]:
    """A rating as a row of ``ratings.tsv``."""
    who, when = one.session
    values = (who, when, one.task, one.rating, one.comment, one.rater, one.time)
    return dict(zip(RATING_COLUMNS, values, strict=True))


def _mosaic(task: str, tiles: Sequence[Tile]) -> dict[str, object]:
    sheets = {tile.sheet: str(mosaic_path(task, tile.sheet)) for tile in tiles}
    return {
        "columns": COLUMNS,
        "edge": EDGE,
        "sheets": sheets,
        "tiles": [[tile.session, tile.sheet, tile.place, tile.problem] for tile in tiles],
    }

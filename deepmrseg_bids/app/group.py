"""The group level: one table a task over all sessions."""

from __future__ import annotations

import logging

from deepmrseg_bids.bids.query import check_output_dir
from deepmrseg_bids.bids.tables import group_morph
from deepmrseg_bids.config import TASKS, RunConfig
from deepmrseg_bids.errors import DatasetError

__all__ = ["run_group"]

_log = logging.getLogger("deepmrseg-bids")


def run_group(config: RunConfig) -> int:
    """Write ``group_seg-<task>_morph.tsv`` for every task with results.

    Returns:
        0 if every result entered a table, 3 if some could not be read, 4 if there are none.

    Raises:
        DatasetError: OUT_DIR does not exist, or cannot be used.
    """
    if not config.out_dir.is_dir():
        raise DatasetError(
            f"{config.out_dir}: no such folder; run the participant level into it first"
        )
    check_output_dir(config.bids_dir, config.out_dir)
    written = problems = 0
    for task in config.tasks or TASKS:
        try:
            table = group_morph(config.out_dir, config.bids_dir, task)
        except DatasetError as error:
            _log.log(logging.WARNING if config.tasks else logging.DEBUG, "%s", error)
            continue
        for problem in table.problems:
            _log.warning("%s: %s", task, problem)
        problems += len(table.problems)
        if table.sessions:
            written += 1
            _log.info("%s: %d sessions", table.path, table.sessions)
    if not written:
        _log.error("%s holds no results: run the participant level first", config.out_dir)
        return 4
    return 3 if problems else 0

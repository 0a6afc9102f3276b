"""Run a nipype workflow so that it leaves nothing outside its folders and asks no network."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

from deepmrseg_bids.app.progress import Progress

__all__ = ["execute", "prepare_nipype"]

_log = logging.getLogger("deepmrseg-bids")


def prepare_nipype(folder: Path) -> None:
    """To be called before nipype is imported: no home directory, no usage statistics."""
    os.environ["NO_ET"] = os.environ["NIPYPE_NO_ET"] = "1"
    os.environ["NIPYPE_CONFIG_DIR"] = str(folder)


def execute(workflow: Any, *, work: Path, logs: Path, nprocs: int, progress: Progress) -> None:
    """Run every node; a node that crashes leaves a file in ``logs`` and does not stop others.

    One process works in this one, several in workers of their own.
    """
    from nipype import config as nipype_config
    from nipype import logging as nipype_logging

    nipype_config.update_config(
        {
            "execution": {
                "crashdump_dir": str(logs),
                "crashfile_format": "txt",
                "stop_on_first_crash": "false",
                "remove_unnecessary_outputs": "false",
                "keep_inputs": "true",
                "create_report": "false",
                "check_version": "false",
                "poll_sleep_duration": "0.2",
            },
            "logging": {"workflow_level": "WARNING", "interface_level": "WARNING"},
        }
    )
    nipype_logging.update_logging(nipype_config)
    workflow.base_dir = str(work)
    arguments: dict[str, Any] = {"status_callback": progress}
    if nprocs > 1 and progress.sessions > 1:
        arguments |= {
            "n_procs": nprocs,
            "raise_insufficient": False,
            "mp_context": "forkserver",
        }
        plugin = "MultiProc"
    else:
        plugin = "Linear"
    try:
        workflow.run(plugin=plugin, plugin_args=arguments)
    except RuntimeError as error:  # nipype's summary of nodes that crashed
        _log.error("%s", error)

"""Run a nipype workflow so that it leaves nothing outside its folders and asks no network."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

from deepmrseg_bids.app.progress import Progress

__all__ = ["execute", "prepare_nipype"]

_log = logging.getLogger("deepmrseg-bids")


_SETTINGS = """\
[execution]
stop_on_first_crash = false
crashfile_format = txt
remove_unnecessary_outputs = false
keep_inputs = true
create_report = false
check_version = false
poll_sleep_duration = 0.1

[logging]
workflow_level = ERROR
utils_level = ERROR
interface_level = ERROR
"""


def prepare_nipype(folder: Path) -> None:
    """Settle nipype's settings, for this process and its workers, before it is imported.

    They lie in ``folder``, not in the home directory; no usage statistics are sent.
    """
    os.environ["NO_ET"] = os.environ["NIPYPE_NO_ET"] = "1"
    os.environ["NIPYPE_CONFIG_DIR"] = str(folder)
    (folder / "nipype.cfg").write_text(_SETTINGS, encoding="utf-8")


def execute(workflow: Any, *, work: Path, logs: Path, nprocs: int, progress: Progress) -> None:
    """Run every node; a node that crashes leaves a file in ``logs`` and does not stop others.

    One process works in this one, several in workers of their own.
    """
    workflow.config["execution"]["crashdump_dir"] = str(logs)
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

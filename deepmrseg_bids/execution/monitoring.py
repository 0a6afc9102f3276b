"""What nipype can tell about a run: the graph of its nodes, and what they took."""

from __future__ import annotations

import logging
import shutil
import subprocess
from pathlib import Path
from typing import Any

__all__ = ["draw_graph", "record_resources"]

_log = logging.getLogger("deepmrseg-bids")


def draw_graph(workflow: Any, base: Path) -> None:
    """Write ``<base>.dot``, and ``<base>.svg`` where Graphviz is installed."""
    dot = base.parent / f"{base.name}.dot"
    workflow.write_hierarchical_dotfile(dotfilename=str(dot), colored=True)
    drawer = shutil.which("dot")
    if drawer is None:
        _log.info("%s: to see it, install Graphviz and run dot -Tsvg on it", dot)
        return
    picture = base.parent / f"{base.name}.svg"
    ended = subprocess.run(
        [drawer, "-Tsvg", "-o", picture, dot], capture_output=True, text=True, check=False
    )
    if ended.returncode:
        _log.warning("%s: cannot be drawn (%s)", dot, ended.stderr.strip())


def record_resources(path: Path) -> None:
    """Let nipype add what each node took to one JSON file: time, processors, memory.

    Its monitor must have been turned on before (:func:`.execute.prepare_nipype`).
    """
    from nipype import config

    config.set("monitoring", "summary_file", str(path))
    config.set("monitoring", "summary_append", "true")

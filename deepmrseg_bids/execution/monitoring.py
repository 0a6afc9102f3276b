"""What nipype can tell about a run: the graph of its nodes, and what they took."""

from __future__ import annotations

import logging
import shutil
import subprocess
from pathlib import Path
from typing import Any

__all__ = ["add_resources", "draw_graph", "record_resources"]

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
    """Choose the JSON file that receives what each node took: time, processors, memory.

    nipype's monitor must have been turned on before (:func:`.runner.prepare_nipype`).
    """
    from nipype import config

    config.set("monitoring", "summary_file", str(path))
    config.set("monitoring", "summary_append", "true")


def add_resources(graph: Any) -> None:
    """Add what the nodes of a graph took to that file, if nipype's monitor is on."""
    from nipype import config
    from nipype.pipeline.engine.utils import write_workflow_resources

    if config.resource_monitor:
        write_workflow_resources(graph)

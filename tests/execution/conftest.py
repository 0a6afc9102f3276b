"""nipype with settings of its own, and no crash files of nodes that are none of nipype's."""

import logging
import os

import pytest

from deepmrseg_bids.execution.runner import prepare_nipype


@pytest.fixture
def nipype(tmp_path, monkeypatch):
    """nipype's settings in a temporary folder; the crashes that were to be reported."""
    before = dict(os.environ)
    prepare_nipype(tmp_path)
    from nipype.pipeline.plugins import tools

    crashes = []
    monkeypatch.setattr(tools, "report_crash", lambda node, traceback: crashes.append(node))
    yield crashes
    os.environ.clear()
    os.environ.update(before)
    logging.getLogger("nipype").handlers.clear()

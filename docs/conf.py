"""How Sphinx builds these pages into a site: ``make docs``."""

from __future__ import annotations

from deepmrseg_bids import __version__

project = "deepmrseg-bids"
author = "The deepmrseg-bids developers"
copyright = author  # noqa: A001
version = release = __version__

extensions = ["myst_parser"]
myst_heading_anchors = 4  # pages link to headings as they do where the files are read raw

html_theme = "furo"
html_title = f"deepmrseg-bids {__version__}"
html_show_copyright = False
# pages are read offline too: nothing comes from another host
html_copy_source = False
html_show_sourcelink = False

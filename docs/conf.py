"""How `make site` turns these pages into a folder that any static host serves; nothing on it is loaded from a
network.
"""

project = "lossbench"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.viewcode"]
html_theme = "furo"
html_title = "lossbench"
html_copy_source = False
# Files of the repository that pages point to are copied; folders cannot be, and stay plain links.
suppress_warnings = ["myst.xref_missing", "myst.header", "misc.highlighting_failure", "docutils"]
myst_heading_anchors = 3
autodoc_member_order = "bysource"
autodoc_typehints = "description"

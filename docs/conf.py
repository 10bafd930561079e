"""How `make site` turns these pages into a folder that any static host serves; nothing on it is loaded from a
network.
"""

import shutil
from pathlib import Path

DOCS = Path(__file__).parent
# Sphinx reads what lies below its own folder. The notebooks are shown with the outputs that they hold.
shutil.copytree(DOCS.parent / "notebooks", DOCS / "notebooks", dirs_exist_ok=True)

project = "lossbench"
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.viewcode"]
html_theme = "furo"
html_title = "lossbench"
html_copy_source = False
# Files of the repository that pages point to are copied; folders cannot be, and stay plain links.
suppress_warnings = ["myst.xref_missing", "myst.header", "misc.highlighting_failure", "docutils"]
myst_heading_anchors = 3
nb_execution_mode = "off"
autodoc_member_order = "bysource"
autodoc_typehints = "description"

"""How Sphinx makes the documentation: `make docs`."""

from __future__ import annotations

import re
from pathlib import Path

from vethlib import __version__

project = "vethlib"
author = "The vethlib developers"
copyright = "The vethlib developers"
version = release = __version__

extensions = ["sphinx.ext.autodoc", "myst_parser"]
exclude_patterns = ["generate.py"]
html_theme = "furo"
html_title = f"vethlib {version}"
html_show_copyright = False
html_copy_source = False

myst_heading_anchors = 3
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 100
# Languages of fenced blocks that Pygments does not know are shown plain.
suppress_warnings = ["misc.highlighting_failure"]

_DOCS = Path(__file__).parent


def setup(app):  # type: ignore[no-untyped-def]
    """Called by Sphinx."""
    app.connect("source-read", _without_links_out)


def _without_links_out(_app: object, docname: str, source: list[str]) -> None:
    """Files of the repository beside docs/ are not among the pages: a link to one becomes its text."""

    def plain(match: re.Match[str]) -> str:
        target = (_DOCS / docname).parent / match[2].partition("#")[0]
        return match[0] if match[2].startswith("#") or target.resolve().is_relative_to(_DOCS) else match[1]

    source[0] = re.sub(r"(?<!!)\[([^\]]+)\]\(((?!https?:)[^)\s]+)\)", plain, source[0])

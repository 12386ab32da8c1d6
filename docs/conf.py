"""How Sphinx makes the documentation: `make docs`."""

from __future__ import annotations

import re
from pathlib import Path

from sphinx.util.nodes import make_refnode

import vethlib
import vethlib.agent

project = "vethlib"
author = "The vethlib developers"
version = release = vethlib.__version__

extensions = ["sphinx.ext.autodoc", "myst_parser"]
exclude_patterns = ["generate.py"]
html_theme = "furo"
html_title = f"vethlib {version}"
html_show_copyright = False
html_copy_source = False

myst_heading_anchors = 3
default_role = "code"  # `name` in a docstring
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 100
# Languages of fenced blocks that Pygments does not know are shown plain.
suppress_warnings = ["misc.highlighting_failure"]

# What a docstring refers to is documented, or is another package's.
nitpicky = True
nitpick_ignore_regex = [
    (r"py:.*", r"(collections|concurrent|contextlib|ipaddress|json|os|pytest|select|socket|subprocess)\..*"),
]

# What is imported when it is asked for is asked for, so that autodoc finds it among a module's own names.
for module in (vethlib, vethlib.agent):
    vars(module).update({name: getattr(module, name) for name in module.__all__})

_DOCS = Path(__file__).parent
_CONTENTS = {
    "Get started": ("tutorial",),
    "How-to guides": ("pytest-netns", "how-to/*"),
    "Explanation": ("explanation/*",),
    "Reference": ("reference/*", "reference/api/*"),
}


def setup(app):  # type: ignore[no-untyped-def]
    """Called by Sphinx."""
    app.connect("source-read", _arrange)
    app.connect("missing-reference", _find_elsewhere)
    app.connect("autodoc-process-docstring", _show_examples)


def _arrange(_app: object, docname: str, source: list[str]) -> None:
    """Make of a page that is read where it is one among Sphinx's.

    Files of the repository beside docs/ are not among the pages: a link to one becomes its text. That links lead
    somewhere is what tests/unit/test_docs_links.py sees to.
    """

    def plain(match: re.Match[str]) -> str:
        target = ((_DOCS / docname).parent / match[2].partition("#")[0]).resolve()
        kept = match[2].startswith("#") or (target.is_relative_to(_DOCS) and target.exists())
        return match[0] if kept else match[1]

    source[0] = re.sub(r"(?<!!)\[([^\]]+)\]\(((?!https?:)[^)\s]+)\)", plain, source[0])
    if docname == "index":
        for caption, pages in _CONTENTS.items():
            source[0] += "\n\n```{toctree}\n:hidden:\n:glob:\n:caption: " + "\n".join([caption, "", *pages, "```"])


def _show_examples(_app: object, _what: str, _name: str, _object: object, _options: object, lines: list[str]) -> None:
    """What a docstring indents is an example."""
    shown: list[str] = []
    told = ""  # the last line that is not indented
    for at, line in enumerate(lines):
        if line.startswith("    ") and (not at or not lines[at - 1]) and told and not told.startswith(("-", "*", "::")):
            shown += ["::", ""]
            told = "::"
        elif line and not line.startswith(" "):
            told = line
        shown.append(line)
    lines[:] = shown


def _find_elsewhere(app, env, node, content):  # type: ignore[no-untyped-def]
    """A name that is documented in another module than what mentions it, which imports it.

    Of a signature it may also be the name of what only types are made of: that is text.
    """
    if node.get("refdomain") != "py":
        return None
    name = node["reftarget"].rpartition(".")[2]
    found = [one for one in env.domains["py"].objects if one.rpartition(".")[2] == name]
    if not found:
        return None if "docstring of" in (node.source or "") else content
    entry = env.domains["py"].objects[min(found, key=len)]
    return make_refnode(app.builder, node["refdoc"], entry.docname, entry.node_id, content, name)

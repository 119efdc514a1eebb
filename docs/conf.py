"""Sphinx configuration."""

from funlens._version import __version__

project = "funlens"
author = "funlens contributors"
copyright = author
version = release = __version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
]
# No intersphinx: the documentation builds offline.

exclude_patterns = ["_build"]
html_theme = "furo"
html_title = "funlens"

myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3

add_module_names = False
maximum_signature_line_length = 72
python_display_short_literal_types = True
autodoc_default_options = {"members": True}
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
# An attrs class lists its fields once, under the class.
napoleon_use_ivar = True

# `-n` reports every reference that leads nowhere. Types that are not ours lead nowhere
# without intersphinx; names of funlens must always resolve.
nitpick_ignore_regex = [(r"py:.*", r"(?!funlens\.).*")]

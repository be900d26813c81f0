"""Sphinx settings of the documentation: ``make docs``."""

import fxkd  # noqa: F401 (autodoc reads it; where it is missing the build should end here)

project = "fxkd"
author = "The fxkd authors"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build", "silent-failures.md"]  # the table is included by how-it-works.md

html_theme = "furo"
html_title = "fxkd"
html_copy_source = False

myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 100
python_use_unqualified_type_names = True

# Names of torch, networkx and Python are not looked up: a build needs no network. Those of fxkd must be there, but for
# what a signature mentions and no user needs.
INSIDE = """
    fxkd.capture.captured.PointName fxkd.passes.join.Side fxkd.registry.ModuleClass fxkd.algorithms.AlgorithmClass
    fxkd.recipes._registry.Recipe
"""
nitpick_ignore_regex = [("py:.*", r"(?!fxkd).*")]
nitpick_ignore = [("py:class", name) for name in INSIDE.split()]

MADE_BY_FUNCTIONS = {"fxkd.Distiller", "fxkd.listing.PointTable", "fxkd.record.Recorded"}


def without_arguments(app, what, name, obj, options, signature, returned):
    """Leave out the arguments of classes that nobody makes by hand, and those that are too long to be read."""
    return ("", returned) if name in MADE_BY_FUNCTIONS or "<factory>" in (signature or "") else None


def setup(app):
    app.connect("autodoc-process-signature", without_arguments)

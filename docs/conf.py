"""Sphinx configuration: ``pip install '.[docs]' && sphinx-build docs docs/_build``."""

project = "oodbench"
author = "The oodbench developers"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
html_theme = "furo"
exclude_patterns = ["_build"]

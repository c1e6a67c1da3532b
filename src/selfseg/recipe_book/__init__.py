"""Recipes: one function per run, one file per method.

Each docstring gives the paper's number, ours, hours and the command. They are found by name through the entry points
of pyproject.toml (`selfseg.recipes()`, `selfseg train NAME`), as those of other packages are.
"""

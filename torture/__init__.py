"""Attempts to break selfseg, one module of `torture.parts` for each promise of docs/trust.md; `make torture` runs them.

Each module NAME of `parts` has a constant PROMISE, a sentence, and a function `run(work, quick)` that gives rows.
"""

"""From clusters to a named segmenter: what a person decides about a collection, and what follows from it.

Begin at `decisions`, the log of what a person decided; `audit` tells how good the result is, `carrying` takes decisions
over to another run.
"""

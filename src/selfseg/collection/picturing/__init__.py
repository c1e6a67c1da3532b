"""The papers' pictures of a run as pages.

`probabilities` has those of each prototype at each pixel, `film` how the embedding came about, from the checkpoints
that were kept.
"""

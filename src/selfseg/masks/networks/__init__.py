"""Networks that learn masks from the priors.

`pseudo` goes from priors to networks in rounds, `learning` trains one, `network` and `losses` are theirs, `vit` reads
objects out of a trained transformer.
"""

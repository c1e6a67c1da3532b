"""Masks by what networks see.

`features` is the default of the verb: what the foregrounds of a collection have in common for a pretrained network. Of
the networks that learn from the priors, `pseudo` goes from priors to networks in rounds, `learning` trains one,
`network` and `losses` are theirs; `vit` reads objects out of a trained transformer.
"""

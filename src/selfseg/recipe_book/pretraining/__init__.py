"""Recipes of the methods of `selfseg.methods.pretraining`, one file per method."""

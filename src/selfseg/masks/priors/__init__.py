"""Saliency without learning: a file for each published prior, `by_name` for all of them.

`scene` is what they share: an image as superpixels and their graph.
"""

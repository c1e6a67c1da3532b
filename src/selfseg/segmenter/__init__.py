"""A named segmenter: images to masks of classes that a person named. The product of the studio and of `selfseg name`.

Begin at `segmenter`: the module, which is an embedder and a linear classifier with names and colours. `naming` makes
one from a run's clusters, `applying` runs one on a folder of images, `cards` is the text beside one.
"""

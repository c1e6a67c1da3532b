"""Pure functions on tensors and arrays: no files, no devices of their own, no state.

`geometry` (affine maps between a view and its image), `channels` and `levels` (images of measured values, any number of
channels), `kmeans`, `matching`, `pca`, `crf`, `linear` (float32 products), `resized_argmax`; `regions/` has superpixels
and pooling, `objectives/` the losses and equal assignment. What is compiled (numba, torch, Triton) lies in `kernels/`
and is only called from here.
"""

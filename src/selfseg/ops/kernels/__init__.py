"""Compiled forms of what `selfseg.ops` offers: numba for the CPU, torch and Triton for a GPU.

A file is named for the function that it serves and where it runs (`slic_cpu`, `slic_cuda`). Nothing outside of `ops`
calls them but the confusion matrix and the saliency priors, which have theirs here. Each is imported on its first call.
"""

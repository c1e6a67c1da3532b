"""Masks of what stands out in each image, without labels.

Begin at `mining`, the verb: a map for each image from `priors/` (one file per saliency prior), from `proposals`
(several objects) or from what `sources` opens (`networks/`: features, networks that learn from the priors, a ViT's
attention); `cleaning` cuts the map, `writing` keeps the folder, `quality` measures against labels; `edges` sharpens a
network's map.
"""

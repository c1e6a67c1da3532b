"""Mining object masks without labels: hand-crafted saliency priors, post-processing, quality, folders of masks."""

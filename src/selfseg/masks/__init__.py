"""Object masks without labels: saliency priors, proposals, networks that learn from them, quality, folders of masks."""

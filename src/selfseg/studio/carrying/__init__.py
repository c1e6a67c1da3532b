"""Decisions that outlive what they were made on: images that moved, other superpixels, another k, another run.

Begin at `over`, which takes a whole log to another run and reports what no longer fits. `images` finds images again by
their content, `labels` takes over what a person has labelled elsewhere, `clusterings` tells one clustering from another
and keeps a copy of each that was decided about, `votes` finds for each new cluster what most of its pixels were called.
"""

from selfseg.studio.carrying.clusterings import keep_names, remember
from selfseg.studio.carrying.images import ImageFinder
from selfseg.studio.carrying.labels import LabelReport, take_labels
from selfseg.studio.carrying.over import Report, carry_over

__all__ = ["ImageFinder", "LabelReport", "Report", "carry_over", "keep_names", "remember", "take_labels"]

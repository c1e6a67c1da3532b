"""One file for each thing that is measured; a new protocol goes here (docs/protocols.md, "A further protocol").

`clusters`, `linear`, `prototypes` (of a frozen embedding), `objects` with `object_vectors` (clusters of objects and
retrieval), `few_labels` with `contenders` (the curve), `transfer` with `segmentation`, `detection` and `coco`.
"""

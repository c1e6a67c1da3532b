"""One file for each way to cut views out of an image.

`base` has the contract `ViewPlan` that all keep; `content_centred` (ViCE), `overlapping_crops` (SlotCon),
`object_crops` (MaskContrast), `random_crops` (the baselines). `augment` changes colours, blur and noise: a new
augmentation goes there, and its setting into the plans that use it. `plans` lists the plans by name, `settings` checks
their settings.
"""

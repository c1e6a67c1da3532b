"""One file for each way to cut views out of an image.

`content_centred` (ViCE, and the contract `ViewPlan` that all keep), `overlapping_crops` (SlotCon), `object_crops`
(MaskContrast), `random_crops` (the baselines). `augment` changes colours, blur and noise: a new augmentation goes
there. `plans` lists the plans by name, `settings` checks their settings.
"""

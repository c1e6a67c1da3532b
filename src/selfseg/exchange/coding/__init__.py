"""Masks as runs of equal pixels, in the two forms that tools write into JSON.

`runs` finds them, for all classes of an image at once; `coco_rle` is COCO's text, `brush_rle` Label Studio's bytes.
"""

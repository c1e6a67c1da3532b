"""Regions of an image: `slic` makes superpixels, `superpixel_quality` judges them, `pool_regions` takes their means.

`smoothing` lets a map's like neighbours agree. Region ids are whole numbers per pixel; -1 is none. Begin with
`slic.slic`.
"""

"""From a file to pixels, (H, W, 3) uint8 RGB.

`images` lists a folder and reads one image, `ahead` reads many in threads; `decoding` knows every kind of file and what
can be wrong with it, `shards` and `slices` read images out of tar files.
"""

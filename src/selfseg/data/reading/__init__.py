"""From a file to pixels: (H, W, 3) uint8 RGB of a photograph, or as many channels as were measured.

`images` reads one image and holds a collection, `listing` finds files, `skipping` counts the bad ones, `ahead` reads
many in threads. `decoding` knows every kind of photograph and what can be wrong with it, `formats` the files of
measured values (TIFF, Zarr, NPY, DICOM); `shards`, `zips` and `slices` read images out of archives.
"""

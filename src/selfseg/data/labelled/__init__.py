"""Data sets with labels.

`catalog` takes NAME:ROOT apart and opens a data set, `labels` reads label files and maps their ids to classes,
`mask_files` reads folders of masks from any tool, and `datasets/` has a file for each published layout.
"""

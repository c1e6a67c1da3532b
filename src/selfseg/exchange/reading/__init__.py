"""Masks that other tools wrote, read back: a file for each format.

Begin at `recognise.read_any`. A reader gives the classes at once and the masks one by one. It finds its files through
`files.Tree`, which is a folder, a zip or a single file; `photographs` says which image a name in them means, and
`painting` lays objects on each other. What a file says is never trusted: names don't lead out of the folder, sizes are
bounded before memory is taken, and whatever can't be used is refused with file, image, object and reason.
"""

"""Named masks into the files of other tools.

Begin at `writer`: what a format does with each mask. `together` goes over the masks once for all formats, `places` are
the folders and zips that are there whole or not at all, `names` what files and labels are called there. Every other
file is a format, written from its description.
"""

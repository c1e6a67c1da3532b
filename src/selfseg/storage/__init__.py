"""What lies on disk, and how it gets there whole.

`files` writes atomically, locks and marks folders; `checkpoint` is the folder that appears in one rename; `hashes` says
when two runs learn the same. Begin with `files.write_atomically`.
"""

"""Data where it is: URLs (`s3://`, `gs://`, `https://` and what else fsspec opens) wherever a path may be given.

`urls` tells what a URL is, `connecting` asks servers with patience, `cache` keeps files that were fetched, `mirroring`
has local copies of folders that are written, `snapshots` of those that are read, and `places` puts them in the place of
a function's URLs: begin there.
Nothing here is imported before a URL is met, but `urls` and `places`, which import nothing.
"""

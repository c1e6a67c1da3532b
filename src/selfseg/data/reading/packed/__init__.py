"""Images that lie packed in one file, read where they are: `zips`; tar files are in `selfseg.data.reading.shards`."""

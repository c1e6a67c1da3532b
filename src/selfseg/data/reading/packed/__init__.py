"""Images that lie packed in one file, read where they are: `zips`. (Tar files are in `selfseg.data.reading.shards`.)"""

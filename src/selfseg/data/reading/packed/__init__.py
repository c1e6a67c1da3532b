"""Images that lie packed in one file, read where they are: in `zips` and in tar `shards`."""

"""Who does the work of a verb that goes through a collection: this process, local processes, or a Ray cluster.

A verb says what is done with a shard of the images (`Job`), and puts together what comes back. Whoever works, the files
are the same to the byte: what is made of an image depends on the image alone, and its number in the collection.
"""

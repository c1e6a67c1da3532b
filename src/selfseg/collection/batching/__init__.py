"""Images of one size looked at together, as a GPU likes it.

`room` decides how many, by what was asked for or by the memory that is free; `together` puts them together out of a
stream and gives what comes of each in the stream's order. Begin with `Batching`.
"""

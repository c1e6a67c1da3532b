"""From files to batches of views.

`reading/` turns a file into pixels, `labelled/` knows data sets and their labels, `views/` has one file for each way to
cut views; `regions` gives them their region ids, and `loader` draws, in an order that is a function of the seed, and
makes batches. Begin with `loader`.
"""

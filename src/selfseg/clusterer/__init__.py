"""The whole way from images to clusters as one object.

Begin with `estimator`; `places` gives images that are no files a place that a training can read.
"""

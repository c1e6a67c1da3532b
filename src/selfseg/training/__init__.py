"""Training of a method on a collection, by a recipe.

`recipe` is everything that a run is made of, `loop` the training itself; `image_list` keeps a run to its images,
`plain` writes dataclasses and reads them strictly, `optimizer`, `precision`, `log`, `schedule`, `processes` serve the
loop, `doctor` tries all of it on this machine. Begin with `loop.train`.
"""

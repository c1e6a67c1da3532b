"""A trained run on a folder of images: load, embed, cluster, segment, and what was found.

One file for each verb: `embedding`, `clustering`, `segmenting`, `concepts`, and `check` for a data set; `reporting/`
makes the page that shows a run. Beneath them `opening` finds run and images, `streaming` reads ahead and embeds, and
`clusters` are what a run has found.
"""

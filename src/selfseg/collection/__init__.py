"""A trained run on a folder of images: load, embed, cluster, segment, and what was found.

`inference` has the verbs, `streaming` reads ahead and embeds, `clusters` are a run's, `concepts` is what each finds;
`report` gathers the page that shows a run, with `facts`, `health` (is it learning?) and `what_it_sees`; `check` looks
whether a data set is whole.
"""

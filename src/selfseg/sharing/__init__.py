"""A model as a folder that can be shared, and the Hugging Face hub, where it can be put and fetched by name.

Begin at `model`: the three methods that embedders and segmenters have. `card` is the text that goes with a model,
`files` what is believed of a stranger's folder and what must not leave this machine, `hub` the requests.
"""

"""Networks: the embedder, which is what is kept of a training, and its parts.

`embedder` is made of a backbone (`backbones`, by timm) and a decoder (`decoders`), as `embedder_config` says; `start`
gives the backbone its initial weights, from files of other projects through `checkpoints`. `heads`, `twin` (student and
teacher), `queue` and `distributed` are what methods add while they train; `prototypes` lie beside a run's embedder.
"""

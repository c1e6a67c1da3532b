"""Networks: the embedder (the product), its backbones and decoders, and what methods add during training."""

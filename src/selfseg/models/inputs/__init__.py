"""What an embedder takes in: images of any kind, and weights for RGB where there are other channels."""

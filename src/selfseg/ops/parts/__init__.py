"""Points that lie in parts, in files: what is done with each, and k-means of all."""

"""What a run has learned, in the files of other projects. The room isn't called `export` as the public function is.

Begin at `export`: it finds the format's `Exporter`, which writes and reads back. `targets` are backbones by other
projects' names, `onnx_graph` the embedder as a graph, `cards` the text beside each file.
"""

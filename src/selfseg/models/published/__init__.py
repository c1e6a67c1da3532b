"""Published weights: files of other projects, read without running anything that is in them.

`files` reads a file's tensors and tells what else it holds; where torch's reader refuses one because it holds objects,
`inert` reads it as data. `whole` makes an embedder of a file that holds more than a backbone: the decoder or head that
stands on it, and prototypes; `importing` writes it as a run, which every verb takes. Which copy of a backbone a project
keeps and how it calls its tensors is one floor up, in `selfseg.models.checkpoints`.
"""

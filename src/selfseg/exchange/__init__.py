"""Named masks in the files of other tools, and back.

Begin at `base`: the masks, the list of formats, `write`, `write_formats` and `read`. Each format is a file in `writing`
and one in `reading`.
"""

from selfseg.exchange.applied import write_applied
from selfseg.exchange.base import FORMATS, Format, NamedMask, find_format, read, write, write_formats
from selfseg.exchange.labelled_folder import LabelledFolder, to_labelled_folder

__all__ = [
    "FORMATS",
    "Format",
    "LabelledFolder",
    "NamedMask",
    "find_format",
    "read",
    "to_labelled_folder",
    "write",
    "write_applied",
    "write_formats",
]

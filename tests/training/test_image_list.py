"""The images of a run, as it keeps them."""

import os
import shutil
from pathlib import Path

from selfseg.data.reading.listing import list_images
from selfseg.training.image_list import names_hash


def test_names_that_are_no_utf_8_have_a_digest(photos: Path) -> None:
    """Training ended at its start."""
    before = names_hash(list_images(photos))
    shutil.copy(photos / "photo0.jpg", photos / os.fsdecode(b"caf\xe9.jpg"))
    one = names_hash(list_images(photos))
    (photos / os.fsdecode(b"caf\xe9.jpg")).rename(photos / os.fsdecode(b"caf\xe8.jpg"))
    assert len({before, one, names_hash(list_images(photos))}) == 3

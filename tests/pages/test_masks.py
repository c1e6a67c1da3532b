from __future__ import annotations

from pathlib import Path

import numpy as np

from selfseg.masks.cleaning import Cleaning, clean, clean_objects
from selfseg.pages.masks import REASONS, mask_card, write_masks_page

NOTE = {
    "how": {"method": "rbd"},
    "images": "photos",
    "count": 3,
    "kept": 1,
    "objects": 2,
    "rejected": 1,
    "skipped": 1,
    "reasons": {"empty": 1},
    "mean_share": 0.25,
    "quality": None,
    "skipped_images": [{"name": "<cut>", "reason": "truncated"}],
}


def picture() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (600, 800, 3), np.uint8)


def test_a_card_shows_the_objects_in_colour_and_the_rest_in_gray() -> None:
    image, ids = picture(), np.full((600, 800), -1, np.int32)
    ids[100:300, 100:300], ids[100:300, 300:600] = 0, 1
    card = mask_card("a", image, np.zeros((600, 800), np.uint8), ids, 0.2, "")
    assert card.objects == 2
    assert len(card.figures) == 3
    assert card.figures[2].label == "a: the mask, 2 objects, 20 % of the image"
    assert mask_card("a", image, np.zeros((600, 800), np.uint8), ids * 0 - 1, 0, "empty").objects == 0


def test_the_page_says_what_was_rejected_and_why_and_loads_nothing(tmp_path: Path) -> None:
    ids = np.zeros((600, 800), np.int32)
    soft = np.zeros((600, 800), np.uint8)
    kept = [mask_card("a&b", picture(), soft, ids, 0.25, "")]
    rejected = [mask_card("c", picture(), soft, ids, 0, "empty")]
    page = write_masks_page(tmp_path, NOTE, kept, rejected).read_text()
    for words in ("a&amp;b", "&lt;cut&gt;: truncated", f"1 empty ({REASONS['empty']}).", "<dd>rbd</dd>", "25 %"):
        assert words in page
    assert "http://" not in page
    assert "https://" not in page
    assert page.count("<figcaption>") == 2


def test_every_reason_has_words() -> None:
    values = np.full((50, 50), 0.9, np.float32)
    small = values * 0
    small[:6, :6] = 1
    reasons = {
        clean(values).reason,
        clean(values * 0).reason,
        clean(small, Cleaning(min_area=0.1)).reason,
        clean_objects(np.ones((50, 50), np.int32)).reason,
    }
    assert reasons == set(REASONS)

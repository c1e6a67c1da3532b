import json

import cv2
import numpy as np
import pytest

from selfseg.collection.reporting.report import report
from selfseg.drawing.pictures import write_image
from selfseg.pages.concepts import draw_segment, ranges, read_concepts, write_concepts_page
from selfseg.storage.hashes import embedder_hash


def leave_concepts(run, count=5, segments=3, **changes):
    """What `selfseg.concepts` leaves; the last one is dead."""
    folder = run / "concepts"
    listed = []
    for c in range(count):
        alive = c < count - 1
        pictures = []
        for rank in range(segments if alive else 0):
            name = f"{c:04}-{rank:02}.webp"
            write_image(folder / "pictures" / name, np.full((30, 40, 3), 3 * c, np.uint8))
            segment = {"image": f"<img {c}>", "cosine": 0.9, "share": 0.25}
            pictures.append({**segment, "picture": {"file": name, "width": 40, "height": 30}})
        numbers = {"share": c / 10 if alive else 0.0, "images": c + 1 if alive else 0}
        coherent = {"coherence": 0.5 if alive else None, "coherence_top": 0.75 if alive else None}
        listed.append({"concept": c, **numbers, **coherent, "segments": pictures})
    values = {
        "source": "prototypes",
        "k": count,
        "images": "photos",
        "count": 8,
        "active_per_image": 2.5,
        "coherence_any": 0.125,
        "dead": [count - 1],
        "embedder": embedder_hash(run),
        "concepts": listed,
        **changes,
    }
    folder.mkdir(exist_ok=True)
    (folder / "concepts.json").write_text(json.dumps(values))


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "my run"
    folder.mkdir()
    (folder / "log.jsonl").write_text("")
    return folder


def test_concepts_are_read_by_share_and_the_dead_are_listed(run):
    assert read_concepts(run) is None
    leave_concepts(run)
    found = read_concepts(run)
    assert [(card.number, len(card.figures)) for card in found.cards] == [(3, 3), (2, 3), (1, 3), (0, 3)]
    assert (found.word, found.dead, found.dead_count, found.left_out) == ("prototype", "4", 1, 0)
    few = read_concepts(run, most=2, each=1)
    assert [(card.number, len(card.figures)) for card in few.cards] == [(3, 1), (2, 1)]
    assert few.left_out == 2


def test_a_picture_that_went_is_left_out(run):
    leave_concepts(run)
    (run / "concepts" / "pictures" / "0003-00.webp").unlink()
    assert len(read_concepts(run).cards[0].figures) == 2


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"embedder": "another"}, "of an earlier embedder"),
        ({"concepts": 3}, "can't be read"),
        ({"k": None}, "can't be"),
    ],
)
def test_what_can_not_be_shown_is_said(run, changes, sentence):
    leave_concepts(run, **changes)
    notes = []
    assert read_concepts(run, notes=notes) is None
    assert len(notes) == 1
    assert sentence in notes[0]


def test_the_page_holds_every_picture_and_escapes_names(run):
    leave_concepts(run)
    text = write_concepts_page(run, read_concepts(run)).read_text()
    assert text.count('src="data:image/webp;base64,') == 12
    assert "&lt;img 3&gt;" in text
    assert "<img 3>" not in text
    assert "alike: all 0.50, best 0.75" in text
    assert "30.0 % of all" in text
    assert "less than 0.1 % of all" in text
    assert "two segments of anything have 0.12" in text
    assert "https://" not in text


def test_the_report_has_a_section_of_them(run):
    def section():
        text = report(run, progress=False).read_text()
        return text, text.split('<section id="concepts">')[-1].split("</section>")[0]

    assert 'id="concepts"' not in section()[0]
    leave_concepts(run, count=70, segments=7)
    text, shown = section()
    assert '<a href="#concepts">' in text
    assert "What each prototype found" in shown
    assert shown.count("<article") == 64
    assert shown.count("<img") == 64 * 5
    assert "5 more have smaller shares" in shown
    leave_concepts(run, embedder="another")
    assert "of an earlier embedder" in section()[0]


def test_a_drawn_segment_keeps_its_colours_and_the_rest_is_gray():
    image = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    mask = np.zeros((40, 60), bool)
    mask[10:30, :20] = True
    drawn = draw_segment(image, mask, (10, 200, 30))
    assert np.array_equal(drawn[11:29, :19], image[11:29, :19])
    assert np.ptp(drawn[:, 25:].astype(int), axis=2).max() == 0
    assert (drawn[15, 20] == (10, 200, 30)).all()
    assert (drawn[15, 0] == image[15, 0]).all()  # no outline where the image ends
    nothing = draw_segment(image, np.zeros_like(mask), (10, 200, 30))
    assert np.array_equal(nothing[..., 0], (cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) * 0.42 + 66).astype(np.uint8))


def test_ranges():
    assert [ranges(n) for n in ([], [4], [1, 2], [1, 2, 3], [0, 5, 6, 7, 9])] == ["", "4", "1, 2", "1–3", "0, 5–7, 9"]

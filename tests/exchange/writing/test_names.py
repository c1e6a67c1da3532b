import pytest

from exchange.odd_masks import NAMES
from selfseg.data.labelled.listed import distinct_colours, plain_labels
from selfseg.exchange.writing.names import FileNames, ListedNames


@pytest.mark.parametrize("suffix", ["", ".png", ".txt", ".geojson"])
def test_every_place_is_safe_and_differs(suffix: str) -> None:
    names = FileNames(suffix)
    places = [names.place(name) for name in NAMES]
    files = {place + suffix for place in places}
    assert len(files) == len(NAMES)
    folders = {file.rsplit("/", i)[0] for file in files for i in range(1, file.count("/") + 1)}
    assert not files & folders, "a file and a folder of one name"
    for place in places:
        assert place.isprintable()
        assert not place.startswith(("/", "#"))
        assert "\\" not in place
        for part in place.split("/"):
            assert part == part.strip() != ""
            assert part not in (".", "..")
            assert len(part.encode()) <= 200


def test_usual_names_stay() -> None:
    names = FileNames(".png")
    usual = ("a b", "a, b #2 'x' \"y\" & ü", "<b>", "שלום", "monday/a.b", "monday/c", "100%")
    assert tuple(names.place(f"{name}.jpg") for name in usual) == usual
    assert names.renamed == {}


def test_what_had_to_change_is_known() -> None:
    names = FileNames(".png")
    for name in ("a.jpg", "a.png", "../b.jpg"):
        names.place(name)
    assert names.renamed == {"a.png": "a.png", "../b.jpg": "b"}


def test_many_of_one_name_keep_apart() -> None:
    names = FileNames(".png")
    places = [names.place("/" * i + "a.jpg") for i in range(15)]
    assert len(set(places)) == 15
    assert places[:3] == ["a", "a.jpg", "a-2"]


def test_long_names_keep_apart() -> None:
    names = FileNames(".png")
    assert len({names.place("ü" * 150 + end + ".jpg") for end in "abc"}) == 3


def test_listed_names_stay_but_for_ways_out_of_the_folder() -> None:
    names = ListedNames()
    places = [names.place(name) for name in (*NAMES, "outside.jpg")]
    assert names.renamed == {
        "../outside.jpg": "outside.jpg",
        "/etc/absolute.jpg": "etc/absolute.jpg",
        "outside.jpg": "outside-2.jpg",
    }
    assert len(set(places)) == len(NAMES) + 1


def test_labels_are_plain_and_differ() -> None:
    odd = ["road", " road", "road ", "line\nend", "line end", "\x00", "_"]
    labels = plain_labels(odd)
    assert labels == ["road", "road 2", "road 3", "line end", "line end 2", "_", "_ 2"]


def test_a_label_map_has_no_colons_and_no_comments() -> None:
    assert plain_labels(["C#", "#c", "a:b"], in_map=True) == ["C#", "_c", "a_b"]
    assert plain_labels(["C#", "#c", "a:b"]) == ["C#", "#c", "a:b"]


def test_a_taken_label_is_numbered() -> None:
    assert plain_labels(["background"], taken=["background"]) == ["background 2"]


def test_only_colours_that_collide_change() -> None:
    colours = [(255, 255, 255), (255, 255, 255), (254, 255, 255), (0, 0, 0), (7, 7, 7)]
    found = distinct_colours(colours)
    assert len(set(found)) == len(found)
    assert (0, 0, 0) not in found
    assert [found[i] for i in (0, 2, 4)] == [colours[i] for i in (0, 2, 4)]
    for before, after in zip(colours, found, strict=True):
        assert max(abs(a - b) for a, b in zip(before, after, strict=True)) <= 1


def test_a_thousand_equal_colours_become_neighbours() -> None:
    found = distinct_colours([(128, 128, 128)] * 1000)
    assert len(set(found)) == 1000
    assert max(abs(c - 128) for colour in found for c in colour) <= 5

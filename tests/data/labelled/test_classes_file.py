from pathlib import Path

import pytest

from selfseg.data.labelled.classes_file import format_classes, parse_classes, read_classes
from selfseg.data.labelled.labels import VOID
from selfseg.data.labelled.legend import Legend
from selfseg.errors import ConfigError, LabelError

TWO = ("sky", "main road")
COLOURS = ((128, 128, 128, 0), (128, 64, 128, 1))


@pytest.mark.parametrize(
    "text",
    [
        "0 sky\n1 main road\n",
        "0: sky\n1: main road\n255: void\n",
        "0, sky\n\n# a comment\n1, main road",
        "sky\nmain road",
        "\ufeffsky\r\nmain road\r\n",
    ],
)
def test_lists_without_colours(text: str, tmp_path: Path) -> None:
    path = tmp_path / "classes.txt"
    path.write_bytes(text.encode())
    found = read_classes(path)
    assert (found.names, found.colours) == (TWO, ())
    assert found.legend() == Legend.of(TWO)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("room 1 2 3\nroom\nhall\n", ("room 1 2 3", "room", "hall")),
        ("3 cars\nno car", ("3 cars", "no car")),
        ("0 C#\n1 step 300 400 500 600\n", ("C#", "step 300 400 500 600")),
        ("name\nclass\n", ("name", "class")),
        ("index, name\nvalue\n", ("index, name", "value")),
    ],
)
def test_names_that_look_like_more(text: str, names: tuple[str, ...]) -> None:
    assert parse_classes(text, "classes.txt").names == names


@pytest.mark.parametrize(
    "text",
    [
        "0 sky 128 128 128\n1 main road 128 64 128\n",
        "0\tsky\t128 128 128\n1\tmain road\t128\t64\t128",
        "0,sky,#808080\n1,main road,#804080",
        "0; sky; 128, 128, 128\n1; main road; (128, 64, 128)\n",
        "0: sky: #808080  # 41 % of the pixels\n1: main road: #804080 # and more",
        "sky 128 128 128\nmain road #804080",
        "1 main road 128 64 128\n0 sky 128 128 128",
        "128 128 128\tsky\n128 64 128\tmain road",
        "name,r,g,b\nsky,128,128,128\nmain road,128,64,128",
        "id;color;class\n0;#808080;sky\n1;#804080;'main road'",
        "Red Green Blue Label\n128 128 128 sky\n128 64 128 main road\n",
    ],
)
def test_lists_with_colours(text: str) -> None:
    found = parse_classes(text, "classes.txt")
    assert found.names == TWO
    assert sorted(found.colours) == sorted(COLOURS)
    assert found.legend() == Legend.of(TWO, {"sky": (128, 128, 128), "main road": (128, 64, 128)})


def test_several_colours_of_a_class_and_of_void() -> None:
    text = "0 sky 1 1 1\n0 sky 2 2 2\n1 road 3 3 3\n255 void 0 0 0\n255 void #090909\n255 nothing"
    found = parse_classes(text, "classes.txt")
    assert found.names == ("sky", "road")
    assert found.colours == ((1, 1, 1, 0), (2, 2, 2, 0), (3, 3, 3, 1), (0, 0, 0, VOID), (9, 9, 9, VOID))
    assert found.legend().classes[0].colour == (1, 1, 1)
    assert parse_classes("sky 1 1 1\nroad 3 3 3\nsky 2 2 2", "").colours == ((1, 1, 1, 0), (3, 3, 3, 1), (2, 2, 2, 0))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "names no class"),
        ("# only this", "names no class"),
        ("name r g b", "names no class"),
        ("0 a\n2 b", "does not name class 1"),
        ("255 void", "does not name class 0"),
        ("0 a\n0 b", "names class 0 twice: 'a' and 'b'"),
        ("0 a\n0 a", "names class 0 twice"),
        ("0 a #000000\n0 b #000001", "names class 0 twice: 'a' and 'b'"),
        ("0 a #000000\n1 b", "the line '1 b' has no colour"),
        ("0 a 1 2 3\n1 b 4 5 6\n2 c", "the line '2 c' has no colour"),
        ("a #000000\n255 void", "the line '255 void' has no colour"),
        ("0 a 1 2 3\n1 b 1 2 3", r"the colour \(1, 2, 3\) to two classes: '0 a 1 2 3' and '1 b 1 2 3'"),
        ("0 a 1 2 3\n255 void 1 2 3", r"the colour \(1, 2, 3\) to two classes"),
        ("0 a 1 2 300\n1 b 1 2 3", "'0 a 1 2 300' has a number above 255"),
        ("name,r,g,b\nsky,1,2", "'sky,1,2' doesn't have the columns that the first names, 'name,r,g,b'"),
        ("\n".join(f"{i} c{i} {i} 0 1" for i in range(254)), "names 254 classes with colours; there can be 253"),
    ],
)
def test_lists_that_make_no_sense(text: str, message: str) -> None:
    with pytest.raises(LabelError, match=f"^here.*{message}"):
        parse_classes(text, "here")


def test_files_that_can_not_be_read(tmp_path: Path) -> None:
    with pytest.raises(LabelError, match="can't read"):
        read_classes(tmp_path)
    (tmp_path / "classes.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(LabelError, match="can't read"):
        read_classes(tmp_path / "classes.txt")


def test_what_is_written_is_read() -> None:
    legend = Legend.of(["sky", "a #1", "rote Straße, 3 Spuren"], {"sky": (0, 0, 1)})
    assert parse_classes(format_classes(legend), "").legend() == legend
    text = format_classes(legend, ["1 %", "2 %", "97 % # all"])
    assert parse_classes(text, "").legend() == legend
    with pytest.raises(ConfigError, match="two classes"):
        parse_classes("a\na", "").legend()


def test_numbers_below_0_are_no_names() -> None:
    with pytest.raises(LabelError, match="'-1 a' has a number below 0"):
        parse_classes("-1 a\n0 b\n", "classes.txt")
    assert parse_classes("-1 degree\nwarm\n", "classes.txt").names == ("-1 degree", "warm")

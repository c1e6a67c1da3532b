"""Long lists: the same images as of a list in memory, with memory that doesn't grow."""

from __future__ import annotations

import os
import tracemalloc
from pathlib import Path

import pytest

from selfseg.data.reading.ahead import spread_points
from selfseg.data.reading.listing import list_images
from selfseg.data.reading.long import lines as long_lines
from selfseg.data.reading.long.images import LongList, open_long_list
from selfseg.errors import DataError, EmptyCollection


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that lists of some thousand names have many."""
    monkeypatch.setattr(long_lines, "_PIECE", 1 << 12)
    monkeypatch.setattr(long_lines, "_PART", 1 << 17)


def write_list(path: Path, count: int) -> Path:
    path.write_text("".join(f"photos/{i // 100:04d}/IMG_{i:07d}.jpg\n" for i in range(count)))
    return path


def test_it_is_what_a_list_in_memory_is(tmp_path: Path) -> None:
    names = [f"a/b{i % 7}/été {i}.jpg" for i in range(700)]
    names[3:3] = [
        "",
        "# a comment",
        "   ",
        "  a/with blanks.png  ",
        "./a/./dot.jpg",
        "a/up/../down//two.webp",
        "a/b.ome.png",
    ]
    names[400:400] = ["#", "é.jpg", "\t", f"{tmp_path}/absolute.jpg"]
    for end, last in (("\n", ""), ("\r\n", "\r\n"), ("\n", "\n\n#")):
        path = tmp_path / "list.txt"
        path.write_bytes((end.join(names) + last).encode())
        held, found = list_images(path), open_long_list(path)
        assert found.root == held.root
        assert tuple(found.names) == held.names
        assert found.paths == held.paths
        assert len(found) == len(held) == 706
        assert [found.names[i] for i in (0, 127, 128, 705, -1)] == [held.names[i] for i in (0, 127, 128, 705, -1)]
        assert found.subset([700, 3, 3]) == held.subset([700, 3, 3])
        assert found.block(5) == held.subset(range(640, 706))
        assert found.suffixes == {".jpg", ".png", ".webp"}


def test_drawn_images_are_the_same(tmp_path: Path) -> None:
    path = write_list(tmp_path / "list.txt", 3000)
    chosen, _ = spread_points(3000, 6400, seed=3)
    assert len(chosen) == 100
    assert open_long_list(path).subset(chosen.tolist()) == list_images(path).subset(chosen.tolist())


@pytest.mark.slow
def test_memory_does_not_grow_with_the_names(tmp_path: Path) -> None:
    took = []
    for count in (4_096, 24_576):
        path = write_list(tmp_path / f"{count}.txt", count)
        tracemalloc.start()
        found = open_long_list(path)
        for number in range(-(-count // long_lines.BLOCK)):
            found.block(number)
        took.append(tracemalloc.get_traced_memory())
        tracemalloc.stop()
    held, peak = ((after - before) / 20_480 for before, after in zip(*took, strict=True))
    assert held < 2  # bytes an image: 8 for each 128 of them, and the block that was read last
    assert peak < 4


def test_two_that_share_a_name_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(long_lines, "_PART", 1 << 14)  # several files of hashes
    path = write_list(tmp_path / "list.txt", 3000)
    for line, words in (
        ("photos/0007/IMG_0000700.jpg", r"images 701 and 3001 would share.*sort -u"),
        ("photos/0007/../0007/IMG_0000700.png", r"images 701 and 3001 would share a name: .*jpg and .*png; rename one"),
    ):
        write_list(path, 3000)
        with path.open("a") as stream:
            stream.write(line)
        with pytest.raises(DataError, match=words):
            open_long_list(path)


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        (b"a.jpg\nb.TIF\n", DataError, r"files \.tif.*Cut it"),
        (b"# nothing\n\n", EmptyCollection, "names no image"),
        ("a.jpg\nb.jpg\n".encode("utf-16"), DataError, "zero bytes; is it UTF-16"),
    ],
)
def test_what_a_long_list_cannot_be(tmp_path: Path, text: bytes, error: type[DataError], words: str) -> None:
    path = tmp_path / "list.txt"
    path.write_bytes(text)
    with pytest.raises(error, match=words):
        open_long_list(path)


def test_a_list_that_changes_while_it_is_read(tmp_path: Path) -> None:
    path = write_list(tmp_path / "list.txt", 1000)
    found = open_long_list(path)
    os.utime(path, ns=(0, 0))
    with pytest.raises(DataError, match="has changed while"):
        found.block(3)


def test_only_long_lists_are_opened_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_list(tmp_path / "list.txt", 10)
    assert not isinstance(list_images(path), LongList)
    monkeypatch.setattr("selfseg.data.reading.listing.LONG", path.stat().st_size)
    assert isinstance(list_images(path), LongList)


def test_a_long_list_of_windows_names_the_files_that_a_short_one_names(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_bytes('\ufeffa.jpg\r\n"b c.jpg"\r\nsub\\d.jpg\r\ne.jpg\tclass 3\r\n'.encode() + b"\xff.jpg\r\n")
    long, short = open_long_list(path), list_images(path)
    assert tuple(long.paths) == tuple(short.paths)
    assert tuple(long.names) == tuple(short.names) == ("a", "b c", "sub/d", "e", "\udcff")

"""Files that nobody should trust."""

import zipfile
from pathlib import Path

import pytest

from selfseg.errors import DataError, LabelError
from selfseg.exchange.reading import files
from selfseg.exchange.reading.files import Tree


def zipped(path: Path, members: dict[str, str]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in members.items():
            archive.writestr(name, text)
    return path


def test_a_folder_a_zip_and_a_file_are_read_alike(tmp_path: Path) -> None:
    members = {"a/list.json": '{"x": 1}', "b.txt": "\ufeffhello", "a/.tmp-x": "?", "a/c/B.TXT": ""}
    for name, text in members.items():
        (tmp_path / "folder" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "folder" / name).write_text(text, encoding="utf-8")
    folder = Tree.open(tmp_path / "folder")
    members.pop("a/.tmp-x")  # a file that is being written
    archive = Tree.open(zipped(tmp_path / "x.zip", {**members, "__MACOSX/b.txt": "", "a/._b.txt": ""}))
    for tree in (folder, archive):
        assert tree.find("list.json") == "a/list.json"
        assert tree.find("b.txt") == "b.txt"
        assert tree.find("nothing.txt") is None
        assert tree.ending(".txt") == ["a/c/B.TXT", "b.txt"]
        assert tree.json("a/list.json") == {"x": 1}
        assert tree.text("b.txt") == "hello"
    single = Tree.open(tmp_path / "folder" / "b.txt")
    assert (single.names, single.text("b.txt")) == (("b.txt",), "hello")
    with pytest.raises(DataError, match="No such file"):
        Tree.open(tmp_path / "nothing")


@pytest.mark.parametrize("name", ["../evil.png", "a/../../evil.png", "/etc/evil.png", "..\\evil.png", "C:/evil.png"])
def test_a_zip_that_leads_out_of_itself_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(LabelError, match=r"x\.zip: the name .* leads out of the folder"):
        Tree.open(zipped(tmp_path / "x.zip", {"a.png": "", name: ""}))


def test_what_is_too_large_is_refused_before_it_is_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = Tree.open(zipped(tmp_path / "x.zip", {"bomb.txt": "0" * 100_000}))
    assert (tmp_path / "x.zip").stat().st_size < 1000
    (tmp_path / "large.txt").write_text("0" * 2000)
    monkeypatch.setattr(files, "_LARGEST", 1000)
    with pytest.raises(DataError, match=r"x\.zip/bomb\.txt unpacks to 100000 bytes; at most 1000"):
        tree.read("bomb.txt")
    with pytest.raises(DataError, match=r"large\.txt has more than 1000 bytes"):
        Tree.open(tmp_path / "large.txt").read("large.txt")


def test_damaged_and_encrypted_zips(tmp_path: Path) -> None:
    path = zipped(tmp_path / "x.zip", {"a.txt": "hello" * 100})
    whole = path.read_bytes()
    path.write_bytes(whole[:40] + b"\xff\xff\xff" + whole[43:])
    with pytest.raises(DataError, match=r"can't read .*x\.zip/a\.txt"):
        Tree.open(path).read("a.txt")
    path.write_bytes(
        whole[:6] + b"\x01" + whole[7:].replace(b"PK\x01\x02\x14\x03\x14\x00\x00", b"PK\x01\x02\x14\x03\x14\x00\x01")
    )
    with pytest.raises(DataError, match="is encrypted"):
        Tree.open(path).read("a.txt")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('<!DOCTYPE a [<!ENTITY b "bbbbbbbb"><!ENTITY c "&b;&b;&b;">]><a>&c;</a>', r"declares a document type"),
        ('<!DOCTYPE a SYSTEM "file:///etc/passwd"><a/>', "declares a document type"),
        ("<a>&b;</a>", "undefined entity"),
        ("<a>" * 200 + "</a>" * 200, "more than 100 elements within each other"),
        ("<a>", "as XML"),
        ("", "as XML"),
        ("<a></b>", "as XML"),
        ('<?xml version="1.0" encoding="nonsense"?><a/>', "as XML"),
    ],
)
def test_xml_that_is_refused(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "a.xml").write_text(text)
    with pytest.raises(DataError, match=message):
        Tree.open(tmp_path).xml("a.xml")


def test_plain_xml(tmp_path: Path) -> None:
    (tmp_path / "a.xml").write_text('<?xml version="1.0" encoding="utf-8"?><a><b c="ä">&lt;d</b></a>', encoding="utf-8")
    root = Tree.open(tmp_path).xml("a.xml")
    assert (root.tag, root[0].get("c"), root[0].text) == ("a", "ä", "<d")


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, '{"a": 1}}'])
def test_json_that_is_none(text: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(DataError, match=r"can't read .*a\.json as JSON"):
        Tree.open(tmp_path).json("a.json")
    (tmp_path / "b.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="no UTF-8 text"):
        Tree.open(tmp_path).json("b.json")

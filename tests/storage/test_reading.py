"""Files of strangers: what is read, and what ends in a ValueError before it takes memory or waits."""

import os
from pathlib import Path

import pytest

from selfseg.errors import StorageError
from selfseg.storage.files import read_steps
from selfseg.storage.journal import Journal
from selfseg.storage.progress import ProgressFile
from selfseg.storage.reading import objects_of_lines, parse_json, parse_yaml, read_json, read_recipe_values

HOSTILE = {
    "deep lists": b"[" * 200_000,
    "deep objects": b'{"a":' * 200_000,
    "many digits": b"1" * 5000,
    "more than 64 bits": b'{"step": 123456789012345678901234567890}',
    "not UTF-8": b'{"a": "\xff"}',
    "cut off": b'{"a": [1,',
    "nothing": b"",
}


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_json_is_a_value_error(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r".+"):
        read_json(path)


def test_what_is_no_file_or_too_large_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.json")
    with pytest.raises(ValueError, match="is no file"):
        read_json(tmp_path / "pipe.json")
    (tmp_path / "large.json").write_text("[1, 2, 3]")
    with pytest.raises(ValueError, match=r"9 bytes, and such a file has at most 8"):
        read_json(tmp_path / "large.json", most=8)
    assert read_json(tmp_path / "large.json", most=9) == [1, 2, 3]
    assert parse_json('{"size": 18446744073709551615}') == {"size": 18446744073709551615}


def test_yaml_that_stands_for_more_than_it_says_is_refused(tmp_path: Path) -> None:
    lines = ["a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    lines += [f"{c}: &{c} [{', '.join(['*' + chr(ord(c) - 1)] * 9)}]" for c in "bcdefghij"]
    others = ("a: &a [*a]", "[" * 5000, "a: 2026-13-45", "!!python/object:os.x {}", "a: 1" + "0" * 99)
    for text in ("\n".join(lines), *others):
        with pytest.raises(ValueError, match=r".+"):
            parse_yaml(text)
    (tmp_path / "recipe.yaml").write_bytes(b"name: \xff\xfe")
    assert read_recipe_values(tmp_path) == {}
    assert parse_yaml("a: &a [1, 2]\nb: *a") == {"a": [1, 2], "b": [1, 2]}


def test_lines_that_are_no_objects_are_left_out_wherever_lines_are_read(tmp_path: Path) -> None:
    bad = b"\n".join(HOSTILE.values()) + b'\n[1]\n5\nnull\n"x"\n{"step": "x"}\n{"name": 5, "made_by": "me"}\n'
    good = b'{"step": 3, "name": "photo", "made_by": "me"}'
    path = tmp_path / "lines.jsonl"
    path.write_bytes(bad + good + b"\n" + good[:12])
    assert [line["step"] for line in read_steps(path)] == [3]
    assert list(ProgressFile(path, "made_by", "me").known) == ["photo"]
    assert list(objects_of_lines(path.read_text("utf-8", "replace")))[-1]["name"] == "photo"


def test_a_journal_that_is_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "decisions.jsonl")
    with pytest.raises(StorageError, match="is no file"):
        Journal(tmp_path / "decisions.jsonl").read()

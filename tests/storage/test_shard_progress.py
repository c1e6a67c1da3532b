"""The progress of long lists, shard by shard."""

from __future__ import annotations

from pathlib import Path

from selfseg.storage.shard_progress import ShardProgress

SOURCE = {"images": 10, "shard": 2}


def opened(path: Path, maker: str = "me", source: dict[str, int] = SOURCE) -> ShardProgress:
    return ShardProgress(path, "maker", maker, 5, source)


def test_the_last_line_of_a_shard_counts(tmp_path: Path) -> None:
    path = tmp_path / "new" / "p.jsonl"
    with opened(path) as progress:
        for shard, value in ((3, "a"), (1, "b"), (3, "c")):
            progress.add(shard, {"value": value})
        assert progress.of(3) == {"shard": 3, "maker": "me", "value": "c"}
    with opened(path, "other") as progress:
        assert progress.begun() == 2
        assert list(progress.foreign()) == [1, 3]
        progress.add(1, {"value": "d"})
        assert progress.of(1) == {"shard": 1, "maker": "other", "value": "d"}
        assert list(progress.foreign()) == [3]
    again = opened(path)
    assert list(again.entries()) == []
    assert list(again.foreign()) == [1, 3]
    assert again.of(0) is None
    assert not again.changed


def test_another_maker_that_was_killed_before_its_first_line_may_have_replaced_files(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    with opened(path) as progress:
        progress.add(0, {"value": "a"})
        progress.add(1, {"value": "b"})
    with opened(path, "other"):
        pass  # it wrote the files of shard 0, and was killed
    with opened(path) as progress:
        assert list(progress.entries()) == []
        assert list(progress.foreign()) == [0, 1]
        progress.add(0, {"value": "c"})
        assert list(progress.foreign()) == [1]
    assert [entry["value"] for entry in opened(path).entries()] == ["c"]


def test_a_torn_line_is_none_and_spoils_no_other(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    with opened(path) as progress:
        progress.add(0, {"value": "a"})
        progress.add(1, {"value": "b"})
    path.write_bytes(path.read_bytes()[:-5])
    with opened(path) as progress:
        assert [progress.of(shard) is None for shard in (0, 1)] == [False, True]
        progress.add(2, {"value": "c"})
    assert [entry["value"] for entry in opened(path).entries()] == ["a", "c"]
    with path.open("a") as file:
        file.write('\n[1]\n{"shard": 99, "maker": "me"}\n{"shard": "x"}\n')
    assert opened(path).begun() == 2


def test_lines_of_another_list(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    with opened(path) as progress:
        progress.add(0, {})
    longer = opened(path, source={"images": 12, "shard": 2})
    assert longer.changed
    assert longer.begun() == 1
    with opened(path, source={"images": 10, "shard": 4}) as other:  # shards of another size
        assert other.changed
        assert other.begun() == 0
        other.add(4, {})
    assert [entry["shard"] for entry in opened(path, source={"images": 10, "shard": 4}).entries()] == [4]
    assert opened(path).begun() == 0

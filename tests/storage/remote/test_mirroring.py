import os
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from selfseg.errors import ConfigError, DataError, RunError, Unreachable
from selfseg.storage.files import write_text
from selfseg.storage.remote.mirroring import Mirror
from selfseg.storage.remote.places import at_places, fetched, written
from selfseg.storage.remote.snapshots import snapshot

URL = "memory://b/run"


def files(memory: Any) -> dict[str, bytes]:
    return {name: memory.cat_file(name) for name in sorted(memory.find("/b"))}


def test_what_is_written_is_uploaded_and_what_goes_is_removed(memory: Any) -> None:
    with Mirror(URL) as mirror:
        write_text(mirror.path / "log.jsonl", "1\n")
        write_text(mirror.path / "sub" / "a.json", "{}")
        (mirror.path / ".tmp-half").write_text("never")
    assert files(memory) == {"/b/run/log.jsonl": b"1\n", "/b/run/sub/a.json": b"{}"}
    with Mirror(URL) as mirror:
        with (mirror.path / "log.jsonl").open("a") as file:
            file.write("2\n")
        (mirror.path / "sub" / "a.json").unlink()
    assert files(memory) == {"/b/run/log.jsonl": b"1\n2\n"}


def test_a_single_file_is_a_place_too(memory: Any) -> None:
    with Mirror("memory://b/model.onnx") as mirror:
        write_text(mirror.path, "graph")
    assert files(memory) == {"/b/model.onnx": b"graph"}
    with snapshot("memory://b/model.onnx") as path:
        assert (path.name, path.read_text()) == ("model.onnx", "graph")


def test_files_are_uploaded_while_the_work_goes_on(memory: Any) -> None:
    with Mirror(URL, every=0.01) as mirror:
        write_text(mirror.path / "a.txt", "1")
        for _ in range(500):
            if memory.exists("/b/run/a.txt"):
                break
            time.sleep(0.01)
        else:
            pytest.fail("it was not uploaded")


def test_a_marker_comes_after_the_files_of_its_checkpoint(memory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    sent, put = [], type(memory).put_file

    def noting(self: Any, local: str, remote: str, **options: Any) -> Any:
        sent.append(remote.rpartition("/")[2])
        return put(self, local, remote, **options)

    monkeypatch.setattr(type(memory), "put_file", noting)
    with Mirror(URL) as mirror:
        for step in (1, 2):
            for name in ("COMPLETE", "state.json"):
                write_text(mirror.path / "checkpoints" / f"step_{step}" / name, name)
        write_text(mirror.path / "about.json", "{}")
    assert sent == ["state.json", "COMPLETE", "state.json", "COMPLETE", "about.json"]


def test_what_was_killed_goes_on_here_and_on_another_machine(memory: Any, tmp_path: Path) -> None:
    class Killed(Exception):
        pass

    mirror = Mirror(URL)
    mirror.__enter__()
    write_text(mirror.path / "sent.txt", "1")
    mirror._upload()
    write_text(mirror.path / "only here.txt", "2")
    mirror._stop.set()  # as if the process had gone: nothing more is uploaded
    mirror._held.close()
    shutil.copytree(tmp_path / "cache", tmp_path / "before")
    with Mirror(URL) as again:  # the same machine has everything
        assert (again.path / "only here.txt").read_text() == "2"
        write_text(again.path / "sent.txt", "changed")
    assert files(memory) == {"/b/run/only here.txt": b"2", "/b/run/sent.txt": b"changed"}

    shutil.rmtree(tmp_path / "cache")  # another machine
    with Mirror(URL) as other:
        assert (other.path / "sent.txt").read_text() == "changed"
        write_text(other.path / "sent.txt", "by the other one")
    shutil.rmtree(tmp_path / "cache")
    os.rename(tmp_path / "before", tmp_path / "cache")  # back on the first, as it was: what lies at the URL counts
    with Mirror(URL) as first:
        assert (first.path / "sent.txt").read_text() == "by the other one"
    assert files(memory)["/b/run/sent.txt"] == b"by the other one"


def test_names_that_are_not_wanted_are_neither_fetched_nor_removed(memory: Any) -> None:
    memory.pipe_file("/b/run/a.json", b"{}")
    memory.pipe_file("/b/run/checkpoints/large", b"1")
    with Mirror(URL, wanted=lambda name: not name.startswith("checkpoints/")) as mirror:
        assert not (mirror.path / "checkpoints").exists()
        write_text(mirror.path / "b.json", "{}")
    assert set(files(memory)) == {"/b/run/a.json", "/b/run/b.json", "/b/run/checkpoints/large"}


def test_what_is_not_there_when_it_is_counted_is_sent_again(memory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    lost, put = ["/b/run/a.txt"], type(memory).put_file

    def losing(self: Any, local: str, remote: str, **options: Any) -> Any:
        if remote in lost:
            return lost.remove(remote)
        return put(self, local, remote, **options)

    monkeypatch.setattr(type(memory), "put_file", losing)
    with Mirror(URL) as mirror:
        write_text(mirror.path / "a.txt", "1")
    assert files(memory) == {"/b/run/a.txt": b"1"}
    lost += ["/b/run/b.txt"] * 9
    with pytest.raises(Unreachable, match=r"not what was sent.*what was made lies in .*, and the same command uploads"):
        with Mirror(URL) as mirror:
            write_text(mirror.path / "b.txt", "1")


def test_one_process_at_a_time_and_no_writing_over_http(memory: Any) -> None:
    with Mirror(URL), pytest.raises(RunError, match="another process is at work on memory://b/run"):
        Mirror(URL).__enter__()
    with pytest.raises(ConfigError, match="nothing can be written to https://host/x"):
        Mirror("https://host/x?token=secret")


def test_where_one_may_not_write_is_known_before_any_work(memory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any, **__: Any) -> None:
        raise PermissionError("AccessDenied")

    monkeypatch.setattr(type(memory), "pipe_file", refused)
    with pytest.raises(Unreachable, match=r"AccessDenied.*can't be written"):
        Mirror(URL).__enter__()


@pytest.mark.parametrize("name", ["../../evil.txt", "x/../../../evil.txt", "/etc/evil", "a\\..\\evil"])
def test_hostile_names_are_never_written(
    memory: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    good = {"name": "/b/data/good.txt", "size": 1, "type": "file"}
    evil = {"name": f"/b/data/{name}", "size": 4, "type": "file"}
    monkeypatch.setattr(type(memory), "find", lambda *_, **__: {each["name"]: each for each in (good, evil)})
    for enter in (lambda: snapshot("memory://b/data"), lambda: Mirror("memory://b/data")):
        with pytest.raises(DataError, match="leads out of it"), enter():
            pass
    assert not [path for path in tmp_path.rglob("*") if "evil" in path.name]


def test_a_snapshot_is_made_anew_only_when_the_listing_changes(memory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    memory.pipe_file("/b/data/a.txt", b"1")
    memory.pipe_file("/b/data/b.txt", b"2")
    fetched_names, get = [], type(memory).get_file
    monkeypatch.setattr(
        type(memory), "get_file", lambda s, r, *a, **k: (fetched_names.append(r), get(s, r, *a, **k))[1]
    )
    for _ in range(2):
        with snapshot("memory://b/data") as path:
            assert sorted(each.name for each in path.iterdir()) == ["a.txt", "b.txt"]
    memory.pipe_file("/b/data/b.txt", b"22")
    with snapshot("memory://b/data") as path:
        assert (path / "b.txt").read_bytes() == b"22"
    assert sorted(fetched_names) == ["/b/data/a.txt", "/b/data/b.txt", "/b/data/b.txt"]
    with pytest.raises(Unreachable, match="nothing at memory://b/wrong"), snapshot("memory://b/wrong"):
        pass


def test_places_leave_paths_alone_and_put_copies_in_the_place_of_urls(memory: Any, tmp_path: Path) -> None:
    memory.pipe_file("/b/camvid/val/a.txt", b"1")
    with written(tmp_path) as same, fetched("camvid:/data?val=20") as named:
        assert (same, named) == (tmp_path, "camvid:/data?val=20")
    with fetched("camvid/val:memory://b/camvid?val=20") as named:
        dataset, _, rest = named.partition(":")
        assert dataset == "camvid/val"
        assert rest.endswith("/camvid?val=20")
        assert (Path(rest.partition("?")[0]) / "val" / "a.txt").read_bytes() == b"1"

    @at_places(runs=["run"], writes=["out"])
    def verb(run: Path, out: Path | None = None) -> Path:
        raise RunError(f"there is no run at {run}") if not run.exists() else RunError("?")

    with pytest.raises(RunError, match="there is no run at memory://b/none"):
        verb(Path("memory://b/none"))
    assert not memory.exists("/b/none")


def test_what_is_written_never_goes_into_a_copy_that_is_only_read(memory: Any) -> None:
    memory.pipe_file("/b/run/log.jsonl", b"1\n")
    with fetched(Path("memory://b/run")) as read, written(URL) as out, written(URL) as again:
        assert out == again
        with (out / "log.jsonl").open("a") as file:
            file.write("2\n")
        assert (read / "log.jsonl").read_text() == "1\n"
    assert files(memory) == {"/b/run/log.jsonl": b"1\n2\n"}

"""What a release may consist of: a real wheel of this package, and made ones that each have something wrong."""

from __future__ import annotations

import base64
import hashlib
import importlib
import io
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROJECT: dict[str, Any] = {
    "name": "selfseg",
    "version": "1.2",
    "requires-python": ">=3.11",
    "license": "Apache-2.0",
    "dependencies": ["torch>=2.11"],
}
TRACKED = ["pyproject.toml", "src/selfseg/__init__.py", "src/selfseg/py.typed"]
METADATA = (
    "Metadata-Version: 2.4\nName: selfseg\nVersion: 1.2\nRequires-Python: >=3.11\nLicense-Expression: Apache-2.0\n"
    "Requires-Dist: torch>=2.11\nRequires-Dist: onnx>=1.17; extra == 'onnx'\n"
)
INFO = "selfseg-1.2.dist-info"
GOOD = {
    "selfseg/__init__.py": b'"""A package."""\n',
    "selfseg/py.typed": b"",
    f"{INFO}/METADATA": METADATA.encode(),
    f"{INFO}/WHEEL": b"Wheel-Version: 1.0\n",
    f"{INFO}/entry_points.txt": b"",
    f"{INFO}/licenses/LICENSE": b"Apache License\n",
}


@pytest.fixture(name="release")
def _release(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    return importlib.import_module("release")


def wheel(file: Path, content: dict[str, bytes], record: dict[str, bytes] | None = None) -> Path:
    """A wheel with a RECORD of `record`, or of what is in it."""
    lines = [f"{INFO}/RECORD,,"]
    for name, data in (record or content).items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        lines.append(f"{name},sha256={digest},{len(data)}")
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in (content | {f"{INFO}/RECORD": "\n".join(lines).encode()}).items():
            archive.writestr(zipfile.ZipInfo(name, (2026, 11, 29, 0, 0, 0)), data)
    return file


def test_a_plain_wheel_is_accepted(release: ModuleType, tmp_path: Path) -> None:
    assert release.odd_in_wheel(wheel(tmp_path / "a.whl", GOOD), TRACKED, PROJECT) == []


@pytest.mark.parametrize(
    ("more", "tracked", "words"),
    [
        ({"tests/test_a.py": b""}, [], "tests/test_a.py, which is no file of the package"),
        ({"selfseg/__pycache__/a.pyc": b""}, [], "a.pyc, which is no file of the package"),
        ({"selfseg/a.png": b""}, ["src/selfseg/a.png"], "a.png, of a kind"),
        ({"selfseg/model": b""}, ["src/selfseg/model"], "model, of a kind"),
        ({"selfseg/a.js": b"/* Copyright (c) 2020 X */"}, ["src/selfseg/a.js"], "whose is it"),
        ({}, ["src/selfseg/b.py"], "lacks selfseg/b.py"),
        ({f"{INFO}/licenses/LICENSE": b""}, [], "no licence text"),
        ({f"{INFO}/METADATA": METADATA.replace("1.2", "1.3").encode()}, [], "Version: 1.3, and not 1.2"),
        ({f"{INFO}/METADATA": METADATA.replace("2.11", "2.0").encode()}, [], "differ in what is required"),
    ],
)
def test_what_a_wheel_should_not_be_like(
    release: ModuleType, tmp_path: Path, more: dict[str, bytes], tracked: list[str], words: str
) -> None:
    found = release.odd_in_wheel(wheel(tmp_path / "a.whl", GOOD | more), TRACKED + tracked, PROJECT)
    assert any(words in line for line in found), found


def test_a_wheel_without_its_marks_and_one_whose_record_lies(release: ModuleType, tmp_path: Path) -> None:
    bare = {name: data for name, data in GOOD.items() if name not in ("selfseg/py.typed", f"{INFO}/licenses/LICENSE")}
    found = release.odd_in_wheel(wheel(tmp_path / "a.whl", bare), TRACKED, PROJECT)
    assert any("py.typed" in line for line in found)
    assert any("lacks selfseg-1.2.dist-info/licenses/LICENSE" in line for line in found)
    lying = wheel(tmp_path / "b.whl", GOOD, GOOD | {"selfseg/__init__.py": b"other"})
    assert release.odd_in_wheel(lying, TRACKED, PROJECT) == ["RECORD says something else of selfseg/__init__.py"]


@pytest.mark.slow
def test_this_packages_wheel(release: ModuleType, tmp_path: Path) -> None:
    """Built here as `make release` builds it, from the files as they lie here."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listing = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if listing.returncode:
        pytest.skip("not a git checkout")
    tracked = [name for name in listing.stdout.split("\0") if name and (ROOT / name).is_file()]
    code = "import sys; from hatchling.build import build_wheel; build_wheel(sys.argv[1])"
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, check=True, capture_output=True)
    (built,) = tmp_path.glob("*.whl")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert release.odd_in_wheel(built, tracked, project) == []


def sdist(file: Path, content: dict[str, bytes], owner: str = "") -> Path:
    with tarfile.open(file, "w:gz") as archive:
        for name, data in content.items():
            member = tarfile.TarInfo(f"selfseg-1.2/{name}")
            member.size, member.uname = len(data), owner
            archive.addfile(member, io.BytesIO(data))
    return file


def test_what_an_sdist_may_hold(release: ModuleType, tmp_path: Path) -> None:
    ((theirs, words),) = release.THIRD_PARTY.items()
    good = {"PKG-INFO": b"", "pyproject.toml": b"", theirs: b"/* " + words + b" */"}
    tracked = ["pyproject.toml", theirs]
    assert release.odd_in_sdist(sdist(tmp_path / "a.tar.gz", good), tracked) == []
    for more, owner, said in (
        ({"runs/secret.json": b""}, "", "runs/secret.json, which is not in the commit"),
        ({theirs: b"no licence"}, "", f"{theirs} lacks its licence"),
        ({}, "somebody", "says who built it"),
    ):
        found = release.odd_in_sdist(sdist(tmp_path / "b.tar.gz", good | more, owner), tracked)
        assert len(found) == 1
        assert said in found[0]


def test_files_of_others_are_where_their_licences_are_looked_for(release: ModuleType) -> None:
    for name, words in release.THIRD_PARTY.items():
        assert words in (ROOT / name).read_bytes()


def test_what_differs_is_named(release: ModuleType, tmp_path: Path) -> None:
    for folder, code in (("first", b"1"), ("second", b"2")):
        (tmp_path / folder).mkdir()
        wheel(tmp_path / folder / "same.whl", GOOD)
        wheel(tmp_path / folder / "other.whl", GOOD | {"selfseg/__init__.py": code})
        (tmp_path / folder / f"{folder}.txt").touch()
    assert release.different(tmp_path / "first", tmp_path / "second") == [
        "first.txt (only one has it)",
        "other.whl (selfseg-1.2.dist-info/RECORD, selfseg/__init__.py)",
        "second.txt (only one has it)",
    ]


def test_another_version_of_a_build_tool_is_refused(release: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "constraints.txt").write_text("# pinned\npytest==0.0.1\n")
    with pytest.raises(release.ReleaseError, match=r"pytest is .* here, and 0\.0\.1 in constraints"):
        release._same_tools(tmp_path / "constraints.txt", ["pytest"])

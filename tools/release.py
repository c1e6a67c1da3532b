"""Build what a release consists of: `make release`, or `python tools/release.py [--out dist]`.

What is committed is built twice, in fresh folders under another umask, time zone, language, hash seed and date of the
files, and every byte must be the same. Then the content of wheel and sdist is checked, twine checks what an index
shows, and the software bill of materials (tools/bom.py) is written beside them, with a list of SHA-256 sums. Nothing is
uploaded. The wheel is built from the sdist. It needs `pip install -e '.[release]'`.
"""

from __future__ import annotations

import argparse
import base64
import csv
import email.parser
import hashlib
import io
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path, PurePosixPath

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]
# What a package needs at run time; a picture or a binary among it has to be put here on purpose.
SUFFIXES = frozenset((".py", ".typed", ".j2", ".html", ".css", ".js", ".svg"))
MOST_BYTES = 1_500_000
THIRD_PARTY: Mapping[str, bytes] = {"docs/assets/iframe-worker.js": b"Permission is hereby granted, free of charge"}
"""Files of other projects, none of them in the wheel, and words of the licence that each must hold in full."""

_NOTICE = re.compile(rb"copyright (?:\(c\)|\d{4})|@license|spdx-license", re.IGNORECASE)
_FIRST = {"TZ": "UTC", "LC_ALL": "C.UTF-8", "PYTHONHASHSEED": "1"}
_SECOND = {"TZ": "Asia/Kathmandu", "LC_ALL": "C", "PYTHONHASHSEED": "2", "PYTHONUTF8": "1"}


class ReleaseError(Exception):
    """There is nothing to release; the sentence says why and what helps."""


def main(argv: Sequence[str] | None = None) -> int:
    """Build and check; 0, or 1 with a sentence."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "dist", help="a folder, replaced as a whole (dist)")
    options = parser.parse_args(argv)
    try:
        make(options.out)
    except ReleaseError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


def make(out: Path) -> None:
    """Build twice, compare, check, and put everything into `out`."""
    _same_tools(ROOT / "constraints.txt", ("hatchling", "build"))
    commit, seconds = _git("log", "-1", "--format=%H %ct").split()
    if changed := _git("status", "--porcelain").splitlines():
        _say(
            f"{len(changed)} files are changed and not committed, such as {changed[0][3:]}: they are not in the release"
        )
    with tempfile.TemporaryDirectory(prefix="selfseg-release-") as name:
        work = Path(name)
        first = build(work / "first", commit, int(seconds), _FIRST, umask=0o022)
        second = build(work / "a longer path" / "second", commit, int(seconds), _SECOND, umask=0o077)
        if differing := different(first, second):
            raise ReleaseError("built twice, these files differ: " + "; ".join(differing))
        _say(f"built twice from {commit[:12]}, the same byte for byte")
        sdist, wheel = _one(first, "*.tar.gz"), _one(first, "*.whl")
        tracked = _git("ls-tree", "-r", "--name-only", "-z", commit).split("\0")[:-1]
        project = tomllib.loads(_git("show", f"{commit}:pyproject.toml"))["project"]
        if wrong := [*odd_in_wheel(wheel, tracked, project), *odd_in_sdist(sdist, tracked)]:
            raise ReleaseError("not as a release should be:\n  " + "\n  ".join(wrong))
        _run([sys.executable, "-m", "twine", "check", "--strict", str(sdist), str(wheel)])
        bills = []
        for place, environment, more in (("first", _FIRST, ["--check"]), ("second", _SECOND, [])):
            bills.append(work / place / f"{sdist.name.removesuffix('.tar.gz')}.cdx.json")
            bills[-1].parent.mkdir(exist_ok=True)
            command = [sys.executable, str(ROOT / "tools" / "bom.py"), str(wheel), str(bills[-1]), *more]
            _run(command, env={**os.environ, **environment, "SOURCE_DATE_EPOCH": seconds})
        if bills[0].read_bytes() != bills[1].read_bytes():
            raise ReleaseError(f"written twice, the bill of materials differs: {bills[0].name}")
        files = sorted([sdist, wheel, bills[0]])
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir(parents=True)
        sums = "".join(f"{_sha256(file)}  {file.name}\n" for file in files)
        (out / "SHA256SUMS").write_text(sums, "utf-8")
        for file in files:
            shutil.copyfile(file, out / file.name)
            _say(f"{file.stat().st_size:>10,} bytes  {out / file.name}")
    if re.search(
        rf"^## {re.escape(project['version'])} - unreleased", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.M
    ):
        _say(f"CHANGELOG.md still calls {project['version']} unreleased")


def build(folder: Path, commit: str, seconds: int, environment: Mapping[str, str], umask: int) -> Path:
    """A folder with the sdist and the wheel of a commit, built in `folder`."""
    source, built = folder / "source", folder / "built"
    source.mkdir(parents=True)
    archive = subprocess.run(["git", "archive", commit], cwd=ROOT, capture_output=True, check=True).stdout
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        tar.extractall(source, filter="data")
    for file in source.rglob("*"):
        if umask != 0o022:  # another machine: other dates, and nothing for others to read
            file.chmod(file.stat().st_mode & ~umask)
            os.utime(file)
    environment = {**os.environ, **environment, "SOURCE_DATE_EPOCH": str(seconds)}
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(built), str(source)]
    _run(command, env=environment, umask=umask)
    return built


def different(first: Path, second: Path) -> list[str]:
    """Names of the files that two folders don't both have with the same bytes; for archives, which members differ."""
    found = []
    for name in sorted({file.name for file in (*first.iterdir(), *second.iterdir())}):
        pair = [folder / name for folder in (first, second)]
        if not all(file.exists() for file in pair):
            found.append(f"{name} (only one has it)")
        elif pair[0].read_bytes() != pair[1].read_bytes():
            members = [_members(file) for file in pair]
            odd = sorted(key for key in {*members[0], *members[1]} if members[0].get(key) != members[1].get(key))
            found.append(f"{name} ({', '.join(odd[:5]) or 'only its own header'})")
    return found


def odd_in_wheel(wheel: Path, tracked: Iterable[str], project: Mapping[str, object]) -> list[str]:
    """What should not be in a wheel, or is missing from it; sentences.

    Args:
        wheel: the file.
        tracked: names of the files of the commit, with slashes.
        project: the table `project` of its pyproject.toml.
    """
    found = []
    with zipfile.ZipFile(wheel) as archive:
        content = {entry.filename: archive.read(entry) for entry in archive.infolist() if not entry.is_dir()}
        links = [entry.filename for entry in archive.infolist() if (entry.external_attr >> 16) & 0o170000 == 0o120000]
    info = f"{project['name']}-{project['version']}.dist-info"
    meta = {f"{info}/{name}" for name in ("METADATA", "WHEEL", "RECORD", "entry_points.txt", "licenses/LICENSE")}
    code = {name.removeprefix("src/") for name in tracked if name.startswith("src/")}
    found += [f"{wheel.name} lacks {name}" for name in sorted((code | meta) - content.keys())]
    found += [
        f"{wheel.name} has {name}, which is no file of the package" for name in sorted(content.keys() - code - meta)
    ]
    found += [f"{wheel.name} has a link: {name}" for name in links]
    for name, data in sorted(content.items()):
        if name in meta:
            continue
        if PurePosixPath(name).suffix not in SUFFIXES:
            found.append(f"{wheel.name} has {name}, of a kind that the package needs none of")
        if _NOTICE.search(data):
            found.append(f"{name} has a copyright notice: whose is it, and where is its licence?")
    if f"{project['name']}/py.typed" not in content:
        found.append(f"{wheel.name} has no py.typed: type checkers would pass over it")
    if sum(map(len, content.values())) > 4 * MOST_BYTES or wheel.stat().st_size > MOST_BYTES:
        found.append(f"{wheel.name} has {wheel.stat().st_size:,} bytes, more than {MOST_BYTES:,}")
    if content.get(f"{info}/licenses/LICENSE", b"").count(b"Apache License") == 0:
        found.append(f"{wheel.name} has no licence text")
    found += _odd_record(content, f"{info}/RECORD")
    found += _odd_metadata(content.get(f"{info}/METADATA", b"").decode(), project)
    return found


def odd_in_sdist(sdist: Path, tracked: Iterable[str]) -> list[str]:
    """What an sdist has beside the commit's files, or lacks of them; files of others without their licence."""
    with tarfile.open(sdist) as archive:
        members = [member for member in archive.getmembers() if not member.isdir()]
        content = {m.name.partition("/")[2]: archive.extractfile(m).read() for m in members if m.isfile()}  # type: ignore[union-attr]
        found = [f"{sdist.name} has {member.name}, which is no plain file" for member in members if not member.isfile()]
        owners = {(member.uid, member.gid, member.uname, member.gname) for member in members}
    found += [f"{sdist.name} says who built it: {owner}" for owner in sorted(owners - {(0, 0, "", "")})]
    wanted = {*tracked, "PKG-INFO"}
    found += [f"{sdist.name} lacks {name}" for name in sorted(wanted - content.keys())]
    found += [f"{sdist.name} has {name}, which is not in the commit" for name in sorted(content.keys() - wanted)]
    found += [f"{name} lacks its licence" for name, words in THIRD_PARTY.items() if words not in content.get(name, b"")]
    return found


def _odd_record(content: Mapping[str, bytes], record: str) -> list[str]:
    rows = {row[0]: row[1] for row in csv.reader(content.get(record, b"").decode().splitlines())}
    found = [f"{name} is not in RECORD" for name in sorted(content.keys() - rows.keys())]
    for name, said in rows.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(content.get(name, b"")).digest()).rstrip(b"=").decode()
        if name != record and said != f"sha256={digest}":
            found.append(f"RECORD says something else of {name}")
    return found


def _odd_metadata(text: str, project: Mapping[str, object]) -> list[str]:
    said = email.parser.Parser().parsestr(text)
    wanted = {
        "Name": project["name"],
        "Version": project["version"],
        "Requires-Python": project["requires-python"],
        "License-Expression": project["license"],
    }
    found = [
        f"METADATA says {key}: {said[key]}, and not {value}" for key, value in wanted.items() if said[key] != value
    ]
    needed = {Requirement(line) for line in said.get_all("Requires-Dist", [])}
    plain = {need for need in needed if need.marker is None or "extra" not in str(need.marker)}
    if plain != {Requirement(line) for line in project["dependencies"]}:  # type: ignore[attr-defined]
        found.append("METADATA and pyproject.toml differ in what is required")
    return found


def _members(file: Path) -> dict[str, tuple[object, ...]]:
    """What an archive says of each of its members, and a digest of it."""
    if file.suffix == ".whl":
        with zipfile.ZipFile(file) as wheel:
            return {e.filename: (wheel.read(e), e.date_time, e.external_attr) for e in wheel.infolist()}
    if not tarfile.is_tarfile(file):
        return {}
    with tarfile.open(file) as sdist:
        return {m.name: (_read(sdist, m), m.mtime, m.mode, m.uname, m.uid) for m in sdist.getmembers()}


def _read(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    stream = archive.extractfile(member)
    return stream.read() if stream is not None else b""


def _same_tools(constraints: Path, names: Iterable[str]) -> None:
    """Another version of a build tool writes other bytes."""
    pinned = dict(line.split("==") for line in constraints.read_text("utf-8").splitlines() if "==" in line)
    for name in names:
        if version(name) != pinned[name]:
            raise ReleaseError(f"{name} is {version(name)} here, and {pinned[name]} in constraints.txt: run make setup")


def _one(folder: Path, pattern: str) -> Path:
    files = list(folder.glob(pattern))
    if len(files) != 1:
        raise ReleaseError(f"the build made {len(files)} files of the kind {pattern}")
    return files[0]


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _git(*words: str) -> str:
    return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True).stdout.rstrip("\n")


def _run(command: Sequence[str], env: Mapping[str, str] | None = None, umask: int = -1) -> None:
    done = subprocess.run(command, capture_output=True, text=True, env=env, umask=umask, check=False)
    if done.returncode:
        raise ReleaseError(f"{' '.join(command[1:4])} ended with {done.returncode}:\n{done.stdout}{done.stderr}")


def _say(sentence: str) -> None:
    sys.stdout.write(f"{sentence}\n")


if __name__ == "__main__":
    sys.exit(main())

"""Ask whether the pinned versions have known vulnerabilities: `make audit`, or `python tools/audit.py [FILE]`.

pip-audit asks the database of PyPI and, if that can't be reached, OSV. It ends with 0 if none is known, 1 if there are
some, and 2 if nobody could be asked: then nothing is known. It needs `pip install -e '.[release]'`. NVIDIA's packages
are not in constraints.txt, and so they are not asked about.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
SERVICES = ("pypi", "osv")
ACCEPTED: Mapping[str, str] = {}
"""Vulnerabilities that don't concern selfseg, by number, and why; they are told, and don't fail."""

Ask = Callable[[str, Path], tuple[str, str]]
"""(service, file of versions) to what pip-audit writes as JSON, empty if it failed, and what it complains of."""


def main(argv: Sequence[str] | None = None, ask: Ask | None = None) -> int:
    """Ask the services in turn, and print what they know."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", nargs="?", type=Path, default=ROOT / "constraints.txt", help="lines of name==version")
    options = parser.parse_args(argv)
    for service in SERVICES:
        answer, complaint = (ask or _pip_audit)(service, options.file)
        packages = json.loads(answer)["dependencies"] if answer else []
        if known := [package for package in packages if "skip_reason" not in package]:
            return _tell(service, known, [package["name"] for package in packages if package not in known])
        if packages:
            _say(f"{service}: it knows none of {len(packages)} packages, so it is no database of vulnerabilities")
        else:
            _say(f"{service}: {complaint.strip().splitlines()[-1][:200] if complaint.strip() else 'no answer'}")
    _say(
        f"No database of vulnerabilities could be reached, so nothing is known about {options.file.name}. "
        "Run this again where PyPI or OSV can be reached."
    )
    return 2


def _tell(service: str, known: list[dict[str, Any]], unknown: list[str]) -> int:
    bad = 0
    for package in known:
        for fault in package["vulns"]:
            names = [fault["id"], *fault.get("aliases", [])]
            why = next((ACCEPTED[name] for name in names if name in ACCEPTED), None)
            bad += why is None
            repaired = ", ".join(fault["fix_versions"]) or "no version yet"
            said = f"accepted: {why}" if why else f"repaired in {repaired}"
            _say(f"{package['name']} {package['version']}: {', '.join(names)} ({said})")
    if unknown:
        _say(f"not known there, and so not asked about: {', '.join(unknown)}")
    _say(f"{service} was asked about {len(known)} packages: {bad or 'no'} known vulnerabilities")
    return 1 if bad else 0


def _pip_audit(service: str, file: Path) -> tuple[str, str]:
    command = [sys.executable, "-m", "pip_audit", "--requirement", str(file), "--no-deps", "--disable-pip"]
    command += ["--vulnerability-service", service, "--format", "json", "--progress-spinner", "off", "--timeout", "30"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    except subprocess.TimeoutExpired:
        return "", "no answer within ten minutes"
    return done.stdout, done.stderr


def _say(sentence: str) -> None:
    sys.stdout.write(f"{sentence}\n")


if __name__ == "__main__":
    sys.exit(main())

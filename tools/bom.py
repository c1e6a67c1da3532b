"""Write the software bill of materials of a wheel: `python tools/bom.py WHEEL OUT.cdx.json`; `make release` calls it.

It is a file of CycloneDX 1.6 with what `pip install selfseg` brings, in the versions of constraints.txt: name, version,
licence, package URL, and who needs whom. What only extras for users bring has the scope "optional"; tools of developers
are left out. cyclonedx-bom reads the environment that runs this, and what it writes is reduced here. Nothing in it is
random, and its date is SOURCE_DATE_EPOCH, so that it is the same file each time.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import platform
import subprocess
import sys
import tomllib
from collections.abc import Collection, Mapping, Sequence
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

from licences import licence, needed
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
FOR_USERS = ("smp", "onnx", "coco", "geo", "remote", "ray")


class BomError(Exception):
    """The environment is not the one that the release stands for; the sentence says why."""


def main(argv: Sequence[str] | None = None) -> int:
    """Write the file; 0, or 1 with a sentence."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheel", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument(
        "--check", action="store_true", help="against the schema of CycloneDX, which takes half a minute"
    )
    options = parser.parse_args(argv)
    command = [sys.executable, "-m", "cyclonedx_py", "environment", "--pyproject", str(ROOT / "pyproject.toml")]
    command += ["--mc-type", "library", "--sv", "1.6", "--of", "JSON", "--output-reproducible", "--no-validate"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.stderr.write(done.stderr)
        return 1
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    pinned = {canonicalize_name(name): number for name, _, number in (line.partition("==") for line in lines) if number}
    extras = [line for extra in FOR_USERS for line in project["optional-dependencies"][extra]]
    required, all_of_it = needed(project["dependencies"]), needed([*project["dependencies"], *extras])
    try:
        bom = reduced(json.loads(done.stdout), required, all_of_it, pinned)
    except BomError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    for part in bom["components"]:
        if not part.get("licenses"):  # words instead of an expression, or none
            part["licenses"] = [
                {"license": {"name": licence(distribution(part["name"])), "acknowledgement": "declared"}}
            ]
    bom["metadata"]["component"]["purl"] = f"pkg:pypi/{project['name']}@{project['version']}"
    digest = hashlib.sha256(options.wheel.read_bytes()).hexdigest()
    bom["metadata"]["component"]["hashes"] = [{"alg": "SHA-256", "content": digest}]
    text = json.dumps(bom, indent=1, sort_keys=True) + "\n"
    if options.check and (fault := _fault(text)):
        sys.stderr.write(f"not as CycloneDX wants it: {fault}\n")
        return 1
    options.out.write_text(text, "utf-8")
    return 0


def reduced(
    bom: Mapping[str, Any],
    required: Mapping[str, Collection[str]],
    needs: Mapping[str, Collection[str]],
    pinned: Mapping[str, str],
) -> dict[str, Any]:
    """What of an environment comes with the package.

    Args:
        bom: of the environment, as cyclonedx-bom writes it.
        required: who needs whom (`licences.needed`) of what always comes along; "" is the package itself.
        needs: the same with the extras for users.
        pinned: version by canonical name; what is not in it may have any.

    Returns:
        A bill of materials with required and optional components.

    Raises:
        BomError: If a component has another version than the pinned one, or a required one is missing.
    """
    root = bom["metadata"]["component"]["bom-ref"]
    parts = {name: part for part in bom["components"] if (name := canonicalize_name(part["name"])) in needs}
    for name, part in parts.items():
        if part["version"] != pinned.get(name, part["version"]):
            raise BomError(f"{name} is {part['version']} here, and {pinned[name]} in constraints.txt: run make setup")
    absent = sorted(needs.keys() - parts.keys() - {""})
    if missing := sorted(required.keys() & set(absent)):
        raise BomError(f"{', '.join(missing)} is required, and not installed here: run make setup")
    said = {"selfseg:environment": f"Python {platform.python_version()}, {platform.system()} {platform.machine()}"}
    if absent:
        said["selfseg:not included"] = ", ".join(absent)
    properties = [*bom["metadata"].get("properties", []), *({"name": key, "value": said[key]} for key in said)]
    references = {"": root} | {name: part["bom-ref"] for name, part in parts.items()}
    return {
        **bom,
        "metadata": {**bom["metadata"], "properties": properties},
        "components": [
            {**parts[name], "scope": "required" if name in required else "optional"} for name in sorted(parts)
        ],
        "dependencies": [
            {
                "ref": reference,
                "dependsOn": sorted(references[other] for other in needs[name] if other in references),
            }
            for name, reference in sorted(references.items())
        ],
    }


def _fault(text: str) -> object:
    """What the schema of CycloneDX doesn't allow, or None."""
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    return JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)


if __name__ == "__main__":
    sys.exit(main())

"""The files that a code host and its services read: they parse, and say the same as the project."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from selfseg import __version__

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
GITHUB = ROOT / ".github"
WORKFLOWS = sorted((GITHUB / "workflows").glob("*.yml"))
FORMS = sorted(set((GITHUB / "ISSUE_TEMPLATE").glob("*.yml")) - {GITHUB / "ISSUE_TEMPLATE" / "config.yml"})
PINNED = dict(
    line.split("==") for line in (ROOT / "constraints.txt").read_text("utf-8").splitlines() if line[:1] not in "#"
)


def read(file: Path) -> Any:
    return yaml.safe_load(file.read_text("utf-8"))


def by_name(file: Path) -> str:
    return file.name


@pytest.mark.parametrize("file", WORKFLOWS, ids=by_name)
def test_workflows_run_what_was_reviewed_and_may_only_read(file: Path) -> None:
    workflow = read(file)
    assert workflow.keys() >= {"name", True, "permissions", "jobs"}  # `on` is true in YAML 1.1
    assert workflow["permissions"] == {"contents": "read"}
    for job in workflow["jobs"].values():
        assert job["timeout-minutes"] <= 90
        assert "permissions" not in job
        for step in job["steps"]:
            assert len(step.keys() & {"uses", "run"}) == 1
            if "uses" in step:
                assert re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}", step["uses"]), "a tag can be moved: name the commit"
            if step.get("uses", "").startswith("actions/checkout@"):
                assert step["with"]["persist-credentials"] is False
    named = re.findall(r"uses: \S+@[0-9a-f]{40}(.*)", file.read_text("utf-8"))
    assert all(re.fullmatch(r"  # v\d+\.\d+\.\d+", comment) for comment in named), "say which version the commit is"


def test_workflows_try_every_python_and_system_that_is_named() -> None:
    matrix = read(GITHUB / "workflows" / "tests.yml")["jobs"]["quick"]["strategy"]["matrix"]
    said = [line.rpartition(" ")[2] for line in PROJECT["classifiers"] if re.search(r"Python :: 3\.\d+$", line)]
    assert matrix["python"] == said
    assert PROJECT["requires-python"] == f">={said[0]}"
    assert [system.partition("-")[0] for system in matrix["os"]] == ["ubuntu", "macos", "windows"]


def test_workflows_call_targets_that_there_are() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    called = set(re.findall(r"run: make ([a-z-]+)", "".join(file.read_text("utf-8") for file in WORKFLOWS)))
    assert called
    assert called <= targets


@pytest.mark.parametrize("file", FORMS, ids=by_name)
def test_issue_forms_are_forms(file: Path) -> None:
    form = read(file)
    assert form.keys() >= {"name", "description", "body"}
    fields = [field for field in form["body"] if field["type"] != "markdown"]
    assert fields
    assert {field["type"] for field in fields} <= {"textarea", "input", "dropdown", "checkboxes"}
    assert len({field["id"] for field in fields}) == len(fields)
    assert all(field["attributes"]["label"] for field in fields)


def test_updates_are_looked_for() -> None:
    updates = read(GITHUB / "dependabot.yml")
    assert updates["version"] == 2
    assert {entry["package-ecosystem"] for entry in updates["updates"]} == {"pip", "github-actions"}


def test_hooks_have_the_versions_of_the_checks() -> None:
    (local,) = read(ROOT / ".pre-commit-config.yaml")["repos"]
    assert local["repo"] == "local"
    asked = [need for hook in local["hooks"] for need in hook.get("additional_dependencies", [])]
    assert {need.partition("==")[0] for need in asked} == {"ruff", "typos"}
    assert all(PINNED[need.partition("==")[0]] == need.partition("==")[2] for need in asked)


def test_the_citation_is_of_this_version() -> None:
    citation = read(ROOT / "CITATION.cff")
    assert citation["cff-version"] == "1.2.0"
    assert citation.keys() >= {"message", "title", "authors"}  # what the format asks for
    assert str(citation["version"]) == PROJECT["version"] == __version__
    assert citation["license"] == PROJECT["license"]
    assert citation["keywords"] == PROJECT["keywords"]
    for reference in citation["references"]:
        assert reference.keys() >= {"type", "title", "authors"}


@pytest.mark.parametrize("name", ["SECURITY.md", "CODE_OF_CONDUCT.md", "CONTRIBUTING.md", "LICENSE", "CHANGELOG.md"])
def test_what_strangers_look_for_is_there(name: str) -> None:
    assert (ROOT / name).stat().st_size > 500
    assert (GITHUB / "pull_request_template.md").stat().st_size > 100

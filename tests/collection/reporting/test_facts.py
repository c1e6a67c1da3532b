"""What a report says in words."""

from __future__ import annotations

from pathlib import Path

import pytest

from selfseg.collection.reporting.facts import next_commands


def test_commands_accept_as_many_bad_images_as_the_run_did() -> None:
    words = dict(next_commands(Path("run"), {"images": "photos", "max_bad": 0.6}, clustered=False))
    goes_over_images = [command for command in words.values() if " photos" in command]
    assert len(goes_over_images) == 7
    assert all(" photos --max-bad 0.6" in command for command in goes_over_images)
    for recipe in ({"images": "photos", "max_bad": 0.05}, {"images": "photos", "max_bad": "a word"}, {}):
        assert "--max-bad" not in " ".join(command for _, command in next_commands(Path("run"), recipe, False))


def test_the_next_step_is_to_name_what_was_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    steps = [command for _, command in next_commands(Path("run"), {"images": str(tmp_path / "my photos")}, True)]
    assert steps[:3] == [
        "selfseg studio run 'my photos'",  # a recipe holds whole paths
        "selfseg name run 0=road 3=sky",
        "selfseg apply run 'my photos' --out masks",
    ]


@pytest.mark.parametrize(("method", "asked"), [({"prototypes": 64}, "photos --top"), ({}, "photos -k 27 --top")])
def test_concepts_are_those_that_the_run_has(method: dict[str, int], asked: str) -> None:
    commands = next_commands(Path("run"), {"images": "photos", "method": method}, True)
    assert any(f"selfseg concepts run {asked}" in command for _, command in commands)

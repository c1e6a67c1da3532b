"""What a report says in words."""

from __future__ import annotations

from pathlib import Path

from selfseg.collection.reporting.facts import next_commands


def test_commands_accept_as_many_bad_images_as_the_run_did() -> None:
    words = dict(next_commands(Path("run"), {"images": "photos", "max_bad": 0.6}, clustered=False))
    goes_over_images = [command for command in words.values() if " photos" in command]
    assert len(goes_over_images) == 5
    assert all(" photos --max-bad 0.6 " in command for command in goes_over_images)
    for recipe in ({"images": "photos", "max_bad": 0.05}, {"images": "photos", "max_bad": "a word"}, {}):
        assert "--max-bad" not in " ".join(command for _, command in next_commands(Path("run"), recipe, False))

"""The page of the command line has every option that a help prints."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import re
import sys
from pathlib import Path

import pytest

from selfseg.cli import main

FILE = Path(__file__).resolve().parents[2] / "docs" / "_site" / "cli_pages.py"
specification = importlib.util.spec_from_file_location("cli_pages", FILE)
assert specification is not None
assert specification.loader is not None
cli_pages = importlib.util.module_from_spec(specification)
sys.modules["cli_pages"] = cli_pages  # dataclasses look for their module there
specification.loader.exec_module(cli_pages)


@pytest.mark.parametrize("verb", ["cluster", "apply", "name"])
def test_all_options_are_on_the_page(verb: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("NO_COLOR", "1")
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        assert main([verb, "--help-all"]) == 0
    page = cli_pages.written({verb: out.getvalue()})
    printed = set(re.findall(r"^(?:│ |  )(--?[a-z][\w-]*)", out.getvalue(), re.MULTILINE)) - {"-h"}
    assert printed
    for option in printed:
        assert re.search(rf"^`{option}[ ,`]", page, re.MULTILINE), option
    assert "Default: ``" not in page
    assert not re.search(r"^:   *$", page, re.MULTILINE), "an option without a meaning"


def test_a_verb_without_options() -> None:
    assert "takes no options" in cli_pages.written({"doctor": ""})

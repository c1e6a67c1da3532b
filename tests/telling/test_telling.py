"""Sentences for whoever runs a verb."""

import logging
import time

import pytest

from selfseg.telling import tell_after


def test_what_takes_long_is_told_and_what_is_quick_is_not(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "selfseg.told"):
        with tell_after("quick", 30):
            pass
        with tell_after("still fetching", 0.01):
            for _ in range(200):
                if caplog.messages:
                    break
                time.sleep(0.01)
    assert caplog.messages == ["still fetching"]

import io

import pytest
from rich.console import Console

from selfseg.training import doctor as diagnosis
from selfseg.training.doctor import Diagnosis, doctor


def rendered(found: Diagnosis) -> str:
    stream = io.StringIO()
    Console(file=stream, width=200).print(found.table())
    return stream.getvalue()


def test_a_sound_installation_trains_a_step() -> None:
    found = doctor()
    assert found.healthy, found.problem
    assert found.step_seconds is not None
    assert 0 < found.step_seconds < 60
    versions = {name: version for name, version, _ in found.packages}
    assert versions["torch"] != "missing"
    text = rendered(found)
    assert all(what in text for what, _ in found.machine)
    assert "works" in text


def test_whatever_fails_is_told_and_nothing_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> float:
        raise KeyError("libcudnn [8.9]")

    monkeypatch.setattr(diagnosis, "_tiny_step", fail)
    found = doctor()
    assert not found.healthy
    assert found.problem == "KeyError: 'libcudnn [8.9]'"
    assert "libcudnn [8.9]" in rendered(found)


def test_a_missing_package_says_what_to_install() -> None:
    name = "segmentation-models-pytorch"
    found = Diagnosis((), ((name, "missing", diagnosis._OPTIONAL[name]),), 0.1, "")
    assert "pip install 'selfseg[smp]'" in rendered(found)
    assert diagnosis._version("no-such-package") == "missing"

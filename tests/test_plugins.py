"""Methods and recipes of other packages: found by name, trained, and refused with a reason."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from selfseg import plugins
from selfseg.cli import main
from selfseg.errors import ConfigError

ROOT = Path(__file__).resolve().parents[1]
PLUGIN = ROOT / "examples" / "plugin"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the example package is installed into."""
    pytest.importorskip("hatchling")
    target = tmp_path_factory.mktemp("plugin") / "installed"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "--target", str(target), str(PLUGIN)], check=True)
    return target


@pytest.mark.slow
def test_an_installed_method_is_trained_by_name_and_its_run_can_be_used(
    installed: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    words = ["train", "region_contrast", str(photos), "--out", str(run), "--steps", "2", "--batch-size", "2"]
    words += ["--workers", "0", "--method.embedder.backbone", "resnet10t", "--method.views.size", "64"]
    before = set(sys.modules)
    with monkeypatch.context() as there:
        there.syspath_prepend(str(installed))
        plugins.registered.cache_clear()
        assert main(words) == 0
        assert "kind: RegionContrastConfig" in (run / "recipe.yaml").read_text()
        assert main(words) == 0, "the recipe is read back, and the run is done"
    plugins.registered.cache_clear()
    for name in set(sys.modules) - before:
        if name.partition(".")[0] == "region_contrast":
            del sys.modules[name]
    assert main(words) == 2, "it is gone"
    # Whoever gets the run needs the package no more: the embedder is selfseg's.
    from selfseg import load

    assert load(run, "cpu").dim == 128


def test_the_documentation_shows_the_package_as_it_is() -> None:
    text = (ROOT / "docs" / "add-a-method.md").read_text("utf-8")
    shown = re.findall(r"```(?:python|toml)\n(.*?)```", text, re.DOTALL)
    names = ("src/region_contrast/method.py", "src/region_contrast/recipes.py", "pyproject.toml")
    assert shown == [(PLUGIN / name).read_text("utf-8") for name in names]


@pytest.fixture
def points(monkeypatch: pytest.MonkeyPatch) -> list[EntryPoint]:
    """What is registered, to be filled by a test."""
    found: list[EntryPoint] = []
    monkeypatch.setattr(plugins, "entry_points", lambda group: [point for point in found if point.group == group])
    plugins.registered.cache_clear()
    yield found
    plugins.registered.cache_clear()


def entry(name: str, value: str) -> EntryPoint:
    return EntryPoint(name, value, "selfseg.recipes")


def test_two_packages_with_one_name_are_refused(points: list[EntryPoint]) -> None:
    points += [entry("mine", "a:f"), entry("mine", "b:f")]
    with pytest.raises(ConfigError, match=r"two packages register 'mine'.*a:f.*b:f"):
        plugins.registered("selfseg.recipes")


def test_a_broken_package_is_named_and_the_rest_works(points: list[EntryPoint]) -> None:
    points += [entry("broken", "no_such_module:f"), entry("fine", "pathlib:Path")]
    with pytest.warns(UserWarning, match=r"'broken'.*no_such_module"):
        assert plugins.load_all("selfseg.recipes") == {"fine": Path}
    with pytest.raises(ConfigError, match="mend or uninstall"):
        plugins.load("selfseg.recipes", "broken")
    with pytest.raises(ConfigError, match=r"no 'other'.*broken, fine"):
        plugins.load("selfseg.recipes", "other")


def test_without_an_installation_it_says_what_to_do(points: list[EntryPoint]) -> None:
    with pytest.raises(ConfigError, match="make setup"):
        plugins.registered("selfseg.methods")
